"""Inputs and results of the activities: one dataclass in, one out. Operation ids travel in every mutating input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypedDict

from model.facts import Backup, CoreFacts, CoreInstallation, CoreRef, DumpFacts, DumpLabel, Finding, Moment, ServerFacts
from model.fleet.spec import AgentRelease, CoreSpec, Event, FleetSpec, Notify, ServerSpec, Timing, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Who changes what: makes a repeated step find its own mark. `change` is made by the starter."""

    change: str
    """UTC stamp of the upgrade, also the run folder's name: "20261123T221500Z"."""
    fleet: str
    target: str
    """A server's name, or "core"."""
    attempt: int = 1
    """Rises with every human retry; an undo invalidates the marks of its attempt."""

    def id(self, step: str) -> str:
        """`<change>/<target slug>/<attempt>/<step>`"""
        return f"{self.change}/{slug(self.target)}/{self.attempt}/{step}"

    def ids(self, step: str) -> tuple[str, ...]:
        """The same step of this and of every earlier attempt: what an undo has to wait for."""
        return (*(f"{attempt}/{step}" for attempt in self.earlier_attempts), self.id(step))

    @property
    def earlier_attempts(self) -> tuple[str, ...]:
        """What the operation ids of all earlier attempts begin with."""
        return tuple(f"{self.change}/{slug(self.target)}/{number}" for number in range(1, self.attempt))

    def folder(self, state_dir: str) -> str:
        """The run's folder on the host."""
        return f"{state_dir}/{slug(self.fleet)}/{self.change}"


SWITCH = "switch"
"""Step of the operation that switches an agent; a restore waits for it."""


def agent_operation(op: Operation, facts: CoreFacts) -> Operation | None:
    """The operation of the agent in Core's own project, next to Core's own one; None: the project has no agent."""
    return replace(op, target=facts.agent_name) if facts.agent_name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMessage:
    """Base of inputs that carry the fleet."""

    fleet: FleetSpec

    @property
    def timing(self) -> Timing:
        """Of the fleet."""
        return self.fleet.timing


# --- surveys (read-only) ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyCore(FleetMessage):
    """Input of `survey_core`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyServer:
    """Input of `survey_server`."""

    server: ServerSpec
    target: str
    fleet: str
    agent: AgentRelease = AgentRelease()
    timing: Timing = Timing()
    agents_url: str = ""
    known: ServerFacts | None = None
    """Of an agent in a container: what the survey of Core found of it. None: found from the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What changed since the plan, and what is in progress now."""

    drift: tuple[str, ...] = ()
    """Differences from the plan, for people; any of them means: plan again."""
    busy: tuple[str, ...] = ()
    """Updates in progress."""
    unreachable: str = ""
    """Why the host could not be reached, so that nothing is known; only where that is no failure."""
    missing: tuple[str, ...] = ()  # files that others have to edit, and that are as before
    losses: tuple[str, ...] = ()
    """What a rollback that keeps the database loses, because the old version cannot read it."""


# --- Core -------------------------------------------------------------------------------------------------------------


class CoreBasis(TypedDict):
    """The fields of a CoreStep, to make a more specific message of: `DumpDatabase(**step.basis(), label=…)`."""

    op: Operation
    fleet: FleetSpec
    facts: CoreInstallation


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStep(FleetMessage):
    """Input of the steps on Core's host that need the plan and nothing else; base of those that need more."""

    op: Operation
    facts: CoreInstallation

    @property
    def folder(self) -> str:
        """The run folder on Core's host."""
        return self.op.folder(self.fleet.core.host.state_dir)

    def basis(self) -> CoreBasis:
        """The fields that all messages about Core share."""
        return {"op": self.op, "fleet": self.fleet, "facts": self.facts}


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpDatabase(CoreStep):
    """Input of `dump_database`."""

    label: DumpLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpStep(CoreStep):
    """Input of `prove_dump` and of `restore_database`: the dump that is proven or restored."""

    dump: DumpFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintDatabase(CoreStep):
    """Input of `fingerprint_database`."""

    moment: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCoreFiles(CoreStep):
    """Input of `write_core_files`."""

    final_dump: DumpFacts
    """Recorded in the run folder before v2 is started, so that a rollback needs no history."""
    staged_key: str = ""
    """Core's public key where its pair was created in advance: the pair is installed. Empty: v2 creates one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCoreKey(CoreStep):
    """Input of `read_core_key`."""

    expected: str = ""
    """The public key that was created in advance; Core must have it. Empty: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRollback(CoreStep):
    """Input of `check_rollback`."""

    backup: Backup
    dump: DumpFacts | None = None
    """The dump that will be restored. None: none is."""
    keep_database: bool = False
    """What was written since the upgrade is kept (`[database] rollback = "keep"`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnToNewCore(CoreStep):
    """Input of `return_to_new_core`."""

    dump: DumpFacts | None
    """`pre_rollback`, where the failed rollback has touched the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedCore:
    """Images that lie on the Core host, held by created containers."""

    images: tuple[str, ...]
    digests: tuple[str, ...] = ()
    """Of the manifest of each image."""
    image_pins: tuple[str, ...] = ()
    """Names of the created, never started containers (komodo-upgrade-keep-…)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStarted:
    """Core answers."""

    version: str
    started_at: datetime
    """Host's time at `up -d`."""
    downtime: timedelta
    """From the stop of the old Core until the new one answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreKey:
    """Core's public key, agreed on by all sources that exist."""

    public_key: str
    sources: tuple[str, ...]
    """Of: "API GetCoreInfo", "log of komodo-core-1", "/opt/komodo/keys/core.pub"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A step that has nothing else to say."""

    facts: tuple[str, ...] = ()


