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

from bench.usage import busy, cpu_of_tree
from model.decisions import QUERY_PROGRESS, SIGNAL_DECIDE, Decision, Recorded, Verdict
from model.fleet import TASK_QUEUE, workflow_id
from model.fleet_file import load
from model.progress import FleetProgress, FleetResult, FleetState, UpgradeRequest
from service.connection import connect, without_settings
from service.server import IP, binary, free_port

CHANGE = "20261123T220000Z"
_ROOT = Path(__file__).parent.parent
_PATIENCE = 30.0
_LOOK = 0.5
"""Seconds between two looks for the gate, which the script approves at once."""


@dataclass(frozen=True)
class Measured:
    """One run. Wall and CPU are in seconds, from the first step to the last, start-up left out."""

    wall: float
    cpu: dict[str, float]
    """By part: worker, temporal, starter; or client; and hosts in both."""
    fleet: dict[str, Any]
    """What the simulated fleet says at the end: versions, sessions, commands."""
    foreign: float
    """CPU seconds that everything else on this machine used meanwhile: a disturbed run has many."""
    before: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the parts until they were ready."""
    activities: dict[str, dict[str, float]] = field(default_factory=dict)
    """By name: how many, seconds in all, the slowest, seconds from being scheduled to being taken on."""

    @property
    def controller(self) -> float:
        """CPU of everything that is not the simulated hosts."""
        return sum(seconds for part, seconds in self.cpu.items() if part != "hosts")


class _Line:
    """A child process that speaks JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def said(self) -> dict[str, Any]:
        assert self.process.stdout  # noqa: S101 - it was started with a pipe
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a part of the measurement ended early")
        return dict(json.loads(line))

    async def tell(self) -> None:
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def end(self) -> None:
        assert self.process.stdin  # noqa: S101
        self.process.stdin.close()


@asynccontextmanager
async def _process(*argv: str, env: dict[str, str] | None = None, log: Path | None = None) -> AsyncIterator[_Line]:
    pipe = asyncio.subprocess.PIPE
    output = log.open("wb") if log else None
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=output or pipe, stderr=output, cwd=_ROOT, env=env
    )
    try:
        yield _Line(process)
    finally:
        if process.stdin:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            # Whoever reads standard input ends by itself.
            await asyncio.wait_for(process.wait(), 0 if log else _PATIENCE)
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if output:
            output.close()


@asynccontextmanager
async def _simulated(folder: Path, servers: int, *, together: bool = False) -> AsyncIterator[tuple[_Line, Path]]:
    module = ("-m", "bench.simulated", str(folder), "--servers", str(servers), *(("--speed", "1") if together else ()))
    async with _process(sys.executable, *module) as hosts:
        fleet = Path((await hosts.said())["fleet"])
        text = await asyncio.to_thread(fleet.read_text)
        wide = f'[rollout]\ncanary = {servers}\nwave = {servers}\napprove = "core-only"\n'
        if together:
            wide = '[rollout]\nmode = "together"\n'
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
        """With what was read at the window's end."""
        used = {name: seconds - self.before[name] for name, seconds in cpu.items()}
        foreign = machine - self._machine - sum(used.values())
        return Measured(wall=wall, cpu=used, fleet=fleet, foreign=foreign, before=self.before, **more)

    def close(self) -> tuple[dict[str, float], float, float]:
        """CPU of the parts, wall since the beginning, and what the machine has used."""
        return self._now(), time.monotonic() - self._begun, busy()


async def bare(folder: Path, servers: int) -> Measured:
    """Plain asyncssh."""
    async with (
        _simulated(folder, servers) as (hosts, fleet),
        _process(sys.executable, "-m", "bench.bare", str(fleet), CHANGE) as client,
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


async def tool(folder: Path, servers: int, *, together: bool = False) -> Measured:
    """This project: Temporal on disk and one worker. `together`: all agents with Core, at a real Core's pace."""
    port = free_port()
    server = [str(binary()), "server", "start-dev", "--ip", IP, "--port", str(port), "--headless"]
    server += ["--log-level", "error", "--db-filename", str(folder / "temporal.db")]
    empty = folder / "temporal.toml"
    await asyncio.to_thread(_prepare, empty)
    env = without_settings(os.environ, empty) | {"TEMPORAL_ADDRESS": f"{IP}:{port}"}
    ready = folder / "worker.ready"
    worker_command = (sys.executable, "-m", "worker", "--ready-file", str(ready))
    async with _simulated(folder / "fleet", servers, together=together) as (hosts, fleet):
        async with _process(*server, env=env, log=folder / "temporal.log") as temporal:
            client = await _connected(f"{IP}:{port}")
            async with _process(*worker_command, env=env, log=folder / "worker.log") as worker:
                await asyncio.to_thread(_wait_for, ready)
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
        said["dark"] = sorted(o.proof.dark.total_seconds() for o in result.servers if o.proof)
        return window.end(said, cpu, wall, machine, activities=activities)


def _prepare(empty: Path) -> None:
    empty.parent.mkdir(parents=True)
    empty.touch()


def _wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        if time.monotonic() > end:
            raise SystemExit(f"no {file}: the worker does not start")
        time.sleep(0.05)


def _checked(said: dict[str, Any], servers: int) -> dict[str, Any]:
    """A run that did not upgrade everything measures nothing."""
    if said["defects"] or said["core"] != "2.3.2" or said["agents"] != {"2.3.2": servers}:
        raise SystemExit(f"not everything was upgraded: {said}")
    return said


async def _connected(address: str) -> Client:
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
        await asyncio.wait([done], timeout=_LOOK)
        progress: FleetProgress = await handle.query(QUERY_PROGRESS, result_type=FleetProgress)
        gate = progress.gate
    if gate:
        decision = Decision(gate=gate.id, verdict=Verdict.APPROVE, actor="bench", plan_digest=gate.plan_digest)
        await handle.execute_update(SIGNAL_DECIDE, decision, result_type=Recorded)
    await done
    return handle


async def _activities(client: Client) -> dict[str, dict[str, float]]:
    """Times of all activities out of the histories."""
    found: dict[str, dict[str, float]] = {}
    async for run in client.list_workflows():
        scheduled: dict[int, tuple[str, float]] = {}
        started: dict[int, float] = {}
        async for event in client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history_events():
            at = event.event_time.ToNanoseconds() / 1e9
            if event.HasField("activity_task_scheduled_event_attributes"):
                scheduled[event.event_id] = (event.activity_task_scheduled_event_attributes.activity_type.name, at)
            elif event.HasField("activity_task_started_event_attributes"):
                started[event.activity_task_started_event_attributes.scheduled_event_id] = at
            elif event.HasField("activity_task_completed_event_attributes"):
                number = event.activity_task_completed_event_attributes.scheduled_event_id
                name, since = scheduled[number]
                row = found.setdefault(name, {"count": 0, "seconds": 0.0, "slowest": 0.0, "queued": 0.0})
                took = at - started[number]
                row["count"] += 1
                row["seconds"] += took
                row["slowest"] = max(row["slowest"], took)
                row["queued"] += started[number] - since
    return found
