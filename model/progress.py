"""What `status` and `watch` show, and what an upgrade ends with. The words are those of the design's chapter 11."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from model.decisions import Control, Gate, Recorded
from model.facts import Backup, DatabasePrint, DumpFacts, Finding
from model.fleet import FleetSpec
from model.plan import Plan
from model.steps import CoreKey, Operation, Proof, Switched


class Phase(StrEnum):
    """Where the fleet's upgrade stands: the guide's headings, in its order."""

    PREFLIGHT = "preflight"
    PLAN = "plan"
    BACKUP = "backup"
    STAGE = "stage"
    GATE = "waiting for approval"
    CORE = "upgrading core"
    ROLLOUT = "rolling out"
    POST_CHECKS = "post-checks"
    ROLLBACK = "rolling back"
    DONE = "done"


class ServerState(StrEnum):
    """What a server is, in words that the report uses too."""

    PENDING = "pending"
    PREPARING = "preparing"
    """Surveyed, backed up or staged right now: v1 runs there as before."""
    UPGRADING = "upgrading"
    ALREADY_CURRENT = "already current"
    UPGRADED = "upgraded"
    LEFT_ON_V1 = "left on v1"
    """Unreachable from v2 Core; the detail says why."""
    UNPROVEN = "unproven"
    """v2 runs, Core has not confirmed."""
    PARKED = "parked"
    """Waits for a human; the detail says for what."""
    OFFLINE = "offline"
    """Set aside, because it could not be reached; looked at again after the others."""
    STOPPED = "stopped"
    """Not begun, because the upgrade was stopped."""
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"


class FleetState(StrEnum):
    """How an upgrade (or a rollback) of a fleet ended."""

    ALREADY_CURRENT = "already current"
    UPGRADED = "upgraded"
    INCOMPLETE = "incomplete"
    """Finished with servers left on v1, unproven or failed."""
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
    """What is being done right now; empty when nothing is."""
    since: datetime | None = None
    attempt: int = 1
    detail: str = ""
    workflow_id: str = ""
    """Of the running child; its query `server_progress` knows the step."""


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
    paused: bool = False
    stopping: bool = False
    decisions: tuple[Recorded, ...] = ()
    controls: tuple[Control, ...] = ()
    warnings: tuple[str, ...] = ()
    plan_digest: str = ""
    rollback_id: str = ""
    """Of the child workflow that rolls back right now: its `progress` says more, its gates are answered there."""
    state: FleetState | None = None
    """Set at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeServerRequest:
    """Input of the child workflow `UpgradeServer`. It never waits for people."""

    op: Operation
    fleet: FleetSpec
    plan: Plan
    server: str
    key: CoreKey
    backup: Backup | None
    staged_path: str = ""
    """Empty: to be staged by this attempt."""
    staged_sha256: str = ""
    prove: bool = True
    """False: it ends with the switch. Core is started at the same time, and asked by the fleet once it is up."""
    again: bool = False
    """An earlier attempt left v2 in place: the files are not any more what the plan says, so they are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOutcome:
    """Result of one server: state, why, and the evidence."""

    name: str
    state: ServerState
    attempt: int = 1
    detail: str = ""
    """For people: what happened, what was left behind, what to type next."""
    version_before: str = ""
    version_after: str = ""
    switched: Switched | None = None
    proof: Proof | None = None
    backup: Backup | None = None
    pinned_key: str = ""
    error_type: str = ""
    undo_unfinished: bool = False
    """It is not put back yet: whoever gets this outcome goes on with that."""
    offline: bool = False
    """It could not be reached, and nothing was switched there."""

    @property
    def told(self) -> str:
        """Its state, in words for people."""
        return f"{self.state} (offline)" if self.offline else str(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """Input of `UpgradeFleet` and of `CheckFleet`."""

    fleet: FleetSpec
    change: str
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPutBack:
    """A server that a rollback leaves as it is, and why: said at the gate and in the report."""

    name: str
    why: str
    harmless: bool = False
    """The old version runs there as before: nothing is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """Input of `RollbackFleet`: everything it needs, so that it works without the upgrade's history."""

    fleet: FleetSpec
    change: str
    """Of the upgrade that is undone: names the run folders."""
    plan: Plan
    servers: tuple[str, ...]
    """To be put back. Empty together with core=False means nothing to do."""
    core: bool = True
    """False: only servers are put back (unreachable from v2 Core afterwards)."""
    core_agent: bool = False
    backups: tuple[Backup, ...] = ()
    """One for each of `servers`, in the same order."""
    changes: tuple[str, ...] = ()
    """The same: whose run folder each is put back from, where an upgrade took more than one run. Empty: `change`."""
    left: tuple[NotPutBack, ...] = ()
    """Servers of the fleet that stay as they are."""
    core_is_back: bool = False
    """With core=False: Core runs the old version already, so it has to see these servers again."""
    core_backup: Backup | None = None
    dump: DumpFacts | None = None
    """The final v1 dump. None: v2 Core never started, so the database is left alone."""
    database: str = "restore"
    """restore: that dump, what was written since is lost; keep: v1's form again, what was written since stays."""
    outcomes: tuple[ServerOutcome, ...] = ()
    """What the upgrade said of the servers, for the report."""
    keepers: tuple[str, ...] = ()
    """Of the upgrade's stage_core, removed at the end."""
    attempt: int = 1
    """Higher than every attempt of the upgrade, so that no mark of an earlier undo is taken for this one."""
    approved: Recorded | None = None
    """Set where the gate `rollback` was already answered (rollback of a running upgrade)."""
    requested_by: str = ""

    def change_of(self, name: str) -> str:
        """The upgrade whose run folder this server (or Core) is put back from."""
        if name in self.servers and self.changes:
            return self.changes[self.servers.index(name)]
        return self.change


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """How it ended: what `report` is made from, and what a later rollback starts with."""

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
    core_dark: timedelta = timedelta()
    core_attempt: int = 1
    core_begun: bool = False
    """Starting v2 Core had begun: its database may have been touched, so a way back includes the dump."""
    keepers: tuple[str, ...] = ()
    """Containers on the Core host that hold the images of the way back."""
    key: CoreKey | None = None
    servers: tuple[ServerOutcome, ...] = ()
    core_agent: ServerOutcome | None = None
    core_backup: Backup | None = None
    dumps: tuple[DumpFacts, ...] = ()
    fingerprints: tuple[DatabasePrint, ...] = ()
    decisions: tuple[Recorded, ...] = ()
    controls: tuple[Control, ...] = ()
    warnings: tuple[Finding, ...] = ()
    refusals: tuple[Finding, ...] = ()
    detail: str = ""
    """One sentence for people: why it ended so, and what to type next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Result of `CheckFleet`: findings and the plan, nothing changed anywhere."""

    plan: Plan
    found_at: datetime