# --- servers ----------------------------------------------------------------------------------------------------------


class ServerBasis(TypedDict):
    """The fields of a ServerStep, to make a more specific message of."""

    op: Operation
    server: ServerSpec
    facts: ServerFacts
    target: str
    agent: AgentRelease
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStep:
    """Input of `back_up_server` and `stage_server`; base of the messages that need more."""

    op: Operation
    server: ServerSpec
    facts: ServerFacts
    target: str
    agent: AgentRelease = AgentRelease()
    timing: Timing = Timing()

    @property
    def folder(self) -> str:
        """The run folder on the server."""
        return self.op.folder(self.server.host.state_dir)

    def basis(self) -> ServerBasis:
        """The fields that all messages about a server share."""
        return ServerBasis(
            op=self.op, server=self.server, facts=self.facts, target=self.target, agent=self.agent, timing=self.timing
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckServer(ServerStep):
    """Input of `recheck_server`."""

    staged: StagedAgent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedServerStep(ServerStep):
    """Input of the steps that need the server's backup: its restore, the check for one, its automatic rollback."""

    backup: Backup
    core: CoreRef | None = None
    """Of a server that was to connect to Core: a restore gives Core its address again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchServer(SavedServerStep):
    """Input of `switch_server`."""

    staged: StagedAgent
    key: str
    """Core's public key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectServer(SavedServerStep):
    """Input of `connect_server` and `disconnect_server`; `core` is set."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedAgent:
    """A proven v2 binary on its host, not yet in place."""

    path: str
    sha256: str
    version: str
    source: str
    """For people: "downloaded by the host from …", "pushed by the worker"."""
    image: str = ""
    """Of an agent in a container."""
    image_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """The agent runs in its new version with its config loaded; its own journal says so."""

    version: str
    invocation: str
    """systemd's InvocationID of the new run; a container's id for the agent in Core's project."""
    started_at: datetime
    """Host's time."""
    port_downtime: timedelta
    lines: tuple[str, ...]
    """The journal's proof lines, cleaned: version, loaded keys, listening."""
    auto_rollback_at: datetime | None = None
    """By the host's clock, unless Core's login is seen or it is disarmed before. None: no timer."""


class Armed(StrEnum):
    """State of a host's automatic rollback timer."""

    NONE = "none"
    ARMED = "armed"
    LOST = "lost"
    """The machine was restarted since, so the timer is gone."""
    FIRING = "firing"
    FIRED = "fired"
    """The old version was restored."""
    FAILED = "failed"
    """restore.sh failed."""
    SILENT = "silent"
    """Its time was over, and the agent's journal had a login of Core."""
    DISARMED = "disarmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoRollback:
    """Result of `check_auto_rollback` and `disarm_auto_rollback`."""

    state: Armed = Armed.NONE
    at: datetime | None = None
    """When it fires, or when it ended; by the host's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyServer(FleetMessage):
    """Input of `verify_server`: the proof from Core's side, and from the agent's journal, that the key was used."""

    op: Operation
    core: CoreFacts
    server: ServerSpec
    facts: ServerFacts
    switched: Switched
    expected_version: str
    key: str
    """Empty in a rollback to v1: v1 prints no login line, so Core's view alone counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Fresh evidence that Core talks to the agent in its new version."""

    by_core: bool
    """False without an API key: then only the agent's journal speaks."""
    line: str
    """The journal's login line, with the host's time."""
    confirmed_at: datetime
    unmanaged: timedelta = timedelta()
    """From Core's switch until Core said Ok again (0 where unknown)."""
    unverified: tuple[str, ...] = ()
    """What could not be verified, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """An agent that is back on its old version."""

    version: str
    started_at: datetime
    line: str
    invocation: str = ""


# --- the end ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PostChecks:
    """Result of `post_checks`: the guide's checklist from Core's side."""

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHosts:
    """Input of `release_host`: give the lock back, remove what was staged and not used; backups stay."""

    op: Operation
    timing: Timing = Timing()
    server: ServerSpec | None = None
    core: CoreSpec | None = None
    image_pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Input of `notify`."""

    fleet: str
    timing: Timing = Timing()
    event: Event
    subject: str
    text: str
    notify: Notify = Notify()
