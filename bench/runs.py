"""One measured run each: the tool, and bare asyncssh, on a fresh simulated fleet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from bench.measure.spans import spans
from bench.measure.usage import busy, cpu_of_tree
from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, workflow_id
from model.gates import QUERY_PROGRESS, SIGNAL_DECIDE, Decision, Recorded, Verdict
from model.status import FleetProgress, FleetResult, FleetState, UpgradeRequest
from service.connection import connect, without_settings
from service.embedded.server import IP, binary, free_port

CHANGE = "20261123T220000Z"
_ROOT = Path(__file__).parent.parent
_PATIENCE = 30.0
_POLL = 0.5
"""Seconds between two checks for the gate, which the script approves at once."""


@dataclass(frozen=True)
class Measured:
    """One run. Wall and CPU are in seconds, from the first step to the last, start-up left out."""

    wall: float
    cpu: dict[str, float]
    """By part: worker, temporal, starter; or client; and hosts in both."""
    fleet: dict[str, Any]
    """The final output of the simulated fleet: versions, sessions, commands."""
    foreign: float
    """CPU seconds that everything else on this machine used during the run."""
    before: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the parts until they were ready."""
    activities: dict[str, dict[str, float]] = field(default_factory=dict)
    """By name: count, seconds in all, the slowest, seconds between scheduling and start."""

    @property
    def controller(self) -> float:
        """CPU of everything that is not the simulated hosts."""
        return sum(seconds for part, seconds in self.cpu.items() if part != "hosts")


class ChildProcess:
    """A child process that speaks JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    async def said(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout  # noqa: S101 - it was started with a pipe
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a part of the measurement ended early")
        return dict(json.loads(line))

    async def tell(self) -> None:
        """Send it an empty line: it begins."""
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def end(self) -> None:
        """Close its standard input: it ends."""
        assert self.process.stdin  # noqa: S101
        self.process.stdin.close()


@asynccontextmanager
async def child_process(
    *argv: str, env: dict[str, str] | None = None, log: Path | None = None
) -> AsyncIterator[ChildProcess]:
    """Run a process for as long as the block; `log` gets its output, which cannot be read then."""
    pipe = asyncio.subprocess.PIPE
    output = log.open("wb") if log else None
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=output or pipe, stderr=output, cwd=_ROOT, env=env
    )
    try:
        yield ChildProcess(process)
    finally:
        if process.stdin:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            # A child that reads standard input ends by itself.
            await asyncio.wait_for(process.wait(), 0 if log else _PATIENCE)
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if output:
            output.close()


@asynccontextmanager
async def _simulated(
    folder: Path, servers: int, *, all_at_once: bool = False
) -> AsyncIterator[tuple[ChildProcess, Path]]:
    module = (
        "-m",
        "bench.simulated",
        str(folder),
        "--servers",
        str(servers),
        *(("--speed", "1") if all_at_once else ()),
    )
    async with child_process(sys.executable, *module) as hosts:
        fleet = Path((await hosts.said())["fleet"])
        text = await asyncio.to_thread(fleet.read_text)
        wide = f'[rollout]\ncanary = {servers}\nwave = {servers}\napprove = "core-only"\n'
        if all_at_once:
            wide = '[rollout]\nmode = "all-at-once"\n'
        await asyncio.to_thread(fleet.write_text, text.replace("[rollout]\ncanary = 1\nwave = 2\n", wide))
        yield hosts, fleet
        await hosts.process.wait()


class _Window:
    """CPU of some processes between two moments."""

    def __init__(self, **parts: int) -> None:
        self._parts = parts
        self.before = self._now()
        self._machine, self._begun = busy(), time.monotonic()

    def _now(self) -> dict[str, float]:
        return {name: cpu_of_tree(pid) for name, pid in self._parts.items()}

    def end(self, fleet: dict[str, Any], cpu: dict[str, float], wall: float, machine: float, **more: Any) -> Measured:
        """The usage at the end of the measurement."""
        used = {name: seconds - self.before[name] for name, seconds in cpu.items()}
        foreign = machine - self._machine - sum(used.values())
        return Measured(wall=wall, cpu=used, fleet=fleet, foreign=foreign, before=self.before, **more)

    def close(self) -> tuple[dict[str, float], float, float]:
        """CPU of the parts, wall time, and CPU of the whole machine."""
        return self._now(), time.monotonic() - self._begun, busy()


async def bare(folder: Path, servers: int) -> Measured:
    """Plain asyncssh."""
    async with (
        _simulated(folder, servers) as (hosts, fleet),
        child_process(sys.executable, "-m", "bench.bare", str(fleet), CHANGE) as client,
    ):
        await client.said()
        window = _Window(client=client.pid, hosts=hosts.pid)
        await client.tell()
        wall = float((await client.said())["wall"])
        cpu, _, machine = window.close()
        await client.end()
        await client.process.wait()
        await hosts.end()
        return window.end(_checked(await hosts.said(), servers), cpu, wall, machine)


async def tool(folder: Path, servers: int, *, all_at_once: bool = False) -> Measured:
    """This project: Temporal on disk and one worker. `all_at_once`: all agents with Core, with a real Core's timing."""
    port = free_port()
    server = [str(binary()), "server", "start-dev", "--ip", IP, "--port", str(port), "--headless"]
    server += ["--log-level", "error", "--db-filename", str(folder / "temporal.db")]
    empty = folder / "temporal.toml"
    await asyncio.to_thread(make_empty, empty)
    env = without_settings(os.environ, empty) | {"TEMPORAL_ADDRESS": f"{IP}:{port}"}
    ready = folder / "worker.ready"
    worker_command = (sys.executable, "-m", "worker", "--ready-file", str(ready))
    async with _simulated(folder / "fleet", servers, all_at_once=all_at_once) as (hosts, fleet):
        async with child_process(*server, env=env, log=folder / "temporal.log") as temporal:
            client = await connected(f"{IP}:{port}")
            async with child_process(*worker_command, env=env, log=folder / "worker.log") as worker:
                await asyncio.to_thread(wait_for_file, ready)
                request = UpgradeRequest(
                    fleet=await asyncio.to_thread(load, fleet), change=CHANGE, requested_by="bench"
                )
                window = _Window(worker=worker.pid, temporal=temporal.pid, hosts=hosts.pid)

                handle = await _upgraded(client, request)
                cpu, wall, machine = window.close()
                activities = await _activities(client)
                result = await handle.result()
        await hosts.end()
        if result.state is not FleetState.UPGRADED:
            raise SystemExit(f"the upgrade ended as {result.state}: {result.detail}")
        said = _checked(await hosts.said(), servers)
        said["unmanaged"] = sorted(o.proof.unmanaged.total_seconds() for o in result.servers if o.proof)
        return window.end(said, cpu, wall, machine, activities=activities)


