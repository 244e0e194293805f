"""Inputs and results of the activities: one dataclass in, one out. Operation ids travel in every mutating input."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from model.facts import Backup, CoreFacts, DumpFacts, Finding, PlannedEdit, ServerFacts
from model.fleet import AgentRelease, Clocks, CoreSpec, FleetSpec, ServerSpec, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Who changes what: makes a repeated step find its own mark. `change` is made by the starter."""

    change: str
    """UTC stamp of the upgrade, also the run folder's name: "20261123T221500Z"."""
    fleet: str
    target: str
    """A server's name, or "core"."""
    attempt: int = 1
    """Rises with every human retry; an undo voids the marks of its attempt."""

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


# --- surveys (read-only) ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyCore:
    """Input of `survey_core` and of `recheck_core`."""

    fleet: FleetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyServer:
    """Input of `survey_server`."""

    server: ServerSpec
    target: str
    fleet: str
    agent: AgentRelease = AgentRelease()
    clocks: Clocks = Clocks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What changed since the plan, and what is going on right now."""

    drift: tuple[str, ...] = ()
    """Differences from the plan, for people; any of them means: plan again."""
    busy: tuple[str, ...] = ()
    """Updates in progress."""
    unreachable: str = ""
    """Why the host could not be reached, so that nothing is known; only where that is no failure."""


# --- Core -------------------------------------------------------------------------------------------------------------


KEEP = "keep"
"""Label of a way back that keeps what was written since (`[database] rollback`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStep:
    """Input of every step on the Core host."""

    op: Operation
    fleet: FleetSpec
    facts: CoreFacts
    backup: Backup | None = None
    dump: DumpFacts | None = None
    """The dump this step rests on (counts to equal, or what to restore)."""
    label: str = ""
    """For dumps: before | final | pre_rollback. For a look at what a way back needs: KEEP, or nothing."""
    key: str = ""
    """Core's public key, once known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedCore:
    """Images that lie on the Core host, held by created containers."""

    images: tuple[str, ...]
    digests: tuple[str, ...] = ()
    keepers: tuple[str, ...] = ()
    """Names of the created, never started containers (komodo-upgrade-keep-…)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStarted:
    """Core answers."""

    version: str
    started_at: datetime
    """Host's time at `up -d`."""
    dark: timedelta
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStep:
    """Input of every step on a server."""

    op: Operation
    server: ServerSpec
    facts: ServerFacts
    target: str
    agent: AgentRelease = AgentRelease()
    clocks: Clocks = Clocks()
    backup: Backup | None = None
    staged: StagedAgent | None = None
    key: str = ""
    """Core's public key; empty where nothing is pinned by this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedAgent:
    """A proven v2 binary on its host, not yet in place."""

    path: str
    sha256: str
    version: str
    source: str
    """For people: "downloaded by the host from …", "pushed by the worker"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """The agent runs in its new version with its config loaded; its own journal says so."""

    version: str
    invocation: str
    """systemd's InvocationID of the new run; a container's id for the agent in Core's project."""
    started_at: datetime
    """Host's time."""
    port_silent: timedelta
    lines: tuple[str, ...]
    """The journal's proof lines, cleaned: version, loaded keys, listening."""
    puts_itself_back_at: datetime | None = None
    """By the host's clock, unless Core's login is seen or it is disarmed before. None: no dead-man timer."""


class Armed(StrEnum):
    """What a host's dead-man timer is, or what became of it."""

    NONE = "none"
    ARMED = "armed"
    LOST = "lost"
    """The machine was restarted since: nothing will happen by itself any more."""
    FIRING = "firing"
    FIRED = "fired"
    """The agent was put back."""
    FAILED = "failed"
    """It was to be put back, and restore.sh did not end well."""
    SILENT = "silent"
    """Its time was over, and the agent's journal showed a login of Core."""
    DISARMED = "disarmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMan:
    """Result of `look_at_dead_man` and `disarm_dead_man`."""

    state: Armed = Armed.NONE
    at: datetime | None = None
    """When it will be over, or when it ended; the host's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyServer:
    """Input of `verify_server`: the proof from Core's side, and from the agent's journal, that the key was used."""

    op: Operation
    fleet: FleetSpec
    core: CoreFacts
    server: ServerSpec
    switched: Switched
    expected_version: str
    key: str
    """Empty on the way back to v1: then the login line of v1 does not exist and Core's view alone counts."""
    container: str = ""
    """Set for the agent in Core's project: its container on the Core host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Fresh evidence that Core talks to the agent in its new version."""

    by_core: bool
    """False without an API key: then only the agent's journal speaks."""
    line: str
    """The journal's login line, with the host's time."""
    confirmed_at: datetime
    dark: timedelta = timedelta()
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
    server: ServerSpec | None = None
    core: CoreSpec | None = None
    keepers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport:
    """Input of `save_report`: report.md and report.json into Core's run folder."""

    op: Operation
    core: CoreSpec
    markdown: str
    json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Input of `notify`."""

    fleet: str
    subject: str
    text: str
    command: str = ""


__all__ = [
    "Armed",
    "CoreKey",
    "CoreStarted",
    "CoreStep",
    "DeadMan",
    "Done",
    "Notice",
    "Operation",
    "PlannedEdit",
    "PostChecks",
    "Proof",
    "Recheck",
    "ReleaseHosts",
    "Restored",
    "SaveReport",
    "ServerStep",
    "StagedAgent",
    "StagedCore",
    "SurveyCore",
    "SurveyServer",
    "Switched",
    "VerifyServer",
]
