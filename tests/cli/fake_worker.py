"""Run by the supervisor in place of the real worker: serves the doubles."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from model.fleet.spec import TASK_QUEUE
from service.connection import configured, connect
from tests.cli.doubles import WORKFLOWS


async def main(ready: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await connect(configured())
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=WORKFLOWS,
        workflow_runner=UnsandboxedWorkflowRunner(),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    ):
        # For the test of shared variables.
        await asyncio.to_thread(ready.with_name("fake-worker.env").write_text, os.environ.get("FAKE_SECRET", ""))
        await asyncio.to_thread(ready.write_text, f"{os.getpid()}\n")
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[sys.argv.index("--ready-file") + 1])))
