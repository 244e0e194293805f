"""RollbackFleet: the whole fleet back to the old version, after an upgrade or as the child of a running one."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from model.status import FleetResult, RollbackRequest
from workflows.phases import rollback
from workflows.runtime.fleet_workflow import FleetWorkflow
from workflows.runtime.rollback_run import RollbackRun
from workflows.runtime.run import Ended


@workflow.defn(name="RollbackFleet")
class RollbackFleet(FleetWorkflow):
    """With `approved` set it is the child of an upgrade: then it asks nothing, and its parent writes the report."""

    _run: RollbackRun

    @workflow.init
    def __init__(self, request: RollbackRequest) -> None:
        super().__init__()
        self._run = RollbackRun(request)

    @workflow.run
    async def run(self, request: RollbackRequest) -> FleetResult:  # noqa: ARG002 - __init__ keeps it
        """Run the rollback and return its result."""
        return await self.complete(self._roll_back(), lambda: rollback.close(self._run))

    async def _roll_back(self) -> None:
        """Ordered so that every failure leaves a working fleet."""
        run = self._run
        await rollback.read_backups(run)
        await rollback.check(run)
        await rollback.approve(run)
        await rollback.restore_core(run)
        await rollback.restore_agents(run)
        await rollback.fingerprint_kept_database(run)

    def on_cancel(self, phases: asyncio.Task[Ended]) -> None:
        """A rollback that has begun is finished: half of one would be the worst of all states."""
        if self._run.begun:
            self._run.warn("cancel", "fleet", "cancelled from Temporal after it had begun: it was finished")
        else:
            self._cancelled = True
            phases.cancel()
