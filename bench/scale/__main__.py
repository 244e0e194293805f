"""`python -m bench.scale --servers 100 300`: upgrade simulated fleets of these sizes, and roll them back.

Real SSH, a real Temporal server on disk, waves of 50, and two workers, of which one is killed during the rollout.
Prints a Markdown table; with two sizes also what one more server costs. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from bench.measure.usage import cpu_of_tree, machine, memory_of_tree, open_files
from bench.runs import CHANGE, ChildProcess, child_process, connected, make_empty, wait_for_file
from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, FleetSpec, workflow_id
from model.gates import QUERY_PROGRESS, SIGNAL_DECIDE, Decision, Recorded, Verdict
from model.rollback import by_reference, request_from_folders
from model.status import FleetProgress, FleetResult, FleetState, ServerState, UpgradeRequest
from service.connection import without_settings
from service.embedded.server import IP, binary, free_port
from service.requests import folders

_POLL = 1.0
_ROLLOUT = '[rollout]\ncanary = 1\nwave = 50\napprove = "core-only"\n'
_PARTS = ("worker", "second worker", "temporal", "hosts")


@dataclass
class Scale:
    """What one size used."""

    servers: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the upgrade and of the rollback."""
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """The largest resident size of each part, in MiB."""
    files: int = 0
    """The most open files of a worker."""
    histories: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By type of workflow: how many, and the most events and bytes of one."""


class _Watcher:
    """Samples the processes while something runs."""

    def __init__(self, scale: Scale, pids: dict[str, int]) -> None:
        self._scale, self._pids = scale, pids

    def sample(self) -> None:
        """Keep the largest values so far. CPU of a process that ended stays as last seen."""
        for part, pid in self._pids.items():
            self._scale.cpu[part] = max(cpu_of_tree(pid), self._scale.cpu.get(part, 0.0))
            self._scale.memory[part] = max(memory_of_tree(pid), self._scale.memory.get(part, 0.0))
            if "worker" in part:
                self._scale.files = max(open_files(pid), self._scale.files)


@dataclass
class _Bed:
    client: Client
    fleet: FleetSpec
    workers: list[ChildProcess]
    watcher: _Watcher


@asynccontextmanager
async def _bed(folder: Path, scale: Scale) -> AsyncIterator[_Bed]:
    """Hosts, Temporal and two workers."""
    port = free_port()
    server = [str(binary()), "server", "start-dev", "--ip", IP, "--port", str(port), "--headless"]
    server += ["--log-level", "error", "--db-filename", str(folder / "temporal.db")]
    settings = folder / "temporal.toml"
    await asyncio.to_thread(make_empty, settings)
    env = without_settings(os.environ, settings) | {"TEMPORAL_ADDRESS": f"{IP}:{port}"}
    simulated = ("-m", "bench.simulated", str(folder / "fleet"), "--servers", str(scale.servers))

    def worker(number: int) -> tuple[str, ...]:
        return (sys.executable, "-m", "worker", "--ready-file", str(folder / f"{number}.ready"))

    async with (
        child_process(sys.executable, *simulated) as hosts,
        child_process(*server, env=env, log=folder / "temporal.log") as temporal,
    ):
        file = Path((await hosts.said())["fleet"])
        text = (await asyncio.to_thread(file.read_text)).replace("[rollout]\ncanary = 1\nwave = 2\n", _ROLLOUT)
        await asyncio.to_thread(file.write_text, text)
        client = await connected(f"{IP}:{port}")
        async with (
            child_process(*worker(1), env=env, log=folder / "worker-1.log") as first,
            child_process(*worker(2), env=env, log=folder / "worker-2.log") as second,
        ):
            for number in (1, 2):
                await asyncio.to_thread(wait_for_file, folder / f"{number}.ready")
            pids = dict(zip(_PARTS, (first.pid, second.pid, temporal.pid, hosts.pid), strict=True))
            watcher = _Watcher(scale, pids)
            yield _Bed(client, await asyncio.to_thread(load, file), [first, second], watcher)
        await hosts.end()


async def _measure(servers: int) -> Scale:
    scale = Scale(servers)
    with tempfile.TemporaryDirectory(prefix="ku-scale-", ignore_cleanup_errors=True) as folder:
        async with _bed(Path(folder) / "run", scale) as bed:
            begun = time.monotonic()
            request = UpgradeRequest(fleet=bed.fleet, change=CHANGE, requested_by="scale")
            result = await _to_the_end(bed, "UpgradeFleet", request, kill=True)
            scale.seconds["upgrade"] = time.monotonic() - begun
            _require(result, FleetState.UPGRADED)
            _log(f"{servers}: upgraded in {scale.seconds['upgrade']:.0f} s")
            begun = time.monotonic()
            seen = await folders(bed.client, bed.fleet)
            back = by_reference(request_from_folders(bed.fleet, seen, requested_by="scale"))
            _require(await _to_the_end(bed, "RollbackFleet", back), FleetState.ROLLED_BACK)
            scale.seconds["rollback"] = time.monotonic() - begun
            _log(f"{servers}: rolled back in {scale.seconds['rollback']:.0f} s")
            scale.histories = await _histories(bed.client)
    return scale


async def _to_the_end(bed: _Bed, kind: str, request: Any, *, kill: bool = False) -> FleetResult:
    """Approve every gate. `kill`: the second worker dies by SIGKILL when a fifth of the servers is upgraded."""
    handle: WorkflowHandle[Any, FleetResult] = await bed.client.start_workflow(
        kind, request, id=workflow_id(bed.fleet.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    done = asyncio.ensure_future(handle.result())
    answered: list[str] = []
    while not done.done():
        await asyncio.wait([done], timeout=_POLL)
        bed.watcher.sample()
        progress: FleetProgress = await handle.query(QUERY_PROGRESS, result_type=FleetProgress)
        if progress.gate and progress.gate.id not in answered and not done.done():
            gate = progress.gate
            if Verdict.APPROVE not in gate.verdicts:
                raise SystemExit(f"gate {gate.id}: {gate.question}\n" + "\n".join(gate.facts))
            decision = Decision(gate=gate.id, verdict=Verdict.APPROVE, actor="scale", plan_digest=gate.plan_digest)
            await handle.execute_update(SIGNAL_DECIDE, decision, result_type=Recorded)
            answered.append(gate.id)
        upgraded = sum(server.state is ServerState.UPGRADED for server in progress.servers)
        if kill and upgraded * 5 >= len(progress.servers):
            kill = False
            bed.workers[1].process.kill()
            _log(f"{len(progress.servers)}: a worker was killed with {upgraded} servers upgraded")
    return await done


def _require(result: FleetResult, state: FleetState) -> None:
    if result.state is not state:
        raise SystemExit(f"it ended as {result.state}: {result.detail}")


async def _histories(client: Client) -> dict[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    async for run in client.list_workflows():
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        events = size = 0
        async for event in handle.fetch_history_events():
            events, size = events + 1, size + event.ByteSize()
        count, most, largest = found.get(run.workflow_type, (0, 0, 0))
        found[run.workflow_type] = (count + 1, max(most, events), max(largest, size))
    return found


def _report(scales: Sequence[Scale]) -> str:
    lines = [machine(), "", "| servers | " + " | ".join(str(scale.servers) for scale in scales) + " |"]
    lines.append("|---|" + "---|" * len(scales))
    rows: dict[str, list[str]] = {
        "upgrade, s": [f"{scale.seconds['upgrade']:.0f}" for scale in scales],
        "rollback, s": [f"{scale.seconds['rollback']:.0f}" for scale in scales],
    }
    for part in _PARTS:
        rows[f"{part}: CPU s, MiB"] = [f"{s.cpu.get(part, 0):.0f}, {s.memory.get(part, 0):.0f}" for s in scales]
    rows["open files of a worker"] = [str(scale.files) for scale in scales]
    for kind in sorted({kind for scale in scales for kind in scale.histories}):
        measured = [scale.histories.get(kind, (0, 0, 0)) for scale in scales]
        rows[f"{kind}: number, most events, most KB"] = [f"{n}, {e}, {b // 1000}" for n, e, b in measured]
    lines += [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]
    if len(scales) > 1:
        few, many = scales[0], scales[-1]
        more = many.servers - few.servers
        cpu = [sum(s.cpu.get(part, 0) for part in _PARTS[:3]) for s in (few, many)]
        wall = (many.seconds["upgrade"] - few.seconds["upgrade"]) / more
        lines += ["", f"One more server: {wall:.2f} s of the upgrade, {(cpu[1] - cpu[0]) / more:.2f} s controller CPU"]
    return "\n".join(lines) + "\n"


def _log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--servers", type=int, nargs="+", default=[100, 300], help="sizes of the fleets")
    options = parser.parse_args()
    scales = []
    for servers in options.servers:
        scales.append(asyncio.run(_measure(servers)))
        sys.stdout.write(_report(scales))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
