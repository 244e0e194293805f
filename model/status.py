"""States, progress and result of a run: the data that `status`, `watch` and `report` show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from model.facts import Backup, DatabaseFingerprint, DumpFacts, Finding, ServerFacts
from model.fleet.spec import CoreSpec, DatabaseRollback, FleetSpec, Timing
from model.gates import Control, Gate, Recorded
from model.plan import ApprovedPlan, Plan
from model.steps import CoreKey, Operation, Proof, StagedAgent, Switched
from model.text.versions import old_name


class Phase(StrEnum):
    """The phase of the fleet's upgrade, in the order of the upgrade guide."""

    PREFLIGHT = "preflight"
    PLAN = "plan"
    BACKUP = "backup"
    STAGE = "stage"
    GATE = "waiting for approval"
    SCHEDULED = "waiting for its time"
    CORE = "upgrading core"
    ROLLOUT = "rolling out"
    POST_CHECKS = "post-checks"
    ROLLBACK = "rolling back"
    DONE = "done"


class ServerState(StrEnum):
    """The state of a server, with the names that the report shows."""

    PENDING = "pending"
    PREPARING = "preparing"
    """It is being surveyed, backed up or staged: v1 still runs there."""
    UPGRADING = "upgrading"
    ALREADY_CURRENT = "already current"
    UPGRADED = "upgraded"
    LEFT_ON_V1 = "left on v1"
    """The old version runs there; the detail gives the reason. One of v1 is unreachable from v2 Core."""
    UNVERIFIED = "unverified"
    """v2 runs there, but Core has not confirmed it."""
    WAITING = "waiting"
    """Waits for a person; the detail gives the reason."""
    OFFLINE = "offline"
    """Set aside because it could not be reached; it is surveyed again after the others."""
    STOPPED = "stopped"
    """Not started, because the upgrade was stopped."""
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"


