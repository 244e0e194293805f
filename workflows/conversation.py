"""The handlers that UpgradeFleet and RollbackFleet share: what people may say and ask, as signal, update and query."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from model.decisions import (
        QUERY_PLAN,
        QUERY_PROGRESS,
        QUERY_RESULT,
        SIGNAL_CONTROL,
        SIGNAL_DECIDE,
        Control,
        Decision,
        Recorded,
    )
    from model.plan import Plan
    from model.progress import FleetProgress, FleetResult
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows.gates import Desk


class Conversation:
    """Base of the workflows that people talk to. Handlers only record; the work is done in `run`."""

    desk: Desk

    def progress_now(self) -> FleetProgress:
        """Answer of the query `progress`."""
        raise NotImplementedError

    def plan_now(self) -> Plan | None:
        """Answer of the query `plan`."""
        raise NotImplementedError

    def result_now(self) -> FleetResult:
        """Answer of the query `result`."""
        raise NotImplementedError

    @workflow.signal(name=SIGNAL_DECIDE, description="Answer the open gate. Works with every worker down.")
    def decide_by_signal(self, decision: Decision) -> None:
        """Never raises: an exception here would fail the upgrade."""
        refused = self.desk.check(decision)
        if refused:
            what = f"{decision.verdict} for gate {decision.gate} from {decision.actor or 'nobody'}"
            self.desk.ignore(what, refused)
        else:
            self.desk.decide(decision)

    @workflow.update(name=SIGNAL_DECIDE, description="Answer the open gate, and learn at once whether it counts.")
    def decide(self, decision: Decision) -> Recorded:
        """The decision as it was recorded. ApplicationError types: see docs/approvals.md."""
        return self.desk.decide(decision)

    @decide.validator
    def _may_decide(self, decision: Decision) -> None:
        _raise(self.desk.check(decision))

    @workflow.signal(name=SIGNAL_CONTROL, description="pause, resume, stop or rollback. Works with every worker down.")
    def control_by_signal(self, control: Control) -> None:
        """Never raises."""
        refused = self.desk.check_control(control)
        if refused:
            self.desk.ignore(f"{control.verb} from {control.actor or 'nobody'}", refused)
        else:
            self.desk.control(control)

    @workflow.update(name=SIGNAL_CONTROL, description="pause, resume, stop or rollback, with an answer at once.")
    def control(self, control: Control) -> Control:
        """The same control, once it counts."""
        return self.desk.control(control)

    @control.validator
    def _may_control(self, control: Control) -> None:
        _raise(self.desk.check_control(control))

    @workflow.query(name=QUERY_PROGRESS, description="Phase, open gate, every server's state.")
    def progress(self) -> FleetProgress:
        """What `status` and `watch` show."""
        return self.progress_now()

    @workflow.query(name=QUERY_PLAN, description="What one approval covers; null while it is being made.")
    def plan(self) -> Plan | None:
        """The plan as it stands."""
        return self.plan_now()

    @workflow.query(name=QUERY_RESULT, description="The result as it stands, also of a cancelled or terminated run.")
    def result(self) -> FleetResult:
        """What a rollback starts with."""
        return self.result_now()


def _raise(refused: ApplicationError | None) -> None:
    if refused:
        raise refused
