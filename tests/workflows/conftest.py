"""A time-skipping server per test, because a stuck step would freeze the clock of the next; one real server for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.workflows.doubles import Doubles
from tests.workflows.driver import Driver, LocalServer, skipping_server


@pytest.fixture
def doubles() -> Doubles:
    return Doubles()


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with await skipping_server() as env:
        yield env


@pytest.fixture(scope="session")
def local_server() -> Iterator[LocalServer]:
    server = LocalServer()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def real(local_server: LocalServer) -> AsyncIterator[WorkflowEnvironment]:
    async with local_server.connect() as env:
        yield env


@pytest.fixture
async def run(skipping: WorkflowEnvironment, doubles: Doubles) -> AsyncIterator[Driver]:
    """A worker with the doubles on the time-skipping server."""
    async with Driver.serving(skipping, doubles) as driver:
        yield driver


@pytest.fixture
async def run_real(real: WorkflowEnvironment, doubles: Doubles) -> AsyncIterator[Driver]:
    """The same on a real server: updates with validators, REQUEST_CANCEL, terminate."""
    async with Driver.serving(real, doubles) as driver:
        yield driver