class FleetState(StrEnum):
    """How an upgrade (or a rollback) of a fleet ended."""

    ALREADY_CURRENT = "already current"
    UPGRADED = "upgraded"
    INCOMPLETE = "incomplete"
    """Finished with servers left on v1, unverified or failed."""
    REFUSED = "refused"
    STOPPED = "stopped"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"

    @property
    def exit_code(self) -> int:
        """The exit code of `start --wait`, `status --wait` and `rollback`."""
        return {
            FleetState.ALREADY_CURRENT: 0,
            FleetState.UPGRADED: 0,
            FleetState.INCOMPLETE: 3,
            FleetState.STOPPED: 3,
            FleetState.REFUSED: 4,
            FleetState.ROLLED_BACK: 7,
            FleetState.ROLLBACK_INCOMPLETE: 3,
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProgress:
    """One line of `watch`."""

    name: str
    state: ServerState = ServerState.PENDING
    step: str = ""
    """The current step; empty if none runs."""
    since: datetime | None = None
    attempt: int = 1
    detail: str = ""
    workflow_id: str = ""
    """Of the running child; its query `server_progress` returns the step."""
    old: str = ""
    """The version before, once the server has an outcome."""

    @property
    def reported(self) -> str:
        """Its state as shown to the operator."""
        return _reported(self.state, self.old)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A phase, and when it began. It ends when the next one begins."""

    phase: Phase
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A run that waits for a time, by a durable timer."""

    until: datetime
    why: str

    @property
    def line(self) -> str:
        """For people."""
        return f"it continues at {self.until:%Y-%m-%d %H:%M} UTC ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgress:
    """Answer of the query `progress`."""

    fleet: str
    target: str
    change: str
    phase: Phase
    since: datetime
    core: ServerProgress
    servers: tuple[ServerProgress, ...] = ()
    gate: Gate | None = None
    waiting: Waiting | None = None
    """When it continues, if it waits for its start or for a maintenance window."""
    paused: bool = False
    stopping: bool = False
    decisions: tuple[Recorded, ...] = ()
    controls: tuple[Control, ...] = ()
    warnings: tuple[str, ...] = ()
    phases: tuple[Begun, ...] = ()
    core_stopped_at: datetime | None = None
    """When Core was stopped last: the servers that are not upgraded yet are unmanaged since then."""
    plan_digest: str = ""
    rollback_id: str = ""
    """Of the child workflow that is rolling back: it has its own query `progress` and its own gates."""
    state: FleetState | None = None
    """Set at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeServerRequest:
    """Input of the child workflow `UpgradeServer`, which has no gates."""

    op: Operation
    fleet: FleetSpec
    plan: Plan
    server: str
    key: CoreKey
    backup: Backup
    staged: StagedAgent | None = None
    """None: this attempt stages it."""
    prove: bool = True
    """False: it ends with the switch. Core starts at the same time, and the fleet's workflow verifies the server."""
    again: bool = False
    """An earlier attempt left v2 in place. The files no longer match the plan, so they are not compared with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOutcome:
    """Result of one server: state, why, and the evidence."""

    name: str
    state: ServerState
    attempt: int = 1
    detail: str = ""
    """Text for the operator: the event, its residue, and the next command."""
    version_before: str = ""
    version_after: str = ""
    switched: Switched | None = None
    proof: Proof | None = None
    backup: Backup | None = None
    pinned_key: str = ""
    error_type: str = ""
    undo_unfinished: bool = False
    """It is not restored yet: the caller has to continue the undo."""
    offline: bool = False
    """It could not be reached, and nothing was switched there."""

    @property
    def reported(self) -> str:
        """Its state as shown to the operator."""
        state = _reported(self.state, self.version_before)
        return f"{state} (offline)" if self.offline else state


def _reported(state: ServerState, old: str) -> str:
    return f"left on {old_name(old)}" if state is ServerState.LEFT_ON_V1 else str(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """Input of `UpgradeFleet` and of `CheckFleet`."""

    fleet: FleetSpec
    change: str
    requested_by: str = ""
    start_at: datetime | None = None
    """No host is contacted before. None: it begins at once."""
    approved: ApprovedPlan | None = None
    """Of the plan file that it was started with: nothing else is applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineRequest:
    """Input of `FindReturned`."""

    fleet: FleetSpec
    """With the offline servers alone."""
    every: timedelta
    """Between two checks."""
    until: datetime
    """Then there is one last check."""
    next_check: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """Result of `FindReturned`: the surveys of the servers that answer, a page of them at most."""

    servers: tuple[ServerFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRestored:
    """A server that a rollback does not change, and the reason, which the gate and the report show."""

    name: str
    why: str
    harmless: bool = False
    """The old version still runs there, so nothing is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """Input of `RollbackFleet`: everything it needs, so that it works without the upgrade's history."""

    fleet: FleetSpec
    change: str
    """The upgrade that is rolled back; it names the run folders."""
    plan: Plan
    servers: tuple[str, ...]
    """Servers to restore. Empty together with core=False means nothing to do."""
    core: bool = True
    """False: only servers are restored, which v2 Core cannot reach afterwards."""
    backups: tuple[Backup, ...] = ()
    """One for each of `servers`, in the same order; see `backups_by_server`."""
    by_reference: bool = False
    """Facts and backups of the servers are not here but in their run folders: together they would exceed a payload."""
    changes: tuple[str, ...] = ()
    """For each of `servers`, the run whose folder is restored, if an upgrade took several runs. Empty: `change`."""
    not_restored: tuple[NotRestored, ...] = ()
    """Servers of the fleet that are not changed."""
    core_is_back: bool = False
    """With core=False: Core already runs the old version, so it has to reach these servers again."""
    core_backup: Backup | None = None
    dump: DumpFacts | None = None
    """The final v1 dump. None: v2 Core never started, so the database is not changed."""
    database: DatabaseRollback = DatabaseRollback.RESTORE
    outcomes: tuple[ServerOutcome, ...] = ()
    """The upgrade's outcomes of the servers, for the report."""
    image_pins: tuple[str, ...] = ()
    """Containers that stage_core created; they are removed at the end."""
    attempt: int = 1
    """Higher than every attempt of the upgrade, so that a mark of an earlier undo is not mistaken for this one."""
    approved: Recorded | None = None
    """Set if the gate `rollback` was already answered (rollback of a running upgrade)."""
    requested_by: str = ""

    def backups_by_server(self) -> dict[str, Backup]:
        """Empty if they do not match the servers one by one: no server is restored from the folder of another one."""
        if self.by_reference:
            return {}
        matching = len(self.servers) == len(self.backups) and len(self.changes) in (0, len(self.servers))
        return dict(zip(self.servers, self.backups, strict=True)) if matching else {}

    def change_of(self, name: str) -> str:
        """The upgrade from whose run folder this server (or Core) is restored."""
        if name in self.servers and self.changes:
            return self.changes[self.servers.index(name)]
        return self.change


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """Result of an upgrade or a rollback: the input of `report` and of a later rollback."""

    fleet: str
    target: str
    change: str
    state: FleetState
    started_at: datetime
    ended_at: datetime
    plan: Plan | None = None
    core_state: ServerState = ServerState.PENDING
    core_version: str = ""
    core_detail: str = ""
    core_downtime: timedelta = timedelta()
    core_attempt: int = 1
    core_begun: bool = False
    """The start of v2 Core had begun. The database may have changed, so a rollback restores the dump."""
    core_stopped_at: datetime | None = None
    phases: tuple[Begun, ...] = ()
    image_pins: tuple[str, ...] = ()
    """Containers on the Core host that hold the images for a rollback."""
    key: CoreKey | None = None
    servers: tuple[ServerOutcome, ...] = ()
    core_backup: Backup | None = None
    dumps: tuple[DumpFacts, ...] = ()
    fingerprints: tuple[DatabaseFingerprint, ...] = ()
    decisions: tuple[Recorded, ...] = ()
    controls: tuple[Control, ...] = ()
    warnings: tuple[Finding, ...] = ()
    refusals: tuple[Finding, ...] = ()
    detail: str = ""
    """One sentence for the operator: the reason for this end, and the next command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPage:
    """Answer of the query `result_page`: part of a result; `model/pages/results.py` joins the parts."""

    result: FleetResult
    pages: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPage:
    """Answer of the query `plan_page`: part of a plan; None while it is being made."""

    plan: Plan | None = None
    pages: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Result of `CheckFleet`: findings and the plan, nothing changed anywhere."""

    plan: Plan
    """Of a large fleet without its servers: the query `plan_page` has them."""
    found_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport:
    """Input of `save_report` and of `save_report_page`.

    A report is saved in pages, because one payload must not grow with the fleet: first the later pages as files of
    Core's run folder; then the first page, from which and from those files report.md and report.json are made.
    """

    op: Operation
    timing: Timing = Timing()
    core: CoreSpec
    page: FleetResult
    number: int = 1
    pages: int = 1
