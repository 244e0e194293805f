"""RollbackFleet: the whole fleet back to v1, alone after an upgrade has closed, or as the child of a running one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from model.decisions import Verdict
    from model.plan import Plan
    from model.progress import FleetProgress, FleetResult, FleetState, Phase, RollbackRequest, ServerState
    from model.report import render_json, render_markdown
    from model.steps import Operation, ReleaseHosts, SaveReport
    from model.way_back import has_something_to_undo, keepers_kept
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import board, steps
    from workflows.closing import until_end
    from workflows.conversation import Conversation
    from workflows.gates import Desk, Stopped
    from workflows.rolling_back import rollback_gate
    from workflows.saga import each, finish, trouble
    from workflows.state import CORE, Ended
    from workflows.way_back import WayBack


@workflow.defn(name="RollbackFleet")
class RollbackFleet(Conversation):
    """With `approved` set it is an upgrade's child: then it asks nothing, and its parent reports."""

    @workflow.init
    def __init__(self, request: RollbackRequest) -> None:
        self._request = request
        self._started_at = self._since = workflow.now()
        self._phase = Phase.ROLLBACK
        self._end: Ended | None = None
        self._cancelled = False
        self.desk = Desk(request.fleet, self._show)
        self._back = WayBack(request, self.desk)

    @workflow.run
    async def run(self, request: RollbackRequest) -> FleetResult:
        """Roll back, and whatever becomes of it a result; stand-alone also a report, and hosts given back."""
        self._end = await until_end(self._told(), self._on_cancel)
        # The hosts of an upgrade's child are its parent's, unless earlier runs of the upgrade are undone with it.
        own = request.approved is None or bool(request.changes)
        if own and self._back.begun:
            await finish(self._report_and_release())
        elif own and self._back.held:
            await finish(self._give_core_back())
        await finish(self.desk.told())
        self._enter(Phase.DONE)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._cancelled:
            raise asyncio.CancelledError
        return self.result_now()

    async def _roll_back(self) -> None:
        """An order in which every failure leaves a fleet that works."""
        if not has_something_to_undo(self._request):
            raise Ended(FleetState.ROLLED_BACK, "nothing of this upgrade is in place: there is nothing to undo")
        await self._back.check()
        await self._ask()
        self._back.warn_of_unreachable()
        await self._back.core()
        await self._back.agents()
        await self._back.fingerprint()

    async def _ask(self) -> None:
        if self._request.approved is not None:
            return
        self._enter(Phase.GATE)
        recorded = await self.desk.ask(
            rollback_gate(self._as_it_stands(), self.desk.fresh("rollback"), self._back.unreachable), urgent=True
        )
        self._enter(Phase.ROLLBACK)
        if recorded.decision.verdict is Verdict.REJECT:
            raise Ended(
                FleetState.STOPPED, f"the rollback was rejected by {recorded.decision.actor}: nothing was changed"
            )
        # The gate may have been open for days.
        await self._back.check()

    def _as_it_stands(self) -> RollbackRequest:
        """With the final dump as it is known now: proven once more, where it was not."""
        final = next((d for d in self._back.dumps if d.label == "final"), self._request.dump)
        return replace(self._request, dump=final if self._request.dump else None)

    async def _told(self) -> Ended:
        try:
            await self._roll_back()
        except Ended as end:
            return end
        except Stopped as stopped:
            return Ended(FleetState.STOPPED, f"{stopped}: nothing was changed")
        except (asyncio.CancelledError, FailureError) as error:
            return Ended(FleetState.STOPPED, f"{trouble(error).text}: nothing was changed")
        return self._back.end()

    def _on_cancel(self, story: asyncio.Task[Ended]) -> None:
        """A rollback that has begun is finished: half of one would be the worst of all states."""
        if self._back.begun:
            self._back.warn("cancel", "fleet", "cancelled from Temporal after it had begun: finished all the same")
        else:
            self._cancelled = True
            story.cancel()

    async def _report_and_release(self) -> None:
        clocks, result = self._request.fleet.clocks, self.result_now()
        op = self._op(CORE)
        try:
            report = SaveReport(
                op=op,
                core=self._request.fleet.core,
                markdown=render_markdown(result),
                json=render_json(result),
            )
            await steps.save_report(report, clocks)
        except FailureError as error:
            self._back.warn("report", CORE, f"the report could not be saved: {trouble(error).text}")
        for name, kept in (await each((CORE, *self._request.servers), self._release)).items():
            self._back.warn("not-released", name, f"the host was not given back: {trouble(kept).text}")

    async def _give_core_back(self) -> None:
        """Nothing was changed, so all that leads back stays."""
        release = ReleaseHosts(op=self._op(CORE), core=self._request.fleet.core)
        try:
            await steps.release_host(release, self._request.fleet.clocks)
        except FailureError as error:
            self._back.warn("not-released", CORE, f"the host was not given back: {trouble(error).text}")

    async def _release(self, name: str) -> None:
        core = name == CORE
        kept = keepers_kept(self.result_now())
        release = ReleaseHosts(
            op=self._op(name),
            server=None if core else self._request.fleet.server(name),
            core=self._request.fleet.core if core else None,
            keepers=() if kept or not core else self._request.keepers,
        )
        await steps.release_host(release, self._request.fleet.clocks)

    def _op(self, name: str) -> Operation:
        request = self._request
        return Operation(change=request.change_of(name), fleet=request.fleet.name, target=name, attempt=request.attempt)

    # --- what people see ----------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self._phase, self._since = phase, workflow.now()
        self._show()

    def _show(self) -> None:
        workflow.set_current_details(board.markdown(self.progress_now()))

    def progress_now(self) -> FleetProgress:
        """Answer of the query `progress`."""
        request, back = self._request, self._back
        return FleetProgress(
            fleet=request.fleet.name,
            target=request.fleet.target,
            change=request.change,
            phase=self._phase,
            since=self._since,
            core=back.core_line,
            servers=tuple(back.lines.values()),
            gate=self.desk.gate,
            paused=self.desk.paused,
            stopping=bool(self.desk.stopping),
            decisions=tuple(self.desk.recorded),
            controls=tuple(self.desk.controls),
            warnings=(*(f"{w.subject}: {w.text}" for w in back.warnings), *self.desk.ignored),
            plan_digest=request.plan.digest,
            state=self._end.state if self._end and self._phase is Phase.DONE else None,
        )

    def plan_now(self) -> Plan:
        """Answer of the query `plan`: that of the upgrade which is undone."""
        return self._request.plan

    def result_now(self) -> FleetResult:
        """Answer of the query `result`."""
        request, back, end = self._request, self._back, self._end
        undone = back.core_state is ServerState.ROLLED_BACK
        return FleetResult(
            fleet=request.fleet.name,
            target=request.fleet.target,
            change=request.change,
            state=end.state if end else FleetState.ROLLBACK_INCOMPLETE,
            started_at=self._started_at,
            ended_at=workflow.now(),
            plan=request.plan,
            core_state=back.core_state,
            core_version=back.core_version,
            core_detail=back.core_line.detail,
            core_dark=back.dark,
            core_attempt=request.attempt,
            core_begun=request.dump is not None and not undone,
            keepers=request.keepers,
            servers=tuple(back.outcomes.values()),
            core_agent=back.core_agent,
            core_backup=request.core_backup,
            dumps=back.dumps,
            fingerprints=back.prints,
            decisions=(*((request.approved,) if request.approved else ()), *self.desk.recorded),
            controls=tuple(self.desk.controls),
            warnings=tuple(back.warnings),
            detail=end.detail if end else "still running",
        )
