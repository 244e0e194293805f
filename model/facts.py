"""What was found: facts and findings about Core and about each server. Produced by read-only activities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Severity(StrEnum):
    """What a finding means for the upgrade."""

    REFUSE = "refuse"
    WARN = "warn"
    INFO = "info"


HELD = "host-held"
"""Code of the finding that another run of the same fleet has not given Core's host back; its text names the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that preflight (or a later check) has to say."""

    code: str
    """Stable, kebab-case, for scripts: "agent-open", "duplicate-key"."""
    severity: Severity
    subject: str
    """A server's name, "core" or "fleet"."""
    text: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEdit:
    """One file that will change: digests and a masked diff, never contents."""

    path: str
    kind: str
    """compose | env | periphery-config"""
    base_sha256: str
    result_sha256: str
    """Of the result with the placeholder `{core_public_key}` where Core's key will be."""
    diff: str
    """Unified, secrets masked, at most 8 KiB."""
    reasons: tuple[str, ...] = ()
    with_key: bool = False
    """On Core's host: made once Core's key is known, on top of the edits before it."""


class Install(StrEnum):
    """How an agent is installed."""

    SYSTEMD = "systemd"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One agent's machine, as found. A server that could not be looked at has findings and little else."""

    name: str
    install: Install = Install.UNKNOWN
    reachable: bool = False
    current: bool = False
    """Already on the target, with a key pinned. Whether it is Core's is judged when the plan is made."""
    version: str = ""
    """Of the binary on disk, without v: "1.19.5"; empty: unknown."""
    running_version: str = ""
    """As the running agent's own journal says; empty: not running or not found."""
    arch: str = ""
    """x86_64 | aarch64"""
    os_name: str = ""
    glibc: str = ""
    openssl3: bool | None = None
    free_bytes: int = 0
    """On the file system of the binary."""
    clock_ahead: timedelta = timedelta()
    unit: str = ""
    unit_path: str = ""
    drop_ins: tuple[str, ...] = ()
    binary: str = ""
    binary_sha256: str = ""
    config_paths: tuple[str, ...] = ()
    user_unit: bool = False
    edits: tuple[PlannedEdit, ...] = ()
    """What pins Core's key. Of a server where some key is pinned, the plan keeps them only if it is not Core's."""
    pinned_keys: tuple[str, ...] = ()
    """One-line keys, and forms that only the agent itself resolves (`file:…`)."""
    open_today: bool = False
    """The running agent accepts any Core."""
    state_place: str = ""
    """Which folder of which machine `state_dir` is: equal for two names of one machine."""
    sources: tuple[str, ...] = ()
    """Where each path was found, for people: "binary /usr/local/bin/periphery, from ExecStart of periphery.service"."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeProject:
    """How Core's compose project is addressed. Found from the container's labels, or told by the fleet file."""

    name: str
    directory: str
    files: tuple[str, ...]
    env_file: str = ""
    """The one given with --env-file; empty: compose's own default (`.env` in the directory)."""
    command: tuple[str, ...] = ("docker", "compose")
    """("docker-compose",) for the old stand-alone tool."""
    run_from: str = ""
    """Folder commands are run from; empty: the directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """Where Core keeps its data. No credentials."""

    container: str = ""
    address: str = ""
    """host:port as Core uses it inside the project's network."""
    reach: str = ""
    """host:port as reached from the Core host itself (the container's address)."""
    name: str = "komodo"
    version: str = ""
    has_mongodump: bool = False
    ferretdb: bool = False
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownServer:
    """A Server as Core knows it."""

    name: str
    id: str
    address: str
    enabled: bool
    state: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """One Komodo service of the compose project (core, or the periphery beside it)."""

    service: str
    container: str
    image: str
    """As written in the container's config: ghcr.io/moghtech/komodo-core:latest"""
    image_id: str
    repo_digest: str = ""
    version: str = ""
    target_image: str = ""
    """What will be pulled: ghcr.io/moghtech/komodo-core:2.3.2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreFacts:
    """The Core host, as found."""

    reachable: bool = False
    state_place: str = ""
    """As of a server."""
    current: bool = False
    version: str = ""
    core: ServiceFacts | None = None
    agent: ServiceFacts | None = None
    """The `periphery` service of Core's own project, if there is one."""
    agent_server: str = ""
    """Komodo's Server name of that agent, if Core tells."""
    project: ComposeProject | None = None
    database: DatabaseFacts | None = None
    published: str = ""
    """host:port where Core answers on its own host."""
    core_port: int = 9120
    """Inside its container (KOMODO_PORT)."""
    core_ssl: bool = False
    """Core itself speaks https (KOMODO_SSL_ENABLED)."""
    keys_dir: str = ""
    """On the host, absolute; empty for a named volume."""
    docker_version: str = ""
    compose_version: str = ""
    free_bytes: int = 0
    monitoring_interval: timedelta = timedelta(seconds=15)
    api: bool = False
    """An API key works: Core's own view is available."""
    host_name: str = ""
    """The host part of KOMODO_HOST, which agents print at login."""
    public_key: str = ""
    """Where Core is v2 already and says it; else empty."""
    servers: tuple[KnownServer, ...] = ()
    busy: tuple[str, ...] = ()
    """Updates in progress, as "DeployStack web"."""
    edits: tuple[PlannedEdit, ...] = ()
    sources: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionCount:
    """Documents of one collection."""

    name: str
    documents: int
    digest: str = ""
    """Of their content, in whatever order they come; empty: only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpProof:
    """A dump was restored into a scratch database, which held what the source held."""

    at: datetime
    seconds: float
    notes: tuple[str, ...] = ()
    """What was tolerated, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePrint:
    """What Core's database held at one moment."""

    moment: str
    """before the upgrade | after the upgrade | after the rollback"""
    at: datetime
    collections: tuple[CollectionCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFacts:
    """A dump of Core's database that exists and was checked."""

    label: str
    """before | final | pre_rollback"""
    path: str
    """On the Core host."""
    bytes: int
    sha256: str
    collections: tuple[CollectionCount, ...]
    taken_at: datetime
    seconds: float
    method: str = "mongodump"
    """mongodump | km"""
    source: str = ""
    """On the Core host: the fingerprint of the database it was taken from."""
    proof: DumpProof | None = None

    @property
    def documents(self) -> int:
        """Of all collections together."""
        return sum(c.documents for c in self.collections)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """One file kept in the run's folder."""

    path: str
    """Where it lives."""
    saved_as: str
    """Absolute path of the copy in the run's folder."""
    sha256: str
    guide_name: str = ""
    """The copy beside the file with the guide's name (`….bak_v1`); empty for binaries and units."""
    note: str = ""
    """For people: "an older compose.env.bak_v1 was kept; tonight's is compose.env.bak_v1.20261123T220000Z"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What lies in the run's folder on one host, and how a person restores from it."""

    host: str
    folder: str
    files: tuple[SavedFile, ...]
    restore_command: str
    """The line a person types on that host."""
    taken_at: datetime
    notes: tuple[str, ...] = ()
