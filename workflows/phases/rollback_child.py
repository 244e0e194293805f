"""Rollback of a running upgrade: the question at gate `rollback`, then RollbackFleet as a child."""

from __future__ import annotations

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from model.errors import NoSuchUpgrade, UpgradeError
from model.fleet.spec import DatabaseRollback, Event
from model.gates import SIGNAL_CONTROL, Control, ControlVerb, Recorded, Verdict
from model.planning import plan_without_diffs
from model.rollback import by_reference, request_from_folders, rollback_request
from model.status import FleetResult, FleetState, Phase, RollbackRequest
from model.steps import CheckRollback
from workflows.phases import staging
from workflows.phases.survey_and_plan import scan_run_folders
from workflows.runtime import live_status, messages
from workflows.runtime.failures import describe_failure
from workflows.runtime.run import CORE, Ended
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


async def ask_for_rollback(run: UpgradeRun, asked: Control) -> None:
    """At a safe point after a person asked. Returns if it is rejected or not possible; raises Ended otherwise."""
    request = await _request(run)
    if request is None:
        text = f"rolled back by {asked.actor} before anything was switched: staged files are removed, nothing is lost"
        raise Ended(FleetState.ROLLED_BACK, text)
    losses = await _losses(run, request)
    gate = messages.rollback_gate(request, run.gatekeeper.new_gate_id("rollback"), losses=losses)
    recorded = await run.gatekeeper.ask(gate, urgent=True)
    if recorded.decision.verdict is Verdict.APPROVE:
        refused = await roll_back(run, recorded)
        run.gatekeeper.paused = True
        run.show()
        run.gatekeeper.notify(
            Event.FAILURE,
            "the rollback is not possible now; the upgrade is paused",
            f"{refused}\nResume it, or stop it.",
        )


async def _losses(run: UpgradeRun, request: RollbackRequest) -> tuple[str, ...]:
    """What v1 cannot read of a database that is kept. RollbackFleet checks the rest again."""
    if request.dump is None or request.core_backup is None or request.database != DatabaseRollback.KEEP:
        return ()
    check = CheckRollback(**run.core_step().basis(), backup=request.core_backup, dump=None, keep_database=True)
    try:
        return (await run_step(contracts.CHECK_ROLLBACK, check)).losses
    except FailureError as error:
        return (f"what else v1 cannot read is unknown: {describe_failure(error).text}",)


async def roll_back(run: UpgradeRun, approved: Recorded) -> str:
    """Raises Ended after the rollback. Returns the reason if it is not possible; then nothing has changed."""
    phase = run.phase
    run.enter(Phase.ROLLBACK)
    await staging.wait_for_proof(run)
    request = await _request(run, approved)
    if request is None:
        run.enter(phase)
        return "nothing of this upgrade is in place any more"
    # Also if only an earlier run has switched anything: a rollback that has begun is not to be cancelled.
    run.begun = True
    try:
        result = await _run_child(run, request)
    except FailureError as error:
        text = f"the rollback's own workflow failed: {describe_failure(error).text}"
        raise Ended(FleetState.ROLLBACK_INCOMPLETE, text) from error
    if result.state is FleetState.REFUSED:
        run.warn("rollback-refused", "fleet", result.detail)
        run.enter(phase)
        return result.detail
    run.rolled_back = result
    raise Ended(result.state, result.detail)


async def _run_child(run: UpgradeRun, request: RollbackRequest) -> FleetResult:
    run.rollback_id = f"{workflow.info().workflow_id}/rollback/{request.attempt}"
    # Abandoned, so that a rollback which has begun is finished also when this workflow is terminated.
    child = await workflow.start_child_workflow(
        "RollbackFleet",
        by_reference(request),
        id=run.rollback_id,
        result_type=FleetResult,
        parent_close_policy=ParentClosePolicy.ABANDON,
        static_summary=f"roll {run.fleet.name} back",
        search_attributes=live_status.for_child(run.fleet.name),
    )
    await workflow.wait_condition(lambda: child.done() or bool(run.gatekeeper.stopping))
    if not child.done():
        stop = Control(verb=ControlVerb.STOP, actor="komodo-upgrade", reason=run.gatekeeper.stopping)
        await child.signal(SIGNAL_CONTROL, stop)
    try:
        result: FleetResult = await child
    finally:
        run.rollback_id = ""
    return result


async def _request(run: UpgradeRun, approved: Recorded | None = None) -> RollbackRequest | None:
    """The request of the rollback; None if nothing is in place."""
    request = await _request_for_all_runs(run) if run.plan is not None and run.plan.core.current else None
    if request is None and run.begun:
        request = rollback_request(run.result(), run.fleet, requested_by=run.requested_by)
    return request and replace(request, approved=approved, plan=plan_without_diffs(request.plan))


async def _request_for_all_runs(run: UpgradeRun) -> RollbackRequest | None:
    """If an earlier run upgraded Core, the run folders on the hosts hold what undoes it and the servers of that run.

    None: the folders cannot undo Core's upgrade; then only this run is undone.
    """
    seen = await scan_run_folders(run.fleet, run.listed)
    try:
        request = request_from_folders(run.fleet, seen, requested_by=run.requested_by)
    except UpgradeError as error:
        if not isinstance(error, NoSuchUpgrade):
            run.warn("rollback-of-this-run", CORE, f"only what this run did can be undone now: {error.what}")
        return None
    return request if request.core else None
