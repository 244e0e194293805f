"""Rollback of a running upgrade: the question at gate `rollback`, then RollbackFleet as a child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from model.decisions import SIGNAL_CONTROL, Control, ControlVerb, Gate, GateKind, Recorded, Verdict
    from model.errors import NoSuchUpgrade, UpgradeError
    from model.progress import FleetResult, FleetState, Phase, RollbackRequest
    from model.way_back import request_from_folders, rollback_request
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import proving, texts
    from workflows.look_back import look
    from workflows.preflight import slim_plan
    from workflows.results import result_of
    from workflows.saga import trouble
    from workflows.state import CORE, Ended, Run


def rollback_gate(request: RollbackRequest, name: str, unreachable: Mapping[str, str] = {}) -> Gate:
    """The one question that may cost data. Asked by a running upgrade and by a stand-alone rollback alike."""
    return Gate(
        id=name,
        kind=GateKind.ROLLBACK,
        question=f"Roll {request.fleet.name} back?",
        facts=texts.rollback_facts(request, now=workflow.now(), unreachable=unreachable),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=request.plan.digest,
        confirm=request.fleet.name,
        subject="fleet",
    )


async def ask_for_rollback(run: Run, asked: Control) -> None:
    """At a safe point after somebody asked. Returns when it was rejected or is not possible."""
    request = await _request(run)
    if request is None:
        text = f"rolled back by {asked.actor} before anything was switched: what was staged is removed, nothing is lost"
        raise Ended(FleetState.ROLLED_BACK, text)
    gate = rollback_gate(request, run.desk.fresh("rollback"))
    recorded = await run.desk.ask(gate, urgent=True)
    if recorded.decision.verdict is Verdict.APPROVE:
        refused = await roll_back(run, recorded)
        run.desk.paused = True
        run.show()
        run.desk.tell("the way back is not possible now; the upgrade is paused", f"{refused}\nResume it, or stop it.")


async def roll_back(run: Run, approved: Recorded) -> str:
    """Raises Ended once it is done. Returns the reason where the way back is not possible, nothing having changed."""
    phase = run.phase
    run.enter(Phase.ROLLBACK)
    await proving.join(run)
    request = await _request(run, approved)
    if request is None:
        run.enter(phase)
        return "nothing of this upgrade is in place any more"
    # Also where only an earlier run has switched anything: a rollback that goes on is not to be cancelled.
    run.begun = True
    try:
        result = await _child(run, request)
    except FailureError as error:
        text = f"the rollback's own workflow did not end well: {trouble(error).text}"
        raise Ended(FleetState.ROLLBACK_INCOMPLETE, text) from error
    if result.state is FleetState.REFUSED:
        run.warn("rollback-refused", "fleet", result.detail)
        run.enter(phase)
        return result.detail
    run.rolled_back = result
    raise Ended(result.state, result.detail)


async def _child(run: Run, request: RollbackRequest) -> FleetResult:
    name = f"{workflow.info().workflow_id}/rollback/{request.attempt}"
    run.rolling_back = name
    # Abandoned, so that a rollback which has begun is finished also when this workflow is terminated.
    child = await workflow.start_child_workflow(
        "RollbackFleet",
        request,
        id=name,
        result_type=FleetResult,
        parent_close_policy=ParentClosePolicy.ABANDON,
        static_summary=f"roll {run.fleet.name} back",
    )
    await workflow.wait_condition(lambda: child.done() or bool(run.desk.stopping))
    if not child.done():
        stop = Control(verb=ControlVerb.STOP, actor="komodo-upgrade", reason=run.desk.stopping)
        await child.signal(SIGNAL_CONTROL, stop)
    try:
        result: FleetResult = await child
    finally:
        run.rolling_back = ""
    return result


async def _request(run: Run, approved: Recorded | None = None) -> RollbackRequest | None:
    """What is undone. None: nothing is in place."""
    request = await _of_all_runs(run) if run.plan is not None and run.plan.core.current else None
    if request is None and run.begun:
        request = rollback_request(result_of(run), run.fleet, requested_by=run.request.requested_by)
    return request and replace(request, approved=approved, plan=slim_plan(request.plan))


async def _of_all_runs(run: Run) -> RollbackRequest | None:
    """Core was upgraded by an earlier run: its way back, and that of the servers that run took along, lies in the
    folders on the hosts. None: no folder leads back; then what this run did can be undone alone.
    """
    seen = await look(run.fleet, tuple(server.name for server in run.fleet.servers))
    try:
        request = request_from_folders(run.fleet, seen, requested_by=run.request.requested_by)
    except UpgradeError as error:
        if not isinstance(error, NoSuchUpgrade):
            run.warn("rollback-of-this-run", CORE, f"only what this run did can be undone now: {error.what}")
        return None
    return request if request.core else None
