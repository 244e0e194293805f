"""`python -m bench.together --servers 4 20`: how long servers are dark in `mode = "together"`, on simulated fleets.

From the order to stop v1 Core until v2 Core says Ok, for every server, as the tool's own proofs say it. Clocks of Core
are real ones: it tries each server every 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from bench.runs import tool
from bench.usage import machine


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.together", description=__doc__)
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    lines = [f"{machine()}; Python {sys.version.split()[0]}", ""]
    lines += ["| servers | dark, median s | dark, longest s | others' CPU s |", "|---|---|---|---|"]
    for servers in options.servers:
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory(prefix="ku-together-", ignore_cleanup_errors=True) as folder:
                run = asyncio.run(tool(Path(folder) / "run", servers, together=True))
            dark = run.fleet["dark"]
            lines.append(f"| {servers} | {statistics.median(dark):.1f} | {max(dark):.1f} | {run.foreign:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
