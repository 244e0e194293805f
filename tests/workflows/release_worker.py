"""Run from a copy of this project that stands for another release: serves its workflows, and starts a run with it."""

from __future__ import annotations

import asyncio
import sys

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from model.fleet.spec import workflow_id
from model.status import UpgradeRequest
from service.connection import connect
from service.operation import versioning
from service.version import release
from tests.workflows.doubles import CHANGE, Doubles, fleet
from worker import VERSIONED, WORKFLOWS


async def main(address: str, queue: str, name: str) -> None:
    client = await connect({"target_host": address, "identity": "other-release"})
    version = versioning.from_environment()
    async with Worker(
        client,
        task_queue=queue,
        workflows=VERSIONED if version else WORKFLOWS,
        activities=Doubles().activities(),
        workflow_runner=UnsandboxedWorkflowRunner(),
        deployment_config=versioning.config(version),
    ):
        if version:
            await versioning.make_current(client, version)
        if name:
            request = UpgradeRequest(fleet=fleet(1), change=CHANGE, requested_by="ann")
            memo = {"release": release()}
            await client.start_workflow("UpgradeFleet", request, id=workflow_id(name), task_queue=queue, memo=memo)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
