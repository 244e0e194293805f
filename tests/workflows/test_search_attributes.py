"""Where the search attributes are registered, Temporal's list shows gates and failed servers."""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from model.fleet.spec import workflow_id
from model.gates import Verdict
from model.status import UpgradeRequest
from service.operation import search_attributes
from service.upgrades import Run, runs
from tests.workflows.doubles import CHANGE, broken, fleet
from tests.workflows.driver import QUEUE, Driver, Talk
from workflows.upgrade_fleet import UpgradeFleet


async def listed(client: Client, gate: str) -> Run:
    """Temporal's list follows a moment after the workflow."""
    async with asyncio.timeout(20):
        while True:
            async for found in runs(client, f"KomodoFleet = 'prod' AND KomodoGate = '{gate}'"):
                return found
            await asyncio.sleep(0.1)


async def test_the_list_shows_gates_and_failed_servers(run_real: Driver) -> None:
    client = run_real.client
    assert await search_attributes.for_start(client, "prod") is None
    assert len(await search_attributes.register(client)) == 5
    assert await search_attributes.register(client) == []
    run_real.doubles.play("verify_server", "web-1", broken("NotProven", "Core does not see it"))
    run = Talk(
        await client.start_workflow(
            UpgradeFleet.run,
            UpgradeRequest(fleet=fleet(1), change=CHANGE, requested_by="ann"),
            id=workflow_id("prod"),
            task_queue=QUEUE,
            search_attributes=await search_attributes.for_start(client, "prod"),
        )
    )
    gate = await run.answer("core")
    found = await listed(client, "failure/web-1/1")
    assert found.indexed.failed == ("web-1",)
    assert found.indexed.phase == "rolling out"
    assert found.indexed.waiting_since
    assert found.indexed.waiting_since > gate.opened_at

    await run.answer("failure/web-1/1", Verdict.SKIP)
    assert (await run.result()).state == "incomplete"
    async with asyncio.timeout(20):
        while True:
            [closed] = [one async for one in runs(client, "KomodoFleet = 'prod'")]
            if closed.indexed.phase == "incomplete":
                break
            await asyncio.sleep(0.1)
    assert (closed.indexed.gate, closed.indexed.waiting_since) == ("", None)
