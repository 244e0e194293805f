"""How an upgrade comes to its end, cancelled or not: a result, a saved report, hosts given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from model.facts import Severity
    from model.progress import FleetResult, FleetState, Phase, ServerOutcome, ServerState
    from model.report import render_json, render_markdown
    from model.steps import SaveReport
    from model.watch import WatchReport, WatchRequest, watch_id
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import dead_man, proving, staging, steps
    from workflows.gates import Stopped
    from workflows.preflight import slim_core
    from workflows.results import result_of, verdict
    from workflows.saga import trouble
    from workflows.state import CORE, Ended, Run


async def until_end(work: Coroutine[Any, Any, Ended], on_cancel: Callable[[asyncio.Task[Ended]], None]) -> Ended:
    """Let a story run to its end. Temporal's Cancel does not tear it apart: `on_cancel` says what it means now."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                on_cancel(task)
    return task.result()


async def told(run: Run, story: Coroutine[Any, Any, None]) -> Ended:
    """The upgrade's story, and in one word how it ended. A bug goes through: it holds the upgrade until it is fixed."""
    try:
        await story
        await dead_man.over_with_the_run(run)
    except Ended as end:
        return end
    except Stopped as stopped:
        return _stopped(run, str(stopped))
    except (asyncio.CancelledError, FailureError) as error:
        why = trouble(error)
        if run.begun:
            return Ended(FleetState.INCOMPLETE, f"ended early: {why.text}; start again to go on from there")
        return Ended(FleetState.STOPPED, f"{why.text}; nothing was upgraded")
    return Ended(*verdict(run))


def _stopped(run: Run, why: str) -> Ended:
    if run.core_state is ServerState.PARKED:
        text = (
            f"{why}; Core {run.fleet.target} does not work: {run.core_detail}\n"
            "start again to go on from there, or roll back with komodo-upgrade rollback"
        )
        return Ended(FleetState.INCOMPLETE, text)
    if not run.begun:
        return Ended(FleetState.STOPPED, f"{why}; nothing was upgraded")
    return Ended(FleetState.STOPPED, f"{why}; what is done stays, start again to go on from there")


async def post_checks(run: Run) -> None:
    """The guide's checklist. Whatever it finds, and even its own failure, is a warning."""
    run.enter(Phase.POST_CHECKS)
    if not run.planned.core.current:
        try:
            run.prints.append(await steps.fingerprint_database(run.core_step(label=proving.AFTER)))
        except FailureError as error:
            run.warn("fingerprint", CORE, f"the database could not be read after the upgrade: {trouble(error).text}")
    try:
        checks = await steps.post_checks(run.core_step(dump=run.dump("final")))
    except FailureError as error:
        run.warn("post-checks", CORE, f"the post-upgrade checks could not be made: {trouble(error).text}")
        return
    run.warnings += [f for f in checks.findings if f.severity is not Severity.INFO]


async def close(run: Run) -> FleetResult:
    """Report and release, where anything was touched; then the result."""
    await proving.join(run)
    if run.touched:
        # Once more, for a story that did not come to its own end.
        await dead_man.over_with_the_run(run, last=True)
        await _save(run)
        await staging.release(run)
        await _watch(run)
    await run.desk.told()
    run.enter(Phase.DONE)
    await workflow.wait_condition(workflow.all_handlers_finished)
    return result_of(run)


async def _watch(run: Run) -> None:
    """Something of the new version runs: what shows only with time is looked at by an abandoned child."""
    watch, result = run.fleet.watch, result_of(run)
    servers = tuple(o.name for o in (*result.servers, *_one(result.core_agent)) if o.state is ServerState.UPGRADED)
    on_target = result.core_state in (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)
    if not (watch.lasts or watch.backup_within) or not run.begun or run.rolled_back or not on_target:
        return
    request = WatchRequest(
        fleet=replace(run.fleet, servers=()),
        change=run.change,
        watch=watch,
        core=replace(slim_core(run.planned.core), servers=(), findings=(), sources=(), edits=()),
        servers=servers,
        since=workflow.now(),
    )
    try:
        await workflow.start_child_workflow(
            "WatchFleet",
            request,
            id=watch_id(workflow.info().workflow_id, run.change),
            result_type=WatchReport,
            parent_close_policy=ParentClosePolicy.ABANDON,
            static_summary=f"watch over {run.fleet.name} after its upgrade",
        )
    except FailureError as error:
        run.warn("not-watched", "fleet", f"nobody watches over it: {trouble(error).text}")


def _one(outcome: ServerOutcome | None) -> tuple[ServerOutcome, ...]:
    return (outcome,) if outcome else ()


async def _save(run: Run) -> None:
    result = result_of(run)
    report = SaveReport(
        op=run.op(CORE), core=run.fleet.core, markdown=render_markdown(result), json=render_json(result)
    )
    try:
        await steps.save_report(report, run.fleet.clocks)
    except FailureError as error:
        run.warn("report", CORE, f"the report could not be saved on the Core host: {trouble(error).text}")
