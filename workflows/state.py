"""What one run of UpgradeFleet knows: the plan, what was saved and staged, every server's outcome, what people see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.facts import Backup, CoreFacts, DatabasePrint, DumpFacts, Finding, ServerFacts, Severity
    from model.fleet import TOGETHER, slug
    from model.plan import Plan
    from model.progress import (
        FleetProgress,
        FleetResult,
        FleetState,
        Phase,
        ServerOutcome,
        ServerProgress,
        ServerState,
        UpgradeRequest,
    )
    from model.steps import CoreKey, CoreStarted, CoreStep, Operation, ServerStep, StagedAgent
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import board
    from workflows.gates import Desk
    from workflows.preflight import assemble, slim_core, slim_server
    from workflows.saga import Trouble
    from workflows.undoing import Undo, insist, still

_T = TypeVar("_T")
CORE = "core"
"""Subject of what is about Core, in gates, findings and operation ids."""


class Ended(Exception):
    """The upgrade ends here, on purpose."""

    def __init__(self, state: FleetState, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


class Run:
    """One upgrade. Changed only by the workflow's own steps; the handlers change the desk."""

    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request
        self.fleet = request.fleet
        self.change = request.change
        self.started_at = workflow.now()
        self.desk = Desk(request.fleet, self.show)
        self.plan: Plan | None = None
        self.phase, self.since = Phase.PREFLIGHT, self.started_at
        self.touched: list[str] = []
        """Hosts where something was written, `core` among them: to be released at the end."""
        self.skipped: dict[str, str] = {}
        """Left on v1 by a decision before Core's switch, and why."""
        self.offline: dict[str, str] = {}
        """Set aside, and why: looked at again after the others."""
        self.backups: dict[str, Backup] = {}
        self.staged: dict[str, StagedAgent] = {}
        self.attempts: dict[str, int] = {}
        self.outcomes: dict[str, ServerOutcome] = {}
        self.core_backup: Backup | None = None
        self.core_attempt = 1
        self.begun = False
        """Something was switched: from here on Temporal's Cancel means stop, and a rollback has something to undo."""
        self.core_begun = False
        """Starting v2 Core had begun: its database may have been touched."""
        self.core_state = ServerState.PENDING
        self.core_detail = ""
        self.core_started: CoreStarted | None = None
        self.core_agent: ServerOutcome | None = None
        self.keepers: tuple[str, ...] = ()
        self.dumps: list[DumpFacts] = []
        self.prints: list[DatabasePrint] = []
        """What the database held, at the moments that the report shows."""
        self.proving: asyncio.Task[None] | None = None
        """The proof of the final dump, beside the rollout."""
        self.key: CoreKey | None = None
        """Together, it is known before Core is switched, and read again afterwards."""
        self.warnings: list[Finding] = []
        self.end: Ended | None = None
        self.rolled_back: FleetResult | None = None
        self.rolling_back = ""
        """Workflow id of the rollback that is under way."""
        self.lines = {s.name: ServerProgress(name=s.name) for s in request.fleet.servers}
        self.core_line = ServerProgress(name=CORE)

    # --- what steps ask ---------------------------------------------------------------------------------------------

    @property
    def planned(self) -> Plan:
        """The plan, in every phase after preflight."""
        if self.plan is None:
            raise RuntimeError("no plan yet: a step was put before preflight")
        return self.plan

    @property
    def together(self) -> bool:
        """Every agent is switched with Core."""
        return self.fleet.rollout.mode == TOGETHER and not self.planned.core.current

    @property
    def core_version(self) -> str:
        """What Core runs, as far as this run knows."""
        return self.core_started.version if self.core_started else (self.plan.core.version if self.plan else "")

    def attempt(self, name: str) -> int:
        """Of this server, or of Core. Shared by all its steps, so an operation id is never used twice."""
        return self.core_attempt if name == CORE else self.attempts.get(name, 1)

    def next_attempt(self, name: str) -> None:
        """A person said retry, or the plan was made again."""
        if name == CORE:
            self.core_attempt += 1
        else:
            self.attempts[name] = self.attempt(name) + 1
            self.line(name, attempt=self.attempt(name))

    def op(self, name: str) -> Operation:
        """The operation that every mutating input carries."""
        return Operation(change=self.change, fleet=self.fleet.name, target=name, attempt=self.attempt(name))

    def dump(self, label: str) -> DumpFacts | None:
        """The newest one with this label."""
        return next((d for d in reversed(self.dumps) if d.label == label), None)

    def core_step(self, *, label: str = "", dump: DumpFacts | None = None) -> CoreStep:
        """Input of a step on the Core host."""
        return CoreStep(
            op=self.op(CORE),
            fleet=self.fleet,
            facts=slim_core(self.planned.core),
            backup=self.core_backup,
            dump=dump,
            label=label,
            key=self.key.public_key if self.key else "",
        )

    def server_step(self, name: str) -> ServerStep:
        """Input of a step on a server."""
        return ServerStep(
            op=self.op(name),
            server=self.fleet.server(name),
            facts=slim_server(self.planned.server(name)),
            target=self.fleet.target,
            agent=self.fleet.agent,
            clocks=self.fleet.clocks,
            backup=self.backups.get(name),
            staged=self.staged.get(name),
            key=self.key.public_key if self.key else "",
        )

    # --- what steps say ---------------------------------------------------------------------------------------------

    def touch(self, name: str) -> None:
        """Something is about to be written on this host."""
        if name not in self.touched:
            self.touched.append(name)

    def enter(self, phase: Phase) -> None:
        """The next heading of the guide."""
        self.phase, self.since = phase, workflow.now()
        self.show()

    def line(self, name: str, **changes: object) -> None:
        """Change one server's line (or Core's), with the time."""
        old = self.core_line if name == CORE else self.lines[name]
        new = replace(old, since=workflow.now(), **changes)  # type: ignore[arg-type]
        if name == CORE:
            self.core_line = new
        else:
            self.lines[name] = new
        self.show()

    def core_is(self, state: ServerState, detail: str = "", step: str = "") -> None:
        """Core's state, for progress and result."""
        self.core_state, self.core_detail = state, detail
        self.line(CORE, state=state, detail=detail, step=step, attempt=self.core_attempt)

    def settled(self, outcome: ServerOutcome) -> None:
        """One server's outcome; a later attempt's replaces it."""
        self.outcomes[outcome.name] = outcome
        self.line(outcome.name, state=outcome.state, step="", detail=outcome.detail, workflow_id="")

    def find(self, core: CoreFacts, servers: dict[str, ServerFacts]) -> None:
        """Plan with these facts. Servers that were skipped keep their place among those left behind."""
        self.plan = assemble(self.fleet, self.change, core, servers, tuple(self.skipped), tuple(self.offline))
        for facts in self.plan.servers:
            if facts.name in self.plan.offline and facts.name not in self.offline:
                self.set_aside(facts.name, facts.findings[0].text)
        self.show()

    def set_aside(self, name: str, why: str) -> None:
        """It cannot be reached: the others go on."""
        self.offline[name] = why
        self.outcomes.pop(name, None)
        self.line(name, state=ServerState.OFFLINE, step="", detail=why, workflow_id="")

    def is_back(self, name: str) -> None:
        """It answers again, or is looked at anew."""
        del self.offline[name]
        self.line(name, state=ServerState.PENDING, step="", detail="")

    def look_anew(self, facts: ServerFacts) -> None:
        """One server's facts after a person changed something there. The order of servers stays."""
        servers = tuple(facts if s.name == facts.name else s for s in self.planned.servers)
        self.plan = replace(self.planned, servers=servers)

    def skip(self, name: str, why: str) -> None:
        """Leave a server on v1 before anything was switched on it."""
        self.skipped[name] = why
        facts = self.planned.server(name)
        self.settled(
            ServerOutcome(
                name=name,
                state=ServerState.LEFT_ON_V1,
                attempt=self.attempt(name),
                detail=why,
                version_before=facts.version,
                version_after=facts.version,
            )
        )
        self.find(self.planned.core, {s.name: s for s in self.planned.servers})

    @property
    def waiting(self) -> tuple[str, ...]:
        """Servers that this run is to upgrade, in order."""
        return tuple(name for wave in self.planned.waves for name in wave.servers)

    def tolerates_another_failure(self) -> bool:
        """`on_failure = "go-on"`, and the one that just happened is still within `max_failures`."""
        rollout = self.fleet.rollout
        bad = [o for o in self.outcomes.values() if o.state is not ServerState.UPGRADED]
        return rollout.on_failure == "go-on" and len(bad) <= rollout.max_failures

    def warn(self, code: str, subject: str, text: str, cure: str = "") -> None:
        """Something a person must know, that stops nothing."""
        finding = Finding(code=code, severity=Severity.WARN, subject=subject, text=text, cure=cure)
        self.warnings.append(finding)
        self.show()

    def by_hand(self, name: str) -> str:
        """What a person types on that host; empty without a backup."""
        backup = self.core_backup if name == CORE else self.backups.get(name)
        host = self.fleet.core.host if name == CORE else self.fleet.server(name).host
        return f"by hand on {host.address}: {backup.restore_command}" if backup else ""

    async def insist(self, name: str, what: str, work: Callable[[int], Awaitable[_T]], word: str = "") -> _T:
        """One undo on this host (`name`: a server, or CORE), until it works or a person gives it up."""
        by_hand = self.by_hand(name)
        undo = Undo(subject=name, what=what, by_hand=f"{by_hand}{word}" if by_hand else "")

        def report(attempts: int, why: Trouble) -> None:
            text = still(undo, attempts, why)
            self.line(name, state=ServerState.PARKED, step=text)
            self.desk.tell(f"{name}: an undo does not work yet: {what}", text)

        return await insist(self.desk, undo, work, report)

    # --- what people see --------------------------------------------------------------------------------------------

    def progress(self) -> FleetProgress:
        """Answer of the query `progress`."""
        return FleetProgress(
            fleet=self.fleet.name,
            target=self.fleet.target,
            change=self.change,
            phase=self.phase,
            since=self.since,
            core=self.core_line,
            servers=tuple(self.lines.values()),
            gate=self.desk.gate,
            paused=self.desk.paused,
            stopping=bool(self.desk.stopping),
            decisions=tuple(self.desk.recorded),
            controls=tuple(self.desk.controls),
            warnings=(*(f"{w.subject}: {w.text}" for w in self.warnings), *self.desk.ignored),
            plan_digest=self.plan.digest if self.plan else "",
            rollback_id=self.rolling_back,
            state=self.end.state if self.end and self.phase is Phase.DONE else None,
        )

    def show(self) -> None:
        """The same as a table in Temporal's UI."""
        if not workflow.in_workflow():
            # What waited at a gate is collected after its workflow was terminated: its `finally` runs outside of it, in
            # the middle of whatever the interpreter is at.
            return
        workflow.set_current_details(board.markdown(self.progress()))


def child_id(name: str, attempt: int) -> str:
    """Of one server's workflow: addressable by people, and never used twice in a run."""
    return f"{workflow.info().workflow_id}/{slug(name)}/{attempt}"
