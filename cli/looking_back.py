"""What earlier runs of a fleet ended with: for `report`, and for a rollback of something long closed."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio.client import Client, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.service import RPCError

from cli.upgrade import ANSWER
from model.decisions import QUERY_RESULT
from model.errors import NoSuchUpgrade
from model.fleet import FleetSpec, workflow_id
from model.progress import FleetResult, FleetState, RollbackRequest, UpgradeRequest
from model.way_back import has_something_to_undo, rollback_request
from service.upgrades import Run, runs

PARTIAL = "servers"
"""Memo of a rollback that puts back only some servers: it does not undo the upgrade as a whole."""


@dataclass(frozen=True, slots=True)
class Past:
    """One closed run and its result."""

    run: Run
    result: FleetResult


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


async def to_undo(client: Client, fleet: str) -> tuple[Past, bool]:
    """The newest upgrade of which something is in place, and whether an older one is too. Raises NoSuchUpgrade."""
    undone: list[str] = []
    found: Past | None = None
    async for run in runs(client, f"WorkflowId = '{workflow_id(fleet)}'"):
        if run.is_running:
            continue
        result = await result_of(client, run)
        if result is None or result.plan is None or result.change in undone:
            continue
        if run.kind == "rollback" and result.state is FleetState.ROLLED_BACK:
            if not run.partial:
                undone.append(result.change)
            continue
        if result.state is FleetState.ROLLED_BACK:
            undone.append(result.change)
            continue
        if run.kind == "upgrade" and has_something_to_undo(rollback_request(result, await fleet_of(client, run))):
            if found is not None:
                return found, True
            found = Past(run, result)
    if found is None:
        raise NoSuchUpgrade(
            f"there is nothing to roll back: no closed upgrade of {fleet} has changed anything that is still in place",
            cure="the run folders on the hosts (/var/lib/komodo-upgrade/…) hold README.txt and restore.sh in any case",
        )
    return found, False


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
