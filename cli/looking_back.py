"""What came before: results of closed runs, and what lies on the hosts when there is no history any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio.client import Client, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.service import RPCError

from cli.target import Target
from cli.upgrade import ANSWER
from model.decisions import QUERY_RESULT
from model.errors import NoSuchUpgrade, NoWorker, UpgradeError
from model.fleet import TASK_QUEUE, FleetSpec, workflow_id
from model.folders import CORE, FleetFolders, HostFolders, LookBackRequest
from model.progress import FleetResult, RollbackRequest, UpgradeRequest
from service.connection import actor
from service.upgrades import Run, runs

T = TypeVar("T")

PARTIAL = "servers"
"""Memo of a rollback that puts back only some servers."""
PAGE = 150
"""Servers in one answer: some KiB of facts each."""
LOOKING = timedelta(minutes=15)


async def result_of(client: Client, run: Run) -> FleetResult | None:
    """The result; of a run that was cancelled, failed or terminated what its workflow still tells. None: nothing."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    if run.status == "completed":
        typed = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=FleetResult)
        try:
            result: FleetResult = await typed.result(follow_runs=False)
        except (WorkflowFailureError, RPCError):
            return None
        return result
    try:
        told: FleetResult = await handle.query(QUERY_RESULT, result_type=FleetResult, rpc_timeout=ANSWER)
    except (WorkflowQueryFailedError, RPCError):
        return None
    return told


async def fleet_of(client: Client, run: Run) -> FleetSpec:
    """The fleet as that run was started with. Raises NoSuchUpgrade."""
    kind = RollbackRequest if run.kind == "rollback" else UpgradeRequest
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        values = await client.data_converter.decode(payloads, [kind])
        request: UpgradeRequest | RollbackRequest = values[0]
        return request.fleet
    raise NoSuchUpgrade(f"the history of {run.workflow_id} is gone", cure="give the fleet file")


async def fleet_meant(client: Client, target: Target) -> FleetSpec:
    """The fleet file's, or by its bare name as Temporal remembers it. Raises NoSuchUpgrade."""
    if target.fleet is not None:
        return target.fleet
    async for run in runs(client, f"WorkflowId = '{workflow_id(target.name)}'"):
        return await fleet_of(client, run)
    raise NoSuchUpgrade(
        f"Temporal here knows no upgrade of a fleet named {target.name}, so its hosts are not known",
        cure=f"give the fleet file: the folders on the hosts are enough (`komodo-upgrade rollback {target.name}.toml`)",
    )


async def folders(client: Client, fleet: FleetSpec, *, only: tuple[str, ...] = (), brief: bool = False) -> FleetFolders:
    """What lies on the hosts, read by the worker. Raises NoWorker, UpgradeError."""
    names = only or tuple(server.name for server in fleet.servers)
    core: HostFolders | None = None
    servers: list[HostFolders] = []
    # A page's answer stays below what one message to Temporal may hold.
    for start in range(0, max(len(names), 1), PAGE):
        page = names[start : start + PAGE]
        asked = replace(fleet, servers=tuple(s for s in fleet.servers if s.name in page))
        request = LookBackRequest(fleet=asked, servers=page, brief=brief)
        found: FleetFolders = await short(client, "LookBack", request, FleetFolders, fleet)
        core = core or found.core
        servers += found.servers
    return FleetFolders(core=core or HostFolders(name=CORE), servers=tuple(servers))


async def short(client: Client, workflow: str, request: object, result: type[T], fleet: FleetSpec) -> T:
    """Run a short workflow that somebody waits for. Raises NoWorker, UpgradeError."""
    handle = await client.start_workflow(
        workflow,
        request,
        id=f"komodo-upgrade-look/{fleet.name}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
        task_queue=TASK_QUEUE,
        result_type=result,
        memo={"fleet": fleet.name, "requested_by": actor(), "target": fleet.target},
        execution_timeout=LOOKING + timedelta(minutes=1),
    )
    try:
        async with asyncio.timeout(LOOKING.total_seconds()):
            found: T = await handle.result()
    except TimeoutError:
        await handle.cancel()
        raise NoWorker(f"no answer within {LOOKING}", cure="look at the worker's log") from None
    except WorkflowFailureError as error:
        raise UpgradeError(f"the hosts could not be looked at: {error.cause or error}") from None
    except asyncio.CancelledError:
        await asyncio.shield(handle.cancel())
        raise
    return found
