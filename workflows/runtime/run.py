"""The state of one run of a fleet, in either direction: hosts, outcomes, inputs of activities, progress, result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow

from model.facts import Backup, CoreRef, DatabaseFingerprint, DumpFacts, DumpLabel, Finding, Severity, installation
from model.fleet.spec import Event, FleetSpec, slug
from model.pages.servers import Failure, PageRequest, PageServer, PageStep
from model.plan import Plan
from model.planning import core_access, core_without_diffs, plan_without_diffs, server_step
from model.status import (
    Begun,
    FleetProgress,
    FleetResult,
    FleetState,
    Phase,
    ServerOutcome,
    ServerProgress,
    ServerState,
    Waiting,
)
from model.steps import CoreKey, CoreStep, Operation, SavedServerStep, ServerStep, StagedAgent
from workflows.runtime import live_status
from workflows.runtime.gates import GateKeeper
from workflows.runtime.undo import Undo, describe_attempts, retry_undo_with_gate

_T = TypeVar("_T")
CORE = "core"
"""The subject of gates, findings and operation ids that concern Core."""


class Ended(Exception):
    """The run ends here, on purpose."""

    def __init__(self, state: FleetState, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


class Run:
    """Changed only by the steps of the workflow; message handlers change the gatekeeper."""

    def __init__(self, fleet: FleetSpec, change: str, phase: Phase, servers: Iterable[str], attempt: int = 1) -> None:
        self.fleet = fleet
        self.change = change
        self.started_at = workflow.now()
        self.phase, self.since = phase, self.started_at
        self.phases = [Begun(phase=phase, at=self.started_at)]
        self.gatekeeper = GateKeeper(fleet, self.show)
        self.plan: Plan | None = None
        self.begun = False
        """Something was switched: from here on the run is finished or stopped, not cancelled."""
        self.lines = {name: ServerProgress(name=name, attempt=attempt) for name in servers}
        self.core_line = ServerProgress(name=CORE, attempt=attempt)
        self.outcomes: dict[str, ServerOutcome] = {}
        self.attempts: dict[str, int] = dict.fromkeys(self.lines, attempt) if attempt > 1 else {}
        self.backups: dict[str, Backup] = {}
        self.staged: dict[str, StagedAgent] = {}
        self.core_attempt = attempt
        self.core_state = ServerState.PENDING
        self.core_detail = ""
        self.core_version = ""
        self.core_downtime = timedelta()
        self.core_begun = False
        """The new Core was started and may have changed the database; False again after a rollback."""
        self.core_stopped_at: datetime | None = None
        self.core_backup: Backup | None = None
        self.key: CoreKey | None = None
        self.image_pins: tuple[str, ...] = ()
        self.dumps: list[DumpFacts] = []
        self.fingerprints: list[DatabaseFingerprint] = []
        self.warnings: list[Finding] = []
        self.rollback_id = ""
        """Workflow id of the child that rolls this run back right now."""
        self.end: Ended | None = None
        self.waiting: Waiting | None = None
        """When the run continues, while it waits for a time."""
        self._to_be_shown = False

    @property
    def planned(self) -> Plan:
        """The plan, in every phase after preflight."""
        if self.plan is None:
            raise RuntimeError("no plan yet: a step was called before preflight")
        return self.plan

    # --- inputs of activities -----------------------------------------------------------------------------------------

    def attempt(self, name: str) -> int:
        """Of this server or of Core. All steps of an attempt share it, so an operation id is never used twice."""
        return self.core_attempt if name == CORE else self.attempts.get(name, 1)

    def op(self, name: str) -> Operation:
        """The operation that every mutating input carries."""
        return Operation(change=self.change, fleet=self.fleet.name, target=name, attempt=self.attempt(name))

    def core_step(self) -> CoreStep:
        """Input of a step on the Core host, or the basis of one. It carries no servers."""
        facts = installation(replace(core_without_diffs(self.planned.core), servers=()))
        return CoreStep(op=self.op(CORE), fleet=replace(self.fleet, servers=()), facts=facts)

    def server_step(self, name: str) -> ServerStep:
        """Input of a step on a server, or the basis of one."""
        return server_step(self.fleet, self.planned, self.op(name))

    def saved_step(self, name: str) -> SavedServerStep:
        """Input of a step on a server that is backed up."""
        return SavedServerStep(**self.server_step(name).basis(), backup=self.backups[name], core=self.core_access(name))

    @property
    def core_is_rolled_back(self) -> bool:
        """Whether Core's database goes back to v1, and the Servers' addresses with it."""
        return False

    def core_access(self, name: str) -> CoreRef | None:
        """What a restore of this server needs to ask of Core."""
        if self.core_is_rolled_back:
            return None
        return core_access(self.fleet.core, self.planned.core, self.planned.server(name))

    def page(self, step: PageStep, names: Iterable[str], *, prove: bool = True, again: bool = False) -> PageRequest:
        """Input of a step on many servers."""
        servers = (
            PageServer(
                op=self.op(name),
                backup=self.backups.get(name),
                staged=self.staged.get(name),
                outcome=self.outcomes.get(name),
            )
            for name in names
        )
        return PageRequest(
            step=step,
            fleet=self.fleet,
            servers=tuple(servers),
            plan=self.plan,
            key=self.key,
            prove=prove,
            again=again,
            core_is_rolled_back=self.core_is_rolled_back,
            run_workflow=workflow.info().workflow_id,
        )

    def dump(self, label: DumpLabel) -> DumpFacts | None:
        """The newest dump with this label."""
        return next((d for d in reversed(self.dumps) if d.label == label), None)

    # --- what steps report --------------------------------------------------------------------------------------------

    def enter(self, phase: Phase) -> None:
        """Begin the next phase."""
        self.phase, self.since = phase, workflow.now()
        self.phases.append(Begun(phase=phase, at=self.since))
        self.show()

    def stop_core(self, state: ServerState) -> None:
        """Core is about to be stopped: from here on, servers are unmanaged."""
        self.core_stopped_at = workflow.now()
        self.update_core(state, step="stopping Core")

    def update_line(self, name: str, **changes: object) -> None:
        """Change the progress of one server, or of Core."""
        old = self.core_line if name == CORE else self.lines[name]
        new = replace(old, since=workflow.now(), **changes)  # type: ignore[arg-type]
        if name == CORE:
            self.core_line = new
        else:
            self.lines[name] = new
        self.show()

    def update_core(self, state: ServerState, detail: str = "", step: str = "") -> None:
        """Change Core's state in progress and result."""
        self.core_state, self.core_detail = state, detail
        self.update_line(CORE, state=state, detail=detail, step=step, attempt=self.core_attempt)

    def set_outcome(self, outcome: ServerOutcome) -> None:
        """Keep the outcome of one server; that of a later attempt replaces it."""
        self.outcomes[outcome.name] = outcome
        old = outcome.version_before
        self.update_line(outcome.name, state=outcome.state, step="", detail=outcome.detail, workflow_id="", old=old)

    def warn(self, code: str, subject: str, text: str, hint: str = "") -> None:
        """Add a finding that a person must know and that stops nothing."""
        finding = Finding(code=code, severity=Severity.WARN, subject=subject, text=text, hint=hint)
        self.warnings.append(finding)
        self.show()

    # --- undo ---------------------------------------------------------------------------------------------------------

    def manual_command(self, name: str) -> str:
        """The command that a person types on this host to restore it; empty without a backup."""
        backup = self.core_backup if name == CORE else self.backups.get(name)
        host = self.fleet.core.host if name == CORE else self.fleet.server(name).host
        return f"by hand on {host.address}: {backup.restore_command}" if backup else ""

    def gives_up_undos(self) -> bool:
        """Whether an undo that fails ends without a decision of a person."""
        return False

    async def retry_undo(self, name: str, what: str, work: Callable[[int], Awaitable[_T]]) -> _T:
        """Run one undo on this host until it works or a person gives it up."""
        undo = Undo(subject=name, what=what, manual_command=self.manual_command(name))

        def report(attempts: int, why: Failure) -> None:
            text = describe_attempts(undo, attempts, why)
            self.update_line(name, state=ServerState.WAITING, step=text)
            self.gatekeeper.notify(Event.FAILURE, f"{undo.subject}: an undo does not work yet: {what}", text)

        return await retry_undo_with_gate(self.gatekeeper, undo, work, report, self.gives_up_undos)

    # --- progress and result ------------------------------------------------------------------------------------------

    def progress(self) -> FleetProgress:
        """Answer of the query `progress`."""
        gatekeeper = self.gatekeeper
        return FleetProgress(
            fleet=self.fleet.name,
            target=self.fleet.target,
            change=self.change,
            phase=self.phase,
            since=self.since,
            core=self.core_line,
            servers=tuple(self.lines.values()),
            gate=gatekeeper.gate,
            waiting=self.waiting,
            paused=gatekeeper.paused,
            stopping=bool(gatekeeper.stopping),
            decisions=tuple(gatekeeper.recorded),
            controls=tuple(gatekeeper.controls),
            warnings=(*(f"{w.subject}: {w.text}" for w in self.warnings), *gatekeeper.ignored),
            phases=tuple(self.phases),
            core_stopped_at=self.core_stopped_at,
            plan_digest=self.plan.digest if self.plan else "",
            rollback_id=self.rollback_id,
            state=self.end.state if self.end and self.phase is Phase.DONE else None,
        )

    def show(self) -> None:
        """Show the progress in Temporal, once after all changes of this moment."""
        if self._to_be_shown or not workflow.in_workflow():
            # After a terminated workflow its tasks are collected outside of it, and their `finally` blocks run then.
            return
        self._to_be_shown = True
        asyncio.get_running_loop().call_soon(self._show_if_due)

    def _show_if_due(self) -> None:
        if self._to_be_shown:
            self.show_now()

    def show_now(self) -> None:
        """Show the progress in Temporal: a table in its UI, and search attributes. The last time before the end."""
        self._to_be_shown = False
        progress = self.progress()
        workflow.set_current_details(live_status.render_markdown(progress))
        live_status.update_search_attributes(progress)

    def result(self) -> FleetResult:
        """Answer of the query `result`, and result of the workflow."""
        gatekeeper = self.gatekeeper
        ignored = (Finding(code="message", severity=Severity.WARN, subject="fleet", text=t) for t in gatekeeper.ignored)
        return FleetResult(
            fleet=self.fleet.name,
            target=self.fleet.target,
            change=self.change,
            state=self.end.state if self.end else self.state_while_running,
            started_at=self.started_at,
            ended_at=workflow.now(),
            plan=self.plan,
            core_state=self.core_state,
            core_version=self.core_version,
            core_detail=self.core_detail,
            core_downtime=self.core_downtime,
            core_attempt=self.core_attempt,
            core_begun=self.core_begun,
            core_stopped_at=self.core_stopped_at,
            phases=tuple(self.phases),
            image_pins=self.image_pins,
            key=self.key,
            servers=tuple(self.outcomes.values()),
            core_backup=self.core_backup,
            dumps=tuple(self.dumps),
            fingerprints=tuple(self.fingerprints),
            decisions=tuple(gatekeeper.recorded),
            controls=tuple(gatekeeper.controls),
            warnings=(*self.warnings, *ignored),
            detail=self.end.detail if self.end else "still running",
        )

    def report(self) -> FleetResult:
        """The result for the report, which shows no diffs."""
        result = self.result()
        return replace(result, plan=result.plan and plan_without_diffs(result.plan))

    # --- what each direction decides ----------------------------------------------------------------------------------

    state_while_running = FleetState.INCOMPLETE
    """The state in a result that is queried before the end, or after a terminated workflow."""

    def end_normally(self) -> Ended:
        """The end after all phases."""
        raise NotImplementedError

    def end_stopped(self, why: str) -> Ended:
        """The end after `stop`."""
        raise NotImplementedError

    def end_failed(self, why: Failure) -> Ended:
        """The end after a failure that no gate handles, and after Temporal's Cancel."""
        raise NotImplementedError


def child_id(run_workflow: str, op: Operation) -> str:
    """Workflow id of one attempt at one server: readable, and never used twice in a run."""
    return f"{run_workflow}/{slug(op.target)}/{op.attempt}"
