"""After the rollout: the guide's checklist, then the report, hosts released, and the watch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from model.facts import Moment, Severity
from model.pages.results import pages_of
from model.pages.servers import Failure, PageStep
from model.planning import core_without_diffs
from model.rollback import image_pins_kept
from model.status import Phase, SaveReport, ServerState
from model.steps import FingerprintDatabase, ReleaseHosts
from model.watch import WatchReport, WatchRequest, watch_id
from workflows.phases import staging
from workflows.phases.server_steps import run_on_servers
from workflows.runtime import auto_rollback
from workflows.runtime.failures import core_and_servers, describe_failure, failure_of
from workflows.runtime.run import CORE, Run
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


async def check_upgrade(run: UpgradeRun) -> None:
    """Make the checks of the guide's list, from Core's side. Findings and a failure of the checks are warnings."""
    run.enter(Phase.POST_CHECKS)
    if not run.planned.core.current:
        try:
            step = FingerprintDatabase(**run.core_step().basis(), moment=Moment.AFTER)
            run.fingerprints.append(await run_step(contracts.FINGERPRINT_DATABASE, step))
        except FailureError as error:
            text = f"the database could not be read after the upgrade: {describe_failure(error).text}"
            run.warn("fingerprint", CORE, text)
    try:
        checks = await run_step(contracts.POST_CHECKS, run.core_step())
    except FailureError as error:
        run.warn("post-checks", CORE, f"the post-upgrade checks could not be made: {describe_failure(error).text}")
        return
    run.warnings += [f for f in checks.findings if f.severity is not Severity.INFO]


async def close(run: UpgradeRun) -> None:
    """Save the report and release the hosts, if any was touched; then start the watch."""
    await staging.wait_for_proof(run)
    if not run.touched:
        return
    # Once more, for a run that ended before all of its phases.
    await auto_rollback.end_timers(run, last=True)
    await save_report(run)
    for name in run.touched:
        if name in run.offline:
            run.warn("not-released", name, "it is offline, so it was not released: the next upgrade takes it over")
    await release(run, [name for name in run.touched if name not in run.offline])
    await _start_watch(run)


async def save_report(run: Run) -> None:
    """Write the report into the run folder on Core's host, a page of servers at a time. A failure is a warning."""
    pages = pages_of(run.report())
    try:
        for number, page in (*enumerate(pages[1:], start=2), (1, pages[0])):
            report = SaveReport(
                op=run.op(CORE),
                timing=run.fleet.timing,
                core=run.fleet.core,
                page=page,
                number=number,
                pages=len(pages),
            )
            await run_step(contracts.SAVE_REPORT if number == 1 else contracts.SAVE_REPORT_PAGE, report)
    except FailureError as error:
        run.warn("report", CORE, f"the report could not be saved on the Core host: {describe_failure(error).text}")


async def release(run: Run, names: Iterable[str]) -> None:
    """Remove locks and leftovers on these hosts. A failure is a warning.

    An agent in Core's project is released with Core: both share a host and a run folder.
    """
    with_core = [s.name for s in run.planned.servers if s.in_core_project]
    chosen = [name for name in names if name not in with_core]
    servers = run.page(PageStep.RELEASE, [name for name in chosen if name != CORE])

    async def core() -> Failure | None:
        return await failure_of(_release_core(run)) if CORE in chosen else None

    failed = await core_and_servers(core(), run_on_servers(servers, lambda _: None))
    for name, why in failed.items():
        run.warn("not-released", name, f"the host was not released: {why.text}")


async def _release_core(run: Run) -> None:
    release = ReleaseHosts(
        op=run.op(CORE),
        timing=run.fleet.timing,
        core=run.fleet.core,
        image_pins=() if image_pins_kept(run.result()) else run.image_pins,
    )
    await run_step(contracts.RELEASE_HOST, release)


async def _start_watch(run: UpgradeRun) -> None:
    """If the new version runs, an abandoned child checks what shows only with time."""
    watch, result = run.fleet.watch, run.result()
    servers = tuple(o.name for o in result.servers if o.state is ServerState.UPGRADED)
    on_target = result.core_state in (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)
    if not (watch.lasts or watch.backup_within) or not run.begun or run.rolled_back or not on_target:
        return
    request = WatchRequest(
        fleet=replace(run.fleet, servers=()),
        change=run.change,
        watch=watch,
        core=replace(core_without_diffs(run.planned.core), servers=(), findings=(), sources=(), edits=()),
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
        run.warn("not-watched", "fleet", f"the watch could not be started: {describe_failure(error).text}")
