"""The fleet as the workflows carry it: references instead of secrets, absolute paths, every default filled in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

LABEL, EVERY_OTHER = "label:", "*"
"""In `[rollout] order`: what a label begins with, and the servers that no other entry names."""
TASK_QUEUE = "komodo-upgrade"
"""The one task queue of workflows and activities."""


def slug(name: str) -> str:
    """A name for ids and paths: readable, safe for a shell and a file system, and unique by a short hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    if plain == name:
        return plain
    return f"{plain or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def workflow_id(fleet: str) -> str:
    """One upgrade per fleet by construction: upgrade and rollback share this id."""
    return f"komodo-upgrade/{fleet}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """Where a secret is: exactly one of the three is set. Resolved on the worker at the moment of use."""

    env: str = ""
    file: str = ""
    command: str = ""

    def __str__(self) -> str:
        if self.env:
            return f"the environment variable {self.env}"
        return f"the file {self.file}" if self.file else f"the command {self.command!r}"


class RolloutMode(StrEnum):
    """In which order Core and the agents are switched."""

    WAVES = "waves"
    ALL_AT_ONCE = "all-at-once"
    """Every agent is switched with Core, with a key of Core that was created in advance."""


class Approval(StrEnum):
    """Which gates a rollout has after gate `core`."""

    EACH_SERVER = "each-server"
    EACH_WAVE = "each-wave"
    CANARY = "canary"
    """One gate, after the canary."""
    CORE_ONLY = "core-only"
    """None."""


class FailurePolicy(StrEnum):
    """What the failure of a server means for the others."""

    ASK = "ask"
    """It opens a gate."""
    CONTINUE = "continue"
    """They continue, up to `max_failures`."""


class TimeoutPolicy(StrEnum):
    """What happens when a gate is not answered in time."""

    HOLD = "hold"
    STOP = "stop"


class OfflinePolicy(StrEnum):
    """What happens to a server that is unreachable."""

    WAIT = "wait"
    """It is set aside, checked again after the others, and upgraded when it returns."""
    LEAVE = "leave"
    """It is checked once more after the others, then left on v1."""
    REFUSE = "refuse"
    """Nothing begins without it."""


class ProofPolicy(StrEnum):
    """How a dump is proven."""

    RESTORE = "restore"
    """It is restored into a scratch database and compared."""
    COUNT = "count"
    """Its documents are counted only."""


class DatabaseRollback(StrEnum):
    """What a rollback does with the database."""

    RESTORE = "restore"
    """It restores the final dump; what was written since is lost."""
    KEEP = "keep"
    """It converts the database to v1's form and keeps what was written since."""


class AgentMethod(StrEnum):
    """How a new agent is put in place."""

    BINARY = "binary"
    """Stage, prove, stop, rename, start."""
    SCRIPT = "script"
    """The official setup script; the old binary is saved first."""


class Pin(StrEnum):
    """How an agent's config names Core's public key."""

    FILE = "file"
    """By a file, which the agent replaces when Core rotates its keys."""
    INLINE = "inline"
    """The key itself, as the upgrade guide writes it: after a rotation the agent refuses Core at its next start."""


class Download(StrEnum):
    """Which machine downloads an agent."""

    AUTO = "auto"
    """The host, else the worker."""
    HOST = "host"
    WORKER = "worker"


class AgentInstall(StrEnum):
    """How an agent is installed, as the fleet file says."""

    AUTO = "auto"
    """Found by the survey."""
    SYSTEMD = "systemd"
    SYSTEMD_USER = "systemd-user"
    CONTAINER = "container"


class Connection(StrEnum):
    """Which side opens the connection between Core and an agent."""

    AUTO = "auto"
    """As it is: nothing about it changes."""
    INBOUND = "inbound"
    """Core connects to the agent."""
    OUTBOUND = "outbound"
    """The agent connects to Core."""


class KeysMount(StrEnum):
    """Where Core's keys are kept."""

    BIND = "bind"
    """./keys:/config/keys, as the guide prefers."""
    VOLUME = "volume"
    """A named volume `keys`."""


