"""Earlier runs as Temporal keeps them: their results, their fleets, and the watch that follows an upgrade."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.converter import WorkflowSerializationContext
from temporalio.service import RPCError

from model.errors import NoSuchUpgrade
from model.fleet.spec import FleetSpec, workflow_id
from model.gates import QUERY_RESULT, QUERY_RESULT_PAGE
from model.pages.results import is_large, joined
from model.status import FleetResult, ResultPage, RollbackRequest, UpgradeRequest
from model.watch import EXIT_FOUND, QUERY_WATCH, WatchReport, watch_id
from service.client import ANSWER
from service.upgrades import Run, runs, watches

_NO_ANSWER = (RPCError, WorkflowFailureError, WorkflowQueryFailedError, WorkflowQueryRejectedError)


async def result_of(client: Client, run: Run) -> FleetResult | None:
    """The result. Of a run that was cancelled, failed or terminated: its last state; None if no worker answers."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=FleetResult)
    result: FleetResult
    try:
        if run.status == "completed":
            result = await handle.result(follow_runs=False)
        else:
            result = await handle.query(QUERY_RESULT, result_type=FleetResult, rpc_timeout=ANSWER)
    except _NO_ANSWER:
        return None
    return result


async def detailed(client: Client, run: Run, result: FleetResult) -> FleetResult:
    """The result of a large fleet with what its workflow does not return; unchanged if no worker answers."""
    if not is_large(result.servers):
        return result
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    pages: list[ResultPage] = []
    try:
        while not pages or len(pages) < pages[0].pages:
            number = len(pages) + 1
            pages.append(await handle.query(QUERY_RESULT_PAGE, number, result_type=ResultPage, rpc_timeout=ANSWER))
    except _NO_ANSWER:
        return result
    return replace(joined(page.result for page in pages), ended_at=result.ended_at)


async def fleet_of(client: Client, run: Run) -> FleetSpec:
    """The fleet that this run was started with. Raises NoSuchUpgrade."""
    kind = RollbackRequest if run.kind == "rollback" else UpgradeRequest
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=run.workflow_id)
        values = await client.data_converter.with_context(context).decode(payloads, [kind])
        request: UpgradeRequest | RollbackRequest = values[0]
        return request.fleet
    raise NoSuchUpgrade(f"the history of {run.workflow_id} is gone", hint="name the fleet file instead of the fleet")


async def fleet_for(client: Client, name: str, given: FleetSpec | None) -> FleetSpec:
    """The given fleet; without one, the fleet of the last run with this name. Raises NoSuchUpgrade."""
    if given is not None:
        return given
    async for run in runs(client, f"WorkflowId = '{workflow_id(name)}'"):
        return await fleet_of(client, run)
    raise NoSuchUpgrade(
        f"Temporal knows no upgrade of a fleet named {name}, so its hosts are unknown",
        hint=f"name the fleet file: the folders on the hosts are enough (`komodo-upgrade rollback {name}.toml`)",
    )


# --- the watch after an upgrade ---------------------------------------------------------------------------------------


async def watch_of(client: Client, fleet: str, change: str) -> WatchReport | None:
    """The report of the watch after this upgrade; None: there is no watch, or no worker answers."""
    handle = client.get_workflow_handle(watch_id(workflow_id(fleet), change), result_type=WatchReport)
    report: WatchReport
    try:
        found = await handle.describe(rpc_timeout=ANSWER)
        if found.status is WorkflowExecutionStatus.COMPLETED:
            report = await handle.result(rpc_timeout=ANSWER)
        else:
            report = await handle.query(QUERY_WATCH, result_type=WatchReport, rpc_timeout=ANSWER)
    except _NO_ANSWER:
        return None
    return report


async def wait_for_watch(client: Client, fleet: str, change: str, timeout: timedelta | None) -> bool:
    """Wait for the watch's end, however it ends. False: it has not ended within `timeout`."""
    handle = client.get_workflow_handle(watch_id(workflow_id(fleet), change), result_type=WatchReport)
    try:
        async with asyncio.timeout(timeout.total_seconds() if timeout else None):
            with contextlib.suppress(RPCError, WorkflowFailureError):
                await handle.result()
    except TimeoutError:
        return False
    return True


def exit_code(result: FleetResult, watch: WatchReport | None) -> int:
    """The upgrade's own exit code; where that is 0, the watch may have found a problem since."""
    return EXIT_FOUND if watch and watch.open and not result.state.exit_code else result.state.exit_code


async def end_watches(client: Client, fleet: str) -> None:
    """A new run changes what they check. A watch that cannot be cancelled notices the run at its next check."""
    with contextlib.suppress(RPCError):
        for found in await watches(client):
            if found.fleet == fleet:
                await client.get_workflow_handle(found.workflow_id).cancel(rpc_timeout=ANSWER)
