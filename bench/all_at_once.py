"""`python -m bench.all_at_once --servers 4 20`: how long servers are unmanaged in this mode, on simulated fleets.

Counted from the stop of v1 Core until v2 Core reports Ok for every server, from the tool's proofs. Core has its real
timing: it tries each server every 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from bench.measure.usage import machine
from bench.runs import tool


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.all_at_once", description=__doc__)
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    lines = [f"{machine()}; Python {sys.version.split()[0]}", ""]
    lines += ["| servers | unmanaged, median s | unmanaged, longest s | others' CPU s |", "|---|---|---|---|"]
    for servers in options.servers:
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory(prefix="ku-at-once-", ignore_cleanup_errors=True) as folder:
                run = asyncio.run(tool(Path(folder) / "run", servers, all_at_once=True))
            unmanaged = run.fleet["unmanaged"]
            lines.append(
                f"| {servers} | {statistics.median(unmanaged):.1f} | {max(unmanaged):.1f} | {run.foreign:.0f} |"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
