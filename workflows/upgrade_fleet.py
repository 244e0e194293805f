"""UpgradeFleet: Komodo's v2 upgrade guide for a whole fleet, with a human approving between servers."""

from __future__ import annotations

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.plan import Plan
    from model.progress import FleetProgress, FleetResult, FleetState, Phase, ServerState, UpgradeRequest
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import all_at_once, approval, closing, core_upgrade, offline, rolling_back, rollout, staging, texts
    from workflows.conversation import Conversation
    from workflows.preflight import NOT_PROVEN, all_current, survey
    from workflows.results import result_of
    from workflows.saga import finish
    from workflows.state import Ended, Run


@workflow.defn(name="UpgradeFleet")
class UpgradeFleet(Conversation):
    """One run per fleet: its id is that of the fleet."""

    @workflow.init
    def __init__(self, request: UpgradeRequest) -> None:
        # Handlers run before `run` does: all that they need is built here.
        self._run = Run(request)
        self._cancelled = False
        self.desk = self._run.desk
        self.desk.on_rollback = lambda asked: rolling_back.ask_for_rollback(self._run, asked)

    @workflow.run
    async def run(self, request: UpgradeRequest) -> FleetResult:  # noqa: ARG002 - __init__ keeps it
        """The upgrade, and whatever becomes of it a result, a report, and hosts given back."""
        self._run.end = await closing.until_end(closing.told(self._run, self._upgrade()), self._on_cancel)
        result = await finish(closing.close(self._run))
        if self._cancelled:
            raise asyncio.CancelledError
        return result

    async def _upgrade(self) -> None:
        """The guide's headings, in the guide's order."""
        run = self._run
        await self._preflight_and_plan()
        await staging.back_up(run)
        await staging.stage(run)
        if run.planned.core.current:
            await core_upgrade.read_running_key(run)
        else:
            await approval.gate_core(run)
            await (all_at_once if run.together else core_upgrade).upgrade(run)
        await rollout.roll_out(run)
        await offline.upgrade_returning(run)
        await closing.post_checks(run)

    async def _preflight_and_plan(self) -> None:
        """Every host in parallel, all findings at once. Raises Ended where there is nothing to do, or no way."""
        run = self._run
        run.enter(Phase.PREFLIGHT)
        core, servers = await survey(run.fleet, [s.name for s in run.fleet.servers])
        run.enter(Phase.PLAN)
        run.find(core, servers)
        plan = run.planned
        for name in plan.already_current:
            run.line(name, state=ServerState.ALREADY_CURRENT)
        if plan.refusals:
            lines = "\n".join(texts.finding_lines(plan.refusals))
            raise Ended(FleetState.REFUSED, f"preflight refused, nothing was changed:\n{lines}")
        if all_current(plan):
            text = f"{plan.fleet} is on {plan.target} already: nothing to do"
            unseen = texts.finding_lines(f for f in plan.warnings if f.code == NOT_PROVEN)
            raise Ended(FleetState.ALREADY_CURRENT, "\n".join((text, *unseen)))
        await run.desk.safe_point()

    def _on_cancel(self, story: asyncio.Task[Ended]) -> None:
        """Before anything was switched, Cancel undoes everything; from then on it means stop."""
        self._cancelled = True
        reason = workflow.cancellation_reason()
        if self._run.begun:
            self.desk.stop("cancelled from Temporal" + (f": {reason}" if reason else ""))
        else:
            story.cancel()

    def progress_now(self) -> FleetProgress:
        """Answer of the query `progress`."""
        return self._run.progress()

    def plan_now(self) -> Plan | None:
        """Answer of the query `plan`."""
        return self._run.plan

    def result_now(self) -> FleetResult:
        """Answer of the query `result`."""
        return result_of(self._run)
