"""`python -m bench.start REQUEST.json`: start the driver's workflow, or find it running, and wait for its end."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from temporalio.common import WorkflowIDConflictPolicy

from model.fleet.spec import TASK_QUEUE
from service.connection import configured, connect


async def start(request: object) -> int:
    """The exit code: 0 when every server is upgraded."""
    client = await connect(configured())
    outcomes = await client.execute_workflow(
        "UpgradeServers",
        request,
        id="bench",
        task_queue=TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    bad = [outcome for outcome in outcomes if outcome["state"] != "upgraded"]
    sys.stdout.write("".join(f"{outcome}\n" for outcome in bad) or f"{len(outcomes)} upgraded\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(start(json.loads(Path(sys.argv[1]).read_text()))))
