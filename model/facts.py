"""What was found: facts and findings about Core and about each server. Produced by read-only activities."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum

from model.fleet.spec import CoreSpec
from model.text.outside import single_line

LONGEST_FINDING = 4_000
"""Characters of a finding's text."""


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
    """One line: names in it come from outside and must not look like further findings."""
    hint: str = ""
    ignored: str = ""
    """Why its warning is ignored, as the fleet file says."""

    def __post_init__(self) -> None:
        """Keep the subject and the text on one line."""
        object.__setattr__(self, "subject", single_line(self.subject, 300))
        object.__setattr__(self, "text", single_line(self.text, LONGEST_FINDING))


KEY_FILE = "core-key"
"""Kind of the file with Core's key that an agent pins. It is written whatever it held, so its base is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEdit:
    """One file that will change: digests and a masked diff, never contents."""

    path: str
    kind: str
    """compose | env | periphery-config | KEY_FILE"""
    base_sha256: str
    result_sha256: str
    """Of the result with the placeholder `{core_public_key}` where Core's key will be."""
    diff: str
    """Unified, secrets masked, at most 8 KiB."""
    reasons: tuple[str, ...] = ()
    repository: str = ""
    """The git work tree that the file lies in."""
    hunks: tuple[str, ...] = ()
    """With a repository: the hunks of its patch, without secrets. Empty: a changed line could hold one."""
    with_key: bool = False
    """In a Compose project: made once Core's key is known, on top of the edits before it."""


