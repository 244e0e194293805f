"""UpgradeFleet: Komodo's v2 upgrade guide for a whole fleet, with a human approving between servers."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from model.status import FleetResult, UpgradeRequest
from workflows.phases import all_at_once, approval, core, deferred, post_checks, rollback_child, rollout, staging
from workflows.phases.survey_and_plan import survey_and_plan
from workflows.runtime import auto_rollback
from workflows.runtime.fleet_workflow import FleetWorkflow
from workflows.runtime.run import Ended
from workflows.runtime.upgrade_run import UpgradeRun


@workflow.defn(name="UpgradeFleet")
class UpgradeFleet(FleetWorkflow):
    """One run per fleet: the workflow id is that of the fleet."""

    _run: UpgradeRun

    @workflow.init
    def __init__(self, request: UpgradeRequest) -> None:
        # Handlers run before `run` does: all that they need is built here.
        super().__init__()
        self._run = UpgradeRun(request)
        self._run.gatekeeper.on_rollback = lambda asked: rollback_child.ask_for_rollback(self._run, asked)

    @workflow.run
    async def run(self, request: UpgradeRequest) -> FleetResult:  # noqa: ARG002 - __init__ keeps it
        """Run the upgrade and return its result."""
        return await self.complete(self._upgrade(), lambda: post_checks.close(self._run))

    async def _upgrade(self) -> None:
        """The guide's headings, in the guide's order."""
        run = self._run
        await survey_and_plan(run)
        await staging.back_up(run)
        await staging.stage(run)
        if run.planned.core.current:
            await core.read_running_key(run)
        else:
            await approval.approve_core(run)
            await (all_at_once if run.all_at_once else core).upgrade(run)
        await rollout.roll_out(run)
        await deferred.upgrade_returning(run)
        await post_checks.check_upgrade(run)
        await auto_rollback.end_timers(run)

    def on_cancel(self, phases: asyncio.Task[Ended]) -> None:
        """Before anything was switched, Cancel undoes everything; from then on it means `stop`."""
        self._cancelled = True
        reason = workflow.cancellation_reason()
        if self._run.begun:
            self._run.gatekeeper.stop("cancelled from Temporal" + (f": {reason}" if reason else ""))
        else:
            phases.cancel()
