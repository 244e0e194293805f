"""One run in a process of its own: `python -m tests.sweep.run FOLDER SCENARIO`, cells on standard input."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import traceback
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.sweep import proofs
from tests.sweep.cell_run import cell_run
from tests.sweep.director import Seen, Wanted
from tests.sweep.proofs import After
from tests.sweep.scenarios import SCENARIOS, Scenario

_T = TypeVar("_T")


@dataclass
class Report:
    """The result of one run."""

    scenario: str
    seconds: float = 0.0
    hits: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """In the order in which they began."""
    after: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    detail: str = ""


async def one(folder: Path, scenario: Scenario, cells: dict[str, Wanted], wanted: After | None) -> Report:
    """Play a scenario and check what it left. `wanted`: what the undisturbed run left; None: this is that run."""
    reported, begun = Report(scenario.name), time.monotonic()
    async with cell_run(folder, cells=cells, shape=scenario.shape, containers=scenario.containers) as run:
        director = run.director
        director.early = scenario.early
        try:
            was = proofs.before(run)
            result = await scenario.play(run)
            reported.detail = result.detail
            got = proofs.after(run, result, was)
            reported.after = asdict(got)
            reported.problems += _ended(scenario, got)
            reported.problems += await proofs.broken(run, was, back=scenario.back)
            if wanted:
                reported.problems += proofs.differences(wanted, got)
            calls, scheduled = len(director.calls), await proofs.scheduled(run.client)
            if calls != scheduled:
                reported.problems.append(f"{calls} activity calls were met, the histories hold {scheduled}")
        except Exception:  # noqa: BLE001 - every error goes into the table
            reported.problems.append(traceback.format_exc(limit=-3))
        reported.hits = [asdict(hit) for hit in director.hits]
        reported.calls = [_plain(call) for call in director.calls.values()]
        reported.raised = director.raised
    reported.seconds = time.monotonic() - begun
    return reported


def _ended(scenario: Scenario, got: After) -> list[str]:
    wanted = (str(scenario.ends), list(scenario.servers))
    # The agent in Core's project comes after the servers of the fleet file.
    ended = (got.state, got.servers[: len(scenario.servers)])
    return [] if ended == wanted else [f"ended as {ended}; not as {wanted}"]


def _plain(call: Seen) -> dict[str, Any]:
    return {"key": call.key, "activity": call.activity, "operations": call.operations, "armed": call.armed}


async def ended_by_sigterm(work: Coroutine[Any, Any, _T]) -> _T:
    """An interrupted run cleans up: its server, worker and hosts are separate processes."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> None:
    """The result as JSON on standard output."""
    folder, scenario = Path(sys.argv[1]), SCENARIOS[sys.argv[2]]
    given = json.loads(sys.stdin.read() or "{}")
    wanted = After(**given["wanted"]) if given.get("wanted") else None
    cells = {name: Wanted(**reported) for name, reported in given.get("cells", {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    reported = asyncio.run(ended_by_sigterm(one(folder, scenario, cells, wanted)))
    sys.stdout.write(json.dumps(asdict(reported)) + "\n")


if __name__ == "__main__":
    main()
