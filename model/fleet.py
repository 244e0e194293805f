"""The fleet as the workflows carry it: references instead of secrets, absolute paths, every default filled in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

TOGETHER = "together"
"""`[rollout] mode`: every agent is switched with Core, with a key of Core that was made beforehand."""
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
    api_key: SecretRef | None = None
    api_secret: SecretRef | None = None
    container: str = ""
    project: str = ""
    project_dir: str = ""
    compose_files: tuple[str, ...] = ()
    env_file: str = ""
    keys_mount: str = "bind"
    """bind: ./keys:/config/keys, as the guide prefers; volume: a named volume `keys`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One Server of Komodo and the machine its agent runs on."""

    name: str
    host: HostSpec
    install: str = "auto"
    """auto | systemd | systemd-user | container"""
    connection: str = "inbound"
    """inbound (Core connects to the agent) | outbound"""
    unit: str = "periphery.service"
    binary: str = ""
    """Empty: found from the unit."""
    config: str = ""
    """Empty: found from the unit."""
    dead_man: timedelta = timedelta()
    """After this time without a confirmation by Core the host puts its agent back by itself. 0: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRelease:
    """Where agent binaries come from and how they are put in place."""

    method: str = "binary"
    """binary: stage, prove, stop, rename, start; script: the official setup script, the old binary saved first."""
    download: str = "auto"
    """auto: the host itself, else pushed by the worker; host; worker."""
    url: str = "https://github.com/moghtech/komodo/releases/download/v{version}/periphery-{arch}"
    """{version} without v; {arch} is x86_64 or aarch64."""
    script_url: str = "https://raw.githubusercontent.com/moghtech/komodo/v{version}/scripts/setup-periphery.py"
    sha256: dict[str, str] = field(default_factory=dict)
    """arch -> expected digest. Empty: the release's own digest where GitHub gives one, else equal on all hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """In which portions servers are upgraded, who approves, and what a failure means."""

    mode: str = "waves"
    """waves | together (all agents with Core; then one portion and no gate but `core`)"""
    canary: int = 1
    wave: str = "1"
    """A count, or a share of the fleet such as "25%"."""
    approve: str = "each-wave"
    """each-server | each-wave | canary | core-only"""
    on_failure: str = "ask"
    """ask | go-on"""
    max_failures: int = 0
    """go-on: with more failed servers than this, ask all the same."""
    gate_reminder: timedelta = timedelta(hours=4)
    gate_timeout: timedelta = timedelta(days=3)
    on_gate_timeout: str = "hold"
    """hold | stop"""
    offline: str = "wait"
    """wait: a server that cannot be reached is set aside, looked at again after the others, upgraded when it returns;
    leave: one more look after the others, then it is left on v1; refuse: nothing begins without it."""
    offline_for: timedelta = timedelta(hours=24)
    """wait: counted from when the others are done."""
    offline_look: timedelta = timedelta(minutes=10)
    """Between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePolicy:
    """What is asked of a dump, and which way a rollback takes."""

    proof: str = "restore"
    """restore: every dump is restored into a scratch database and compared; count: it is counted only."""
    rollback: str = "restore"
    """restore: the final dump, what was written since is lost; keep: v1's form again, what was written since stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Every duration that a slow (or a test's) fleet may want changed."""

    core_ready: timedelta = timedelta(minutes=3)
    """From `up -d` until Core answers with the target version."""
    agent_ready: timedelta = timedelta(seconds=45)
    """From an agent's start until its journal has the version and the loaded config."""
    core_sees: timedelta = timedelta(seconds=90)
    """From an agent's start until Core says Ok with the target version."""
    poll: timedelta = timedelta(seconds=1)
    """Between two looks at a journal or at Core."""
    update_wait: timedelta = timedelta(minutes=15)
    """How long updates in progress are waited for before a person is asked."""
    heartbeat: timedelta = timedelta(seconds=10)
    """Silence after which a step's worker counts as dead."""
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
    """What is looked at after an upgrade. Zero: not at all."""

    lasts: timedelta = timedelta()
    """Zombies, servers, stats: for so long."""
    every: timedelta = timedelta(hours=1)
    backup_within: timedelta = timedelta()
    """By then the automatic backup of Core's database must have run once."""


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
    clocks: Clocks = Clocks()
    database: DatabasePolicy = DatabasePolicy()
    leave_behind: tuple[str, ...] = ()
    watch: Watch = Watch()
    restart_stack: str = ""
    notify_command: str = ""
    """Run on the worker with the message on standard input; empty: only logged."""
    source: str = ""
    """Absolute path of the fleet file, for messages."""

    def server(self, name: str) -> ServerSpec:
        """The server of this name. Raises KeyError."""
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)
