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
from tests.workflows.invariants import Fault, Night, nights, spend
from tests.workflows.world import World

NIGHTS = int(os.environ.get("KU_NIGHTS", "0"))
UNDO_OF_CORE = Fault("restore_core_files", "core", "CommandFailed", 3)
UNDO_OF_WEB_1 = Fault("restore_server", "web-1", "CommandFailed", 6)
RETURN = Fault("return_to_new_core", "core", "DatabaseError", 5)
_numbers = itertools.count(1)


@pytest.fixture
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with await local_server() as env:
        yield env


@settings(
    max_examples=NIGHTS or 2,
    derandomize=not NIGHTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(nights())
@example(Night(agent=True, back=True))
@example(Night(servers=1, faults=(Fault("write_core_files", "core", "DiskFull", 1), UNDO_OF_CORE)))
@example(Night(faults=(Fault("dump_database", "core", "DumpRejected", 1, after=1),), answers=("first", "duplicate")))
@example(
    Night(faults=(Fault("switch_server", "web-1", "AgentNotStarted", 1), UNDO_OF_WEB_1), answers=("another plan",))
)
@example(Night(servers=3, answers=("unknown gate", "first", "nobody", "rollback", "not taken", "first")))
@example(Night(faults=(Fault("start_core", "core", "CommandFailed", 1),), answers=("first", "second")))
@example(Night(servers=1, faults=(Fault("prove_dump", "core", "CommandFailed", 2, after=1),), back=True))
@example(Night(meanwhile=((13, "cancel"),), forgetful=True))
@example(Night(faults=(Fault("restore_database", "core", "CommandFailed", 1), RETURN), answers=("first", "rollback")))
async def test_a_night(temporal: WorkflowEnvironment, night: Night) -> None:
    world = World(*(f"web-{n}" for n in range(1, night.servers + 1)))
    async with Driver.plain(temporal, world, forgetful=night.forgetful) as run:
        await spend(run, world, night, f"night-{next(_numbers)}")