def make_empty(empty: Path) -> None:
    """Make an empty file in a new folder."""
    empty.parent.mkdir(parents=True)
    empty.touch()


def wait_for_file(file: Path) -> None:
    """Wait until a worker is ready."""
    end = time.monotonic() + 60
    while not file.exists():
        if time.monotonic() > end:
            raise SystemExit(f"no {file}: the worker does not start")
        time.sleep(0.05)


def _checked(said: dict[str, Any], servers: int) -> dict[str, Any]:
    """Refuse a run that did not upgrade everything."""
    if said["defects"] or said["core"] != "2.3.2" or said["agents"] != {"2.3.2": servers}:
        raise SystemExit(f"not everything was upgraded: {said}")
    return said


async def connected(address: str) -> Client:
    """Connect to a server that was just started."""
    for _ in range(100):
        try:
            return await connect({"target_host": address}, timeout=timedelta(seconds=2))
        except Exception:  # noqa: BLE001 - not up yet
            await asyncio.sleep(0.1)
    raise SystemExit("the Temporal server does not start")


async def _upgraded(client: Client, request: UpgradeRequest) -> WorkflowHandle[Any, FleetResult]:
    name = workflow_id(request.fleet.name)
    handle: WorkflowHandle[Any, FleetResult] = await client.start_workflow(
        "UpgradeFleet", request, id=name, task_queue=TASK_QUEUE, result_type=FleetResult
    )
    done = asyncio.ensure_future(handle.result())
    gate = None
    while gate is None and not done.done():
        await asyncio.wait([done], timeout=_POLL)
        progress: FleetProgress = await handle.query(QUERY_PROGRESS, result_type=FleetProgress)
        gate = progress.gate
    if gate:
        decision = Decision(gate=gate.id, verdict=Verdict.APPROVE, actor="bench", plan_digest=gate.plan_digest)
        await handle.execute_update(SIGNAL_DECIDE, decision, result_type=Recorded)
    await done
    return handle


async def _activities(client: Client) -> dict[str, dict[str, float]]:
    """Number and times of all activities, by name."""
    found: dict[str, dict[str, float]] = {}
    for span in await spans(client):
        row = found.setdefault(span.name, {"count": 0, "seconds": 0.0, "slowest": 0.0, "queued": 0.0})
        row["count"] += 1
        row["seconds"] += span.ended - span.started
        row["slowest"] = max(row["slowest"], span.ended - span.started)
        row["queued"] += span.started - span.scheduled
    return found
