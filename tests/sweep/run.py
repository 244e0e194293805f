"""One night in a process of its own: `python -m tests.sweep.run FOLDER SCENARIO`, cells on standard input."""

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
from tests.sweep.director import Seen, Wanted
from tests.sweep.night import night
from tests.sweep.proofs import After
from tests.sweep.scenarios import SCENARIOS, Scenario

_T = TypeVar("_T")


@dataclass
class Told:
    """What one night tells."""

    scenario: str
    seconds: float = 0.0
    hits: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """In the order in which they began."""
    after: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    detail: str = ""


async def one(folder: Path, scenario: Scenario, cells: dict[str, Wanted], wanted: After | None) -> Told:
    """Play it, and look at what it left. `wanted`: what the undisturbed night left; None: this is that one."""
    told, begun = Told(scenario.name), time.monotonic()
    async with night(folder, cells=cells, shape=scenario.shape) as tonight:
        director = tonight.director
        director.early = scenario.early
        try:
            was = proofs.before(tonight)
            result = await scenario.play(tonight)
            told.detail = result.detail
            got = proofs.after(tonight, result, was)
            told.after = asdict(got)
            told.problems += _ended(scenario, got)
            told.problems += await proofs.broken(tonight, was, back=scenario.back)
            if wanted:
                told.problems += proofs.differences(wanted, got)
            calls, scheduled = len(director.calls), await proofs.scheduled(tonight.client)
            if calls != scheduled:
                told.problems.append(f"{calls} activity calls were met, the histories hold {scheduled}")
        except Exception:  # noqa: BLE001 - whatever it is, it goes into the table
            told.problems.append(traceback.format_exc(limit=-3))
        told.hits = [asdict(hit) for hit in director.hits]
        told.calls = [_plain(call) for call in director.calls.values()]
        told.raised = director.raised
    told.seconds = time.monotonic() - begun
    return told


def _ended(scenario: Scenario, got: After) -> list[str]:
    wanted = (str(scenario.ends), list(scenario.servers))
    return [] if (got.state, got.servers) == wanted else [f"ended as {got.state}, {got.servers}; not as {wanted}"]


def _plain(call: Seen) -> dict[str, Any]:
    return {"key": call.key, "activity": call.activity, "operations": call.operations, "armed": call.armed}


async def ended_by_sigterm(work: Coroutine[Any, Any, _T]) -> _T:
    """A night that is broken off tidies up: its server, worker and hosts are processes of their own."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> None:
    """The result as JSON on standard output."""
    folder, scenario = Path(sys.argv[1]), SCENARIOS[sys.argv[2]]
    given = json.loads(sys.stdin.read() or "{}")
    wanted = After(**given["wanted"]) if given.get("wanted") else None
    cells = {name: Wanted(**told) for name, told in given.get("cells", {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    told = asyncio.run(ended_by_sigterm(one(folder, scenario, cells, wanted)))
    sys.stdout.write(json.dumps(asdict(told)) + "\n")


if __name__ == "__main__":
    main()
