"""`python -m bench.sandbox --servers 20 --repeat 3`: the tool and bare asyncssh, in turns, on fresh simulated fleets.

Prints a Markdown table of medians; `--json FILE` keeps every run. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.measure.usage import machine
from bench.runs import Measured, bare, tool


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox", description=__doc__)
    parser.add_argument("--servers", type=int, nargs="+", default=[20], help="with two numbers, the cost of one more")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run")
    options = parser.parse_args()
    found = asyncio.run(_measure(options.servers, options.repeat))
    sys.stdout.write(_report(found))
    if options.json:
        runs = {str(n): {kind: [asdict(m) for m in ms] for kind, ms in by.items()} for n, by in found.items()}
        options.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=2) + "\n")


Found = dict[int, dict[str, list[Measured]]]


async def _measure(sizes: Sequence[int], repeat: int) -> Found:
    """Run both in turns, so that other work on the machine affects both."""
    found: Found = {servers: {"tool": [], "bare": []} for servers in sizes}
    for _ in range(repeat):
        for servers in sizes:
            for kind, run in (("tool", tool), ("bare", bare)):
                with tempfile.TemporaryDirectory(prefix="ku-bench-", ignore_cleanup_errors=True) as folder:
                    measured = await run(Path(folder) / "run", servers)
                found[servers][kind].append(measured)
                sys.stderr.write(
                    f"{time.strftime('%H:%M:%S')} {kind} {servers}: {measured.wall:.1f} s wall, "
                    f"{_parts(measured)}, others {measured.foreign:.1f}\n"
                )
    return found


def _parts(measured: Measured) -> str:
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in measured.cpu.items())


def _median(runs: Sequence[Measured], part: str) -> float:
    if part == "wall":
        return statistics.median(m.wall for m in runs)
    if part == "controller":
        return statistics.median(m.controller for m in runs)
    return statistics.median(m.cpu.get(part, 0.0) for m in runs)


def _report(found: Found) -> str:
    lines = [f"{machine()}; Python {sys.version.split()[0]}", ""]
    lines += [
        "| servers | | wall s | controller CPU s | of it worker | of it Temporal | hosts' CPU s | sessions | commands |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for servers, by in found.items():
        for kind, runs in by.items():
            words = [f"{_median(runs, part):.2f}" for part in ("wall", "controller", "worker", "temporal", "hosts")]
            if kind == "bare":
                words[2:4] = ["–", "–"]
            fleet = runs[-1].fleet
            sessions = fleet["sessions_core"] + fleet["sessions_servers"]
            lines.append(f"| {servers} | {kind} | {' | '.join(words)} | {sessions} | {fleet['commands']} |")
        ratios = [_median(by["tool"], p) / _median(by["bare"], p) for p in ("wall", "controller", "hosts")]
        lines.append(f"| {servers} | ratio | {ratios[0]:.2f} | {ratios[1]:.2f} | | | {ratios[2]:.2f} | | |")
    lines += [*_marginal(found), "", *_where(found[max(found)]["tool"][-1]), ""]
    return "\n".join(lines)


def _marginal(found: Found) -> list[str]:
    if len(found) < 2:
        return []
    few, many = min(found), max(found)
    lines = [""]
    for kind in ("tool", "bare"):
        more = [
            (_median(found[many][kind], part) - _median(found[few][kind], part)) / (many - few)
            for part in ("wall", "controller", "hosts")
        ]
        lines.append(
            f"One more server, {kind}: {more[0]:.3f} s wall, {more[1]:.3f} s controller CPU, {more[2]:.3f} s hosts' CPU"
        )
    return lines


def _where(run: Measured) -> list[str]:
    """The activities of the last run, the most expensive first."""
    lines = ["| activity | count | seconds in all | slowest | waited for a worker, in all |", "|---|---|---|---|---|"]
    rows = sorted(run.activities.items(), key=lambda item: -item[1]["seconds"])
    lines += [
        f"| {n} | {r['count']:.0f} | {r['seconds']:.2f} | {r['slowest']:.2f} | {r['queued']:.2f} |" for n, r in rows
    ]
    return lines


if __name__ == "__main__":
    main()
