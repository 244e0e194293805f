"""`make crash-sweep`: interrupts every activity call of every scenario before, during and after it; prints a table.

Narrowed by SWEEP, words that must all be in a cell's name: SWEEP="kill happy dump_database". -j: runs at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sweep.cell_run import ROOT
from tests.sweep.director import AFTER, BEFORE, CUT, DURING, KILL, SERVER, Seen
from tests.sweep.run import ended_by_sigterm
from tests.sweep.scenarios import SCENARIOS

HOWS = {KILL: "worker killed", CUT: "connection cut", SERVER: "Temporal killed"}
ROUNDS = 4
"""Runs for the same cells: a cell that was not reached, because too much died before it, is tried again."""
LONGEST = 900
MOST = 12
"""Problems shown of one run: the first ones explain the rest."""


@dataclass
class Cell:
    """One interruption that has to be survived."""

    scenario: str
    how: str
    call: str
    point: str
    job: bool
    met: bool = False
    late: bool = False
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As the director knows it."""
        return f"{self.call} | {self.point}"

    @property
    def mark(self) -> str:
        """For the table."""
        if self.problems:
            return "FAIL"
        return "missed" if not self.met else f"{self.seconds:.1f}"


async def cell_run(scenario: str, cells: Iterable[Cell], wanted: dict[str, Any] | None) -> dict[str, Any]:
    """One run in a process of its own. Its folder is kept if there was a problem."""
    folder = Path(tempfile.mkdtemp(prefix=f"sweep-{scenario}-"))
    given = json.dumps({"cells": {cell.name: {"how": cell.how, "job": cell.job} for cell in cells}, "wanted": wanted})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.sweep.run", str(folder), scenario, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(given.encode()), LONGEST)
        reported: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (TimeoutError, ValueError, IndexError) as error:
        problem = f"the run reported nothing: {error!r}"
        return {"problems": [problem], "hits": [], "calls": [], "after": {}, "seconds": LONGEST, "folder": str(folder)}
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if not reported["problems"]:
        shutil.rmtree(folder, ignore_errors=True)
    elif err:
        (folder / "stderr.log").write_bytes(err)
    return {**reported, "folder": str(folder)}


def cells_of(scenario: str, calls: list[dict[str, Any]]) -> list[Cell]:
    """Every point of every call that is swept in this scenario."""
    found = []
    for reported in calls:
        call = Seen(reported["key"], reported["activity"], [tuple(o) for o in reported["operations"]])
        if reported["armed"]:
            found += [
                Cell(scenario, how, call.key, point, bool(call.jobs)) for how in HOWS for point in call.points(how)
            ]
    return found


def portions(cells: list[Cell]) -> list[list[Cell]]:
    """Which cells share a run: each call is interrupted before it, during its first job, or after it.

    Its later jobs are interrupted in the runs of the other two: dying before the call left nothing on the host, and
    dying after it comes last.
    """
    runs: dict[tuple[str, str, int], list[Cell]] = {}
    jobs: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        number = {BEFORE: 1, AFTER: 2}.get(cell.point, 0)
        if not number:
            place = (cell.scenario, cell.how, cell.call)
            number = jobs.get(place, 0)
            jobs[place] = number + 1
        runs.setdefault((cell.scenario, cell.how, number), []).append(cell)
    return list(runs.values())