class Install(StrEnum):
    """How an agent is installed."""

    SYSTEMD = "systemd"
    CONTAINER = "container"
    """A service of a Docker Compose project."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeProject:
    """How Core's compose project is addressed. Found from the container's labels, or given by the fleet file."""

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
class ServiceFacts:
    """One Komodo service of the compose project (core, or the periphery in its project)."""

    service: str
    container: str
    image: str
    """As written in the container's config: ghcr.io/moghtech/komodo-core:latest"""
    image_id: str
    repo_digest: str = ""
    version: str = ""
    target_image: str = ""
    """What will be pulled: ghcr.io/moghtech/komodo-core:2.3.2"""
    keys_to: str = ""
    """Its key pair lies inside of the container and is copied to this folder of the host. Empty: it does not."""
    target_digest: str = ""
    """That its manifest must have; empty until it is pulled, where the registry could not be asked before."""
    target_digest_source: str = ""
    """Where that digest comes from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """An agent that runs as a service of a Compose project: Core's own project, or any other one."""

    project: ComposeProject
    service: ServiceFacts
    services: tuple[str, ...] = ()
    """Services of Komodo in the project, whose `env_file:` is read to pin the key."""
    pin: PlannedEdit | None = None
    """In Core's project: gives it Core's key; listed among Core's edits. None: the file has the key."""
    in_core_project: bool = True
    """Its files are edited, saved and restored with Core's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One agent's machine, as found. A server that could not be surveyed has little more than findings."""

    name: str
    install: Install = Install.UNKNOWN
    reachable: bool = False
    current: bool = False
    """Already on the target, with a key pinned. Whether it is Core's is decided when the plan is made."""
    version: str = ""
    """Of the binary on disk, or of the container; without v: "1.19.5"; empty: unknown."""
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
    artifact_sha256: str = ""
    """That the new binary must have; empty if none is needed."""
    artifact_source: str = ""
    """Where that digest comes from, for people."""
    config_paths: tuple[str, ...] = ()
    user_unit: bool = False
    container: ContainerFacts | None = None
    """Set where it is installed as a container."""
    edits: tuple[PlannedEdit, ...] = ()
    """What pins Core's key. Of a server where some key is pinned, the plan keeps them only if it is not Core's."""
    repin: tuple[PlannedEdit, ...] = ()
    """What pins the one key that is written in the config by a file instead: the plan's edits if that key is Core's."""
    pinned_keys: tuple[str, ...] = ()
    """One-line keys, and references to files that hold one (`file:…`)."""
    file_keys: tuple[str, ...] = ()
    """The keys in these files."""
    outbound: bool = False
    """The agent connects to Core by itself."""
    connect_to: str = ""
    """Address of Core that the agent is to connect to after its switch; empty: its connection stays as it is."""
    open_today: bool = False
    """The running agent accepts any Core."""
    state_place: str = ""
    """Which folder of which machine `state_dir` is: equal for two names of one machine."""
    sources: tuple[str, ...] = ()
    """Where each path was found, for people: "binary /usr/local/bin/periphery, from ExecStart of periphery.service"."""
    findings: tuple[Finding, ...] = ()

    @property
    def in_core_project(self) -> bool:
        """It is the agent in Core's own Compose project."""
        return self.container is not None and self.container.in_core_project

    @property
    def edits_without_pin(self) -> tuple[PlannedEdit, ...]:
        """What remains to be edited where the agent has Core's key: a container's image, `init` and keys mount."""
        return tuple(e for e in self.edits if not e.with_key) if self.container else ()

    def with_finding(self, code: str, severity: Severity, text: str, hint: str) -> ServerFacts:
        """The facts with this finding, which replaces an earlier one with its code."""
        finding = Finding(code=code, severity=severity, subject=self.name, text=text, hint=hint)
        return replace(self, findings=(*(f for f in self.findings if f.code != code), finding))


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """Where Core keeps its data. No credentials."""

    container: str = ""
    image: str = ""
    image_id: str = ""
    """Of the running container, which no upgrade replaces."""
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

    @property
    def agent_name(self) -> str:
        """Name of the agent in Core's own project: of its Server, or its service where Core does not report one."""
        return self.agent_server or (self.agent.service if self.agent else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreInstallation(CoreFacts):
    """Core as every step on its host needs it: nothing that a survey without refusals finds is missing."""

    core: ServiceFacts
    project: ComposeProject
    database: DatabaseFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreRef:
    """Core as the fleet file and the survey know it, for steps that change how it reaches a server."""

    spec: CoreSpec
    facts: CoreFacts


def installation(facts: CoreFacts) -> CoreInstallation:
    """The same facts of a plan that nothing refused. Raises ValueError where one of the three is missing."""
    if facts.core is None or facts.project is None or facts.database is None:
        raise ValueError("a step on Core's host was planned without Core's container, project or database")
    return CoreInstallation(**{field.name: getattr(facts, field.name) for field in fields(CoreFacts)})


class DumpLabel(StrEnum):
    """When a dump is made; part of its file name."""

    BEFORE = "before"
    """While v1 runs: proves that a dump works, and how long it takes."""
    FINAL = "final"
    """Core v1 is stopped."""
    PRE_ROLLBACK = "pre_rollback"
    """Core v2 is stopped, before a rollback replaces the database."""


class DumpMethod(StrEnum):
    """The tool that dumps and restores the database."""

    MONGODUMP = "mongodump"
    KM = "km"
    """Komodo's own tool, in Core's image since 1.19.0."""


class Moment(StrEnum):
    """When a fingerprint of the database was taken."""

    BEFORE = "before the upgrade"
    AFTER = "after the upgrade"
    ROLLED_BACK = "after the rollback"


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
class DatabaseFingerprint:
    """What Core's database held at one moment."""

    moment: Moment
    at: datetime
    collections: tuple[CollectionCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFacts:
    """A dump of Core's database that exists and was checked."""

    label: DumpLabel
    path: str
    """On the Core host."""
    bytes: int
    sha256: str
    collections: tuple[CollectionCount, ...]
    taken_at: datetime
    seconds: float
    method: DumpMethod = DumpMethod.MONGODUMP
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
    """The copy next to the file with the guide's name (`….bak_v1`); empty for binaries and units."""
    note: str = ""
    """As text: "an older compose.env.bak_v1 was kept; the copy of this run is compose.env.bak_v1.20261123T220000Z"."""


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


def agent_backup(core: Backup) -> Backup:
    """The backup of the agent in Core's own project: Core's, with the command that restores the agent alone."""
    return replace(core, restore_command=f"{core.restore_command} agent")
