"""`python -m sandbox FOLDER --servers 5`: a simulated fleet in the foreground; prints the fleet file's path."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import stat
import sys
from pathlib import Path

from sandbox.fleet import Sandbox


def _follow_parent(stop: asyncio.Event) -> None:
    """Started with a pipe as standard input, this ends when the other side does, however it ends."""
    kind = os.fstat(0).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):

        def readable() -> None:
            if not os.read(0, 4096):
                asyncio.get_running_loop().remove_reader(0)
                stop.set()

        asyncio.get_running_loop().add_reader(0, readable)


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with await Sandbox.start(
        options.folder,
        servers=options.servers,
        core_version=options.core_version,
        agent_version=options.agent_version,
        speed=options.speed,
        monitoring_interval=options.interval,
    ) as sandbox:
        for text in options.fault:
            name, _, where = text.partition("@")
            host, _, end = where.partition(":")
            sandbox.fault(name, host, **({"times": int(end)} if end.isdigit() else {"until": end} if end else {}))
        sys.stdout.write(f"{sandbox.fleet_file}\n")
        sys.stdout.flush()
        _follow_parent(stop)
        await stop.wait()


def main() -> None:
    """Parse the options and run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--core-version", default="1.19.5")
    parser.add_argument("--agent-version", default="1.19.5")
    parser.add_argument("--speed", type=float, default=4.0, help="how many times faster than a real Core's clocks")
    parser.add_argument("--interval", default="1-sec", help="Core's monitoring interval")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME@HOST[:TIMES|:rolled-back]", help="see sandbox/faults.py"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
