"""Record histories for the replay tests: `python -m tests.workflows.record_histories RELEASE [SCENARIO…]`.

They come from the code of a release, never from a branch that a test shall be made to pass for: that is why an existing
file is never written again. A new shape gets new files under a new name; the old ones stay, because upgrades that were
begun by the old code are still running somewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.workflows.doubles import Doubles
from tests.workflows.driver import Driver, LocalServer
from tests.workflows.scenarios import SCENARIOS

FOLDER = Path(__file__).parent / "replay"


def taken(folder: Path, release: str, names: Sequence[str]) -> list[Path]:
    """Files that these scenarios of this release would write again."""
    return [path for name in names for path in sorted(folder.glob(f"{release}.{name}.*.json"))]


async def record(server: LocalServer, folder: Path, release: str, name: str) -> list[Path]:
    """Record one scenario. Raises FileExistsError rather than write over a history."""
    if old := taken(folder, release, [name]):
        raise FileExistsError(f"{old[0]} exists: histories are never recorded again; choose another release name")
    doubles, written = Doubles(), []
    async with server.connect() as env, Driver.serving(env, doubles) as driver:
        for workflow_id in await SCENARIOS[name](driver, doubles):
            history = await env.client.get_workflow_handle(workflow_id).fetch_history()
            part = re.sub(r"[^a-z0-9]+", "-", workflow_id.removeprefix("komodo-")).strip("-")
            path = folder / f"{release}.{name}.{part}.json"
            with path.open("x") as file:
                file.write(json.dumps(history.to_json_dict(), separators=(",", ":")) + "\n")
            written.append(path)
    return written


async def main(arguments: Sequence[str]) -> int:
    if not arguments or not re.fullmatch(r"[a-z0-9.-]+", arguments[0]):
        sys.stderr.write(f"usage: record_histories RELEASE [{'|'.join(SCENARIOS)}]…\n")
        return 2
    release, names = arguments[0], list(arguments[1:]) or list(SCENARIOS)
    FOLDER.mkdir(exist_ok=True)
    if old := taken(FOLDER, release, names):
        sys.stderr.write(f"these exist and are never written again: {', '.join(p.name for p in old)}\n")
        return 1
    server = LocalServer()
    try:
        for name in names:
            for path in await record(server, FOLDER, release, name):
                sys.stdout.write(f"{path.name}\n")
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
