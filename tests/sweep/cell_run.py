"""One run: a simulated fleet, a Temporal server of its own, and a worker that dies where the director says."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, FleetSpec, workflow_id
from model.gates import QUERY_PROGRESS, SIGNAL_CONTROL, SIGNAL_DECIDE, Control, ControlVerb, Decision, Gate, Verdict
from model.status import FleetProgress, FleetResult, UpgradeRequest
from sandbox.fleet import Sandbox
from service.embedded.server import IP, command, free_port
from service.payloads import data_converter
from tests.sweep.director import Director, Wanted

PATIENCE = 600.0
"""Seconds after which a run is abandoned."""
GLANCE = 0.3
CHANGE = "20261123T220000Z"
ROOT = Path(__file__).parent.parent.parent


@dataclass
class Temporal:
    """The bundled server, which can be killed and started again on its database."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None
    kills: int = 0
    _begun: asyncio.Event = field(default_factory=asyncio.Event)
    _kept: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"{IP}:{self.port}"

    async def start(self) -> None:
        """Start it, and restart it whenever it ends: it picks some ports at random, and ends when one is taken."""
        self._kept = asyncio.ensure_future(self._keep())
        await self._begun.wait()

    async def _keep(self) -> None:
        while True:
            with (self.folder / "temporal.log").open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *command(self.port, self.folder / "temporal.db"), stdout=log, stderr=log
                )
            self._begun.set()
            await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL; it is restarted at once."""
        assert self.process
        self.kills += 1
        self.process.kill()

    async def stop(self) -> None:
        if self._kept:
            self._kept.cancel()
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@dataclass
class CellRun:
    """What a scenario drives."""

    folder: Path
    sandbox: Sandbox
    temporal: Temporal
    client: Client
    spec: FleetSpec
    director: Director
    log: Path
    answered: list[str] = field(default_factory=list)

    @property
    def handle(self) -> WorkflowHandle[Any, FleetResult]:
        """The fleet's workflow, whichever run it is."""
        handle: WorkflowHandle[Any, FleetResult] = self.client.get_workflow_handle(
            workflow_id(self.spec.name), result_type=FleetResult
        )
        return handle

    async def upgrade(self) -> None:
        """Begin an upgrade, as `komodo-upgrade start` does."""
        await self.client.start_workflow(
            "UpgradeFleet", UpgradeRequest(fleet=self.spec, change=CHANGE, requested_by="ann"),
            id=workflow_id(self.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult,
        )  # fmt: skip

    async def progress(self) -> FleetProgress | None:
        """What `status` shows; None while no worker answers."""
        try:
            reported: FleetProgress = await self.handle.query(
                QUERY_PROGRESS, result_type=FleetProgress, rpc_timeout=timedelta(seconds=5)
            )
        except (TimeoutError, RPCError):
            return None
        return reported

    async def decide(self, gate: Gate, verdict: Verdict) -> None:
        """By signal, which works without a worker. Repeated until Temporal has accepted it."""
        decision = Decision(gate=gate.id, verdict=verdict, actor="ann", plan_digest=gate.plan_digest)
        await retried(lambda: self.handle.signal(SIGNAL_DECIDE, decision, rpc_timeout=timedelta(seconds=5)))

    async def ask_for_rollback(self) -> None:
        """As `komodo-upgrade rollback` does while the upgrade runs."""
        wanted = Control(verb=ControlVerb.ROLLBACK, actor="ann", reason="second thoughts")
        await retried(lambda: self.handle.signal(SIGNAL_CONTROL, wanted, rpc_timeout=timedelta(seconds=5)))

    async def to_the_end(self, answer: Callable[[Gate], Verdict | None]) -> FleetResult:
        """Answer gates until the workflow has ended. `answer` returns None to ask for a rollback."""
        done = asyncio.ensure_future(self._result())
        end = time.monotonic() + PATIENCE
        self.answered.clear()
        while not done.done():
            if time.monotonic() > end:
                done.cancel()
                raise TimeoutError(f"not at its end after {PATIENCE:.0f} s: {await self.progress()}")
            progress = await self.progress()
            gate = progress.gate if progress else None
            if gate and gate.id not in self.answered:
                verdict = answer(gate)
                if verdict:
                    await self.decide(gate, verdict)
                else:
                    await self.ask_for_rollback()
                self.answered.append(gate.id)
            await asyncio.wait([done], timeout=GLANCE)
        return await done

    async def _result(self) -> FleetResult:
        result: FleetResult = await retried(self.handle.result)
        return result


async def retried(what: Callable[[], Any]) -> Any:
    """Repeat a call to Temporal while its server is down."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await what()
        except RPCError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


@asynccontextmanager
async def cell_run(
    folder: Path,
    *,
    cells: dict[str, Wanted],
    shape: Callable[[FleetSpec], FleetSpec],
    servers: int = 2,
    containers: Mapping[str, str] | None = None,
) -> AsyncIterator[CellRun]:
    """Start everything, and stop it at the end. `shape` changes the settings of the fleet file."""
    async with AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kuw-")))
        temporal = Temporal(folder, free_port())
        await temporal.start()
        stack.push_async_callback(temporal.stop)
        sandbox = await Sandbox.start(folder / "fleet", servers=servers, speed=10, containers=containers)
        stack.push_async_callback(sandbox.stop)
        director = Director(cut=sandbox.kill_connections, kill_server=temporal.kill, cells=cells)
        await director.start(sockets / "d")
        stack.push_async_callback(director.stop)
        client = await _client(temporal.address)
        log = folder / "worker.log"
        await stack.enter_async_context(_worker(folder, log, sockets / "d", temporal.address))
        spec = await asyncio.to_thread(load, sandbox.fleet_file)
        timing = replace(spec.timing, heartbeat=timedelta(seconds=3), retry=timedelta(seconds=0.5))
        yield CellRun(folder, sandbox, temporal, client, shape(replace(spec, timing=timing)), director, log)


@asynccontextmanager
async def _worker(folder: Path, log: Path, socket: Path, address: str) -> AsyncIterator[None]:
    with log.open("wb") as output:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.sweep.worker", str(socket), address,
            cwd=ROOT, env={**os.environ, "HOME": str(folder)},
            stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield
    finally:
        assert worker.stdin
        worker.stdin.close()
        try:
            await asyncio.wait_for(worker.wait(), 10)
        except TimeoutError:
            worker.kill()
            await worker.wait()


async def _client(address: str) -> Client:
    end = time.monotonic() + 60
    while True:
        try:
            return await Client.connect(address, data_converter=data_converter)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)