class CoreFiles(StrEnum):
    """Who edits the compose and env files of Core's project."""

    EDIT = "edit"
    """The upgrade."""
    EXTERNAL = "external"
    """Others, from the repository that owns them, before gate `core` is approved. The upgrade requires the planned
    result. A rollback restores the saved files."""


class Sudo(StrEnum):
    """How a command becomes root on a host."""

    NONE = "none"
    PASSWORDLESS = "passwordless"
    PASSWORD = "password"  # noqa: S105 - a mode, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """How one machine is reached over SSH, and how a command becomes root there."""

    name: str
    """For messages: the Server's name, or `core`."""
    address: str
    port: int = 0
    """0: from ~/.ssh/config, else 22."""
    user: str = ""
    key_files: tuple[str, ...] = ()
    """Empty: those of ~/.ssh/config, the agent's, the usual files."""
    passphrase: SecretRef | None = None
    known_hosts: str = ""
    """Absolute path; empty: those of ~/.ssh/config, else ~/.ssh/known_hosts. Never switched off."""
    ssh_config: str = ""
    """Absolute path of an OpenSSH client config; empty: ~/.ssh/config if there is one; "none": read no config."""
    jump: str = ""
    """[user@]host[:port] of a jump host; empty: as ~/.ssh/config says."""
    sudo: Sudo = Sudo.PASSWORDLESS
    sudo_password: SecretRef | None = None
    state_dir: str = "/var/lib/komodo-upgrade"
    """Where run folders, locks and jobs live on the host."""
    connect_timeout: timedelta = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSpec:
    """Komodo Core: its host, and what a person overrides of what is found there."""

    host: HostSpec
    url: str = ""
    """Empty: Core's published port through the SSH connection."""
    agents_url: str = ""
    """Under which address agents reach Core: "wss://komodo.example.net"."""
    api_key: SecretRef | None = None
    api_secret: SecretRef | None = None
    container: str = ""
    project: str = ""
    project_dir: str = ""
    compose_files: tuple[str, ...] = ()
    env_file: str = ""
    keys_mount: KeysMount = KeysMount.BIND
    files: CoreFiles = CoreFiles.EDIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One Server of Komodo and the machine its agent runs on."""

    name: str
    host: HostSpec
    install: AgentInstall = AgentInstall.AUTO
    connection: Connection = Connection.AUTO
    unit: str = "periphery.service"
    binary: str = ""
    """Empty: found from the unit."""
    config: str = ""
    """Empty: found from the unit."""
    labels: tuple[str, ...] = ()
    """For `[rollout] order`."""
    auto_rollback: timedelta = timedelta()
    """After this time without a confirmation by Core the host restores its old agent. 0: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRelease:
    """Where agent binaries come from and how they are put in place."""

    method: AgentMethod = AgentMethod.BINARY
    pin: Pin = Pin.FILE
    download: Download = Download.AUTO
    url: str = "https://github.com/moghtech/komodo/releases/download/v{version}/periphery-{arch}"
    """{version} without v; {arch} is x86_64 or aarch64."""
    script_url: str = "https://raw.githubusercontent.com/moghtech/komodo/v{version}/scripts/setup-periphery.py"
    sha256: dict[str, str] = field(default_factory=dict)
    """arch -> expected digest. Empty: the release's own digest where GitHub gives one, else equal on all hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """In which waves servers are upgraded, who approves, and what a failure means."""

    mode: RolloutMode = RolloutMode.WAVES
    canary: int = 1
    wave: str = "1"
    """A count, or a share of the fleet such as "25%"."""
    approve: Approval = Approval.EACH_WAVE
    on_failure: FailurePolicy = FailurePolicy.ASK
    max_failures: int = 0
    """continue: with more failed servers than this, ask all the same."""
    gate_reminder: timedelta = timedelta(hours=4)
    gate_timeout: timedelta = timedelta(days=3)
    on_gate_timeout: TimeoutPolicy = TimeoutPolicy.HOLD
    offline: OfflinePolicy = OfflinePolicy.WAIT
    offline_for: timedelta = timedelta(hours=24)
    """wait: counted from when the others are done."""
    offline_check: timedelta = timedelta(minutes=10)
    """Between two checks."""
    window: tuple[str, ...] = ()
    """Maintenance windows: Core and waves begin only inside of one. Empty: at any time."""
    order: tuple[str, ...] = ()
    """Groups of servers in the order in which they are upgraded: `label:NAME`, a server's name, `*` for all others.
    Empty: the order of the fleet file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePolicy:
    """How dumps are proven, and what a rollback does with the database."""

    proof: ProofPolicy = ProofPolicy.RESTORE
    rollback: DatabaseRollback = DatabaseRollback.RESTORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Every duration that a slow (or a test's) fleet may want changed."""

    core_ready: timedelta = timedelta(minutes=3)
    """From `up -d` until Core answers with the target version."""
    agent_ready: timedelta = timedelta(seconds=45)
    """From an agent's start until its journal has the version and the loaded config."""
    core_sees: timedelta = timedelta(seconds=90)
    """From an agent's start until Core says Ok with the target version."""
    poll: timedelta = timedelta(seconds=1)
    """Between two reads of a journal or of Core's state."""
    update_wait: timedelta = timedelta(minutes=15)
    """How long updates in progress are waited for before a person is asked."""
    heartbeat: timedelta = timedelta(seconds=10)
    """Time without a heartbeat after which a step's worker counts as dead."""
    retry: timedelta = timedelta(seconds=6)
    """First delay before a step is tried again; above the 5 s in which two attempts may overlap."""
    dump: timedelta = timedelta(hours=2)
    """Longest honest dump or restore."""
    dump_stall: timedelta = timedelta(minutes=5)
    """Without one more byte for so long a dump hangs."""
    download: timedelta = timedelta(minutes=30)
    """Longest honest download of one artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is checked after an upgrade. Zero: not checked."""

    lasts: timedelta = timedelta()
    """Zombies, servers, stats: for so long."""
    every: timedelta = timedelta(hours=1)
    backup_within: timedelta = timedelta()
    """By then the automatic backup of Core's database must have run once."""


class Event(StrEnum):
    """What people are notified of."""

    GATE = "gate"
    REMINDER = "reminder"
    FAILURE = "failure"
    END = "end"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """How people are notified, and of what."""

    command: str = ""
    """Run on the worker with the message on standard input."""
    urls: SecretRef | None = None
    """Addresses of notification services in the form of Apprise, one per line. They hold tokens."""
    events: tuple[Event, ...] = tuple(Event)
    dashboard: str = ""
    """Address of a dashboard, which messages link to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """Everything a workflow is started with. Holds no secret."""

    name: str
    target: str
    """An exact version, without v: "2.3.2"."""
    core: CoreSpec
    servers: tuple[ServerSpec, ...]
    rollout: Rollout = Rollout()
    agent: AgentRelease = AgentRelease()
    timing: Timing = Timing()
    database: DatabasePolicy = DatabasePolicy()
    leave_behind: tuple[str, ...] = ()
    watch: Watch = Watch()
    restart_stack: str = ""
    soak: timedelta = timedelta()
    """After each wave, its servers are watched for so long; zero: they are not."""
    notify: Notify = Notify()
    source: str = ""
    """Absolute path of the fleet file, for messages."""
    ignored_checks: tuple[str, ...] = ()
    """Codes of checks whose warnings are not shown at gates."""
    ignored_because: str = ""
    not_in_run: tuple[str, ...] = ()
    """Those of `servers` that `--limit` leaves out of this run: a later run upgrades them. A rollback takes all."""
    page: int = 50
    """Servers that one child workflow works on. A fleet of more servers is worked on in pages, so that the history of
    its workflow stays small. Part of the input, because a run must replay with the page that it began with."""

    @property
    def in_run(self) -> tuple[str, ...]:
        """Names of the servers that this run is about."""
        return tuple(server.name for server in self.servers if server.name not in self.not_in_run)

    @property
    def is_paged(self) -> bool:
        """Whether it has more servers than a page."""
        return len(self.servers) > self.page

    def server(self, name: str) -> ServerSpec:
        """The server of this name. Raises KeyError."""
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)
