"""However people decide, whatever breaks and whenever the worker forgets everything: what must hold, holds.

A fixed choice of nights in `make test`; `make invariants` spends many more, other ones each time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from temporalio.testing import WorkflowEnvironment

from tests.workflows.driver import Driver, local_server
from tests.workflows.invariants import Night, nights, spend
from tests.workflows.world import World

NIGHTS = int(os.environ.get("KU_NIGHTS", "0"))
_numbers = itertools.count(1)


@pytest.fixture
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with await local_server() as env:
        yield env


@settings(
    max_examples=NIGHTS or 12,
    derandomize=not NIGHTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(nights())
@example(Night())
async def test_a_night(temporal: WorkflowEnvironment, night: Night) -> None:
    world = World(*(f"web-{n}" for n in range(1, night.servers + 1)))
    async with Driver.plain(temporal, world, forgetful=night.forgetful) as run:
        await spend(run, world, night, f"night-{next(_numbers)}")
