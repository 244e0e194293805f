"""`python -m bench.simulated FOLDER --servers N`: a simulated fleet that adopts the processes of its hosts.

Detached jobs outlive their session, so init would inherit them, and their CPU would not be counted. Here the first
process is their reaper, and everything that the hosts use is found below it. It ends with its standard input, and then
prints the number of sessions and commands.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path

from sandbox.fleet import Sandbox

_PR_SET_CHILD_SUBREAPER = 36
SPEED = 10.0
"""How many times faster than a real Core's timing: less waiting, the same commands."""


def main() -> None:
    """The reaper; the fleet itself is its child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("--speed", type=float, default=SPEED)
    options = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    fleet = os.fork()
    if fleet == 0:
        asyncio.run(_play(options.folder, options.servers, options.speed))
        sys.stdout.flush()
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        while os.wait()[0] != fleet:
            continue


async def _play(folder: Path, servers: int, speed: float) -> None:
    async with await Sandbox.start(folder, servers=servers, speed=speed) as sandbox:
        _say({"fleet": str(sandbox.fleet_file)})
        for host in sandbox.hosts.values():
            host.shells.clear()
        begun = len(sandbox.journal)
        await asyncio.to_thread(sys.stdin.buffer.read)
        versions = [sandbox.agent_version(name) for name in sandbox.hosts if name != "core"]
        _say(
            {
                "core": sandbox.core.version if sandbox.core else "",
                "agents": {version: versions.count(version) for version in set(versions)},
                "sessions_core": len(sandbox.hosts["core"].shells),
                "sessions_servers": sum(len(h.shells) for n, h in sandbox.hosts.items() if n != "core"),
                "commands": len(sandbox.journal) - begun,
                "defects": [str(defect) for defect in sandbox.world.defects],
            }
        )


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