class Sweep:
    """All runs, some at the same time."""

    def __init__(self, jobs: int, words: list[str]) -> None:
        self.words = words
        self.free = asyncio.Semaphore(jobs)
        self.cells: list[Cell] = []
        self.broken: list[str] = []
        self.began = time.monotonic()

    def wanted(self, cell: Cell) -> bool:
        """Whether the words of SWEEP choose this cell."""
        whole = f"{cell.how} {cell.scenario} {cell.name}"
        return all(word in whole for word in self.words)

    def say(self, text: str) -> None:
        """Progress, to stderr."""
        sys.stderr.write(f"{time.monotonic() - self.began:6.0f} s  {text}\n")

    async def scenario(self, name: str) -> None:
        """Run it undisturbed, then with interruptions, and compare."""
        async with self.free:
            calm = await cell_run(name, (), None)
        self.say(f"{name}: undisturbed {calm['seconds']:.0f} s, {len(calm['calls'])} activity calls")
        if calm["problems"]:
            self.broken += [f"{name}, undisturbed ({calm['folder']}): {p}" for p in calm["problems"]]
            return
        cells = [cell for cell in cells_of(name, calm["calls"]) if self.wanted(cell)]
        self.cells += cells
        await asyncio.gather(*(self.portion(portion, calm["after"]) for portion in portions(cells)))

    async def portion(self, cells: list[Cell], wanted: dict[str, Any]) -> None:
        """Runs until each of these cells was met."""
        for _ in range(ROUNDS):
            left = [cell for cell in cells if not cell.met]
            if not left:
                return
            async with self.free:
                reported = await cell_run(cells[0].scenario, left, wanted)
            met = self.note(left, reported)
            first = f"{cells[0].scenario}, {HOWS[cells[0].how]}, {cells[0].call} {cells[0].point} …"
            self.say(
                f"{first}: {met} of {len(left)} in {reported['seconds']:.0f} s; {len(reported['problems'])} problems"
            )
            if not met:
                return

    def note(self, cells: list[Cell], reported: dict[str, Any]) -> int:
        """Record what a run reported about these cells. A problem counts for all cells that it interrupted."""
        hits = {hit["cell"]: hit for hit in reported["hits"]}
        met = [cell for cell in cells if cell.name in hits]
        for cell in met:
            hit = hits[cell.name]
            cell.met, cell.late, cell.seconds = True, hit["late"], hit["back_after"]
            cell.problems += reported["problems"]
        if reported["problems"]:
            self.say(f"{reported['folder']}: " + "\n    ".join(reported["problems"][:MOST]))
            names = ", ".join(cell.name for cell in met)
            self.broken += [f"{cells[0].scenario}, {HOWS[cells[0].how]} ({reported['folder']}; {names}):\n    {p}"
                            for p in reported["problems"][:MOST]]  # fmt: skip
        return len(met)


def table(cells: list[Cell]) -> str:
    """Markdown: one line a call, seconds until it had ended well after each interruption."""
    columns = [f"{how} {word}" for how in (KILL, CUT) for word in (BEFORE, DURING, AFTER)] + [SERVER]
    lines = []
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        lines += [f"\n**{scenario}**: {SCENARIOS[scenario].summary}\n", f"| activity | {' | '.join(columns)} |"]
        lines.append("|---|" + "---|" * len(columns))
        rows: dict[str, dict[str, list[str]]] = {}
        for cell in cells:
            if cell.scenario == scenario:
                column = cell.how if cell.how == SERVER else f"{cell.how} {cell.point.split()[0]}"
                rows.setdefault(cell.call, {}).setdefault(column, []).append(cell.mark)
        lines += [f"| {call} | " + " | ".join(", ".join(row.get(c, ["–"])) for c in columns) + " |"
                  for call, row in rows.items()]  # fmt: skip
    return "\n".join(lines)


def summary(sweep: Sweep) -> str:
    """The totals, for the end of the report."""
    lines = []
    for how, reported in HOWS.items():
        cells = [cell for cell in sweep.cells if cell.how == how]
        good = [cell for cell in cells if cell.met and not cell.problems]
        late = sum(cell.late for cell in good)
        lines.append(f"{reported}: {len(good)} of {len(cells)} cells good ({late} just after the intended moment)")
    minutes = (time.monotonic() - sweep.began) / 60
    lines.append(f"{minutes:.1f} minutes, {len({cell.call for cell in sweep.cells})} different calls")
    return "\n".join(lines)


async def main() -> int:
    """0 when every cell is good."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--table", type=Path, help="where the table is written, besides to the terminal")
    options = parser.parse_args()
    words = os.environ.get("SWEEP", "").split()
    sweep = Sweep(options.jobs, words)
    names = [name for name in SCENARIOS if name in words] or list(SCENARIOS)
    await asyncio.gather(*(sweep.scenario(name) for name in names))
    text = f"{table(sweep.cells)}\n\n{summary(sweep)}\n"
    sys.stdout.write(text)
    if options.table:
        options.table.write_text(text)
    for line in sweep.broken:
        sys.stdout.write(f"\n{line}\n")
    missed = [f"{c.scenario}: {c.how}: {c.name}" for c in sweep.cells if not c.met]
    sys.stdout.write("".join(f"\nmissed: {line}" for line in missed) + "\n")
    return 1 if missed or sweep.broken or not sweep.cells else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(ended_by_sigterm(main())))
