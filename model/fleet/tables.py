"""The tables of fleet.toml as pydantic models, and how they become a FleetSpec."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from model.fleet.spec import (
    AgentInstall,
    AgentMethod,
    AgentRelease,
    Approval,
    Connection,
    CoreFiles,
    CoreSpec,
    DatabasePolicy,
    DatabaseRollback,
    Download,
    Event,
    FailurePolicy,
    FleetSpec,
    HostSpec,
    KeysMount,
    Notify,
    OfflinePolicy,
    Pin,
    ProofPolicy,
    Rollout,
    RolloutMode,
    SecretRef,
    ServerSpec,
    Sudo,
    TimeoutPolicy,
    Timing,
    Watch,
    slug,
)
from model.fleet.values import (
    REFERENCES,
    AgentsUrl,
    CheckName,
    Digest,
    DownloadUrl,
    Duration,
    DurationOrOff,
    EnvName,
    FileList,
    FleetName,
    HostName,
    Jump,
    Label,
    Mode,
    RemotePath,
    ServerName,
    SudoSetting,
    Target,
    Text,
    Url,
    UserName,
    WaveSize,
    WindowList,
)


class Table(BaseModel):
    """Strict: unknown keys and wrong types are errors, never guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Ssh(Table):
    """How hosts are reached. In `[ssh]` for all of them; in `[core]` and `[[server]]` for one."""

    user: UserName | None = Field(None, description="remote user; left out: as ~/.ssh/config says, else your own name")
    port: int | None = Field(None, ge=1, le=65535, description="SSH port; left out: as ~/.ssh/config says, else 22")
    key_files: FileList | None = Field(None, description="private keys; left out: ~/.ssh/config, the agent, the usual")
    passphrase_env: EnvName | None = Field(None, description="variable that holds the passphrase of an encrypted key")
    passphrase_file: Text | None = Field(None, description="file that holds the passphrase")
    passphrase_command: Text | None = Field(None, description="command that prints the passphrase")
    known_hosts: Text | None = Field(None, description="file of host keys; checking them cannot be switched off")
    ssh_config: Text | None = Field(None, description='OpenSSH client config; "none": read no config')
    jump: Jump | None = Field(None, description='[user@]host[:port] of a jump host; "none": straight')
    sudo: SudoSetting | None = Field(None, description="how a command becomes root")
    state_dir: RemotePath | None = Field(None, description="where backups and job state live on the host")
    connect_timeout: Duration | None = Field(None, description="how long a connection may take")


class FleetTable(Table):
    """The fleet's name and its target version."""

    name: FleetName = Field(description="one upgrade runs per name")
    target: Target = Field(description='an exact version; "2" and "2.3" mean the newest known of that line')


class CoreTable(Ssh):
    """Komodo Core and its host."""

    host: HostName = Field(description="name or address that SSH connects to")
    url: Url | None = Field(None, description="left out: Core's published port through the SSH connection")
    agents_url: AgentsUrl | None = Field(None, description="under which address agents reach Core that connect to it")
    api_key_env: EnvName | None = Field(None, description="variable that holds an admin's API key")
    api_key_file: Text | None = None
    api_key_command: Text | None = None
    api_secret_env: EnvName | None = Field(None, description="variable that holds the API key's secret")
    api_secret_file: Text | None = None
    api_secret_command: Text | None = None
    container: Text | None = Field(None, description="left out: found by its image")
    project: Text | None = Field(None, description="left out: from the container's compose labels, as are the next")
    project_dir: RemotePath | None = None
    compose_files: list[RemotePath] | None = None
    env_file: RemotePath | None = None
    files: Literal["edit", "external"] = Field(
        "edit",
        description="external: others make the edits, with the patch of `plan --patch`; the upgrade expects them",
    )
    keys_mount: Literal["bind", "volume"] = Field("bind", description="./keys next to compose.yaml, or a named volume")


class ServerTable(Ssh):
    """One Server of Komodo."""

    name: ServerName = Field(description="exactly as Komodo shows it")
    host: HostName = Field(description="name or address that SSH connects to")
    install: Literal["auto", "systemd", "systemd-user", "container"] = "auto"
    connection: Literal["auto", "inbound", "outbound"] = Field(
        "auto", description="auto: stays as it is; inbound: Core connects to the agent; outbound: the agent to Core"
    )
    unit: Text = "periphery.service"
    binary: RemotePath | None = Field(None, description="left out: found from the unit")
    config: RemotePath | None = Field(None, description="left out: found from the unit")
    labels: list[Label] = Field(default_factory=list, max_length=50, description="for [rollout] order: label:NAME")
    auto_rollback: DurationOrOff | None = Field(None, description="left out: as [rollout] says")


class RolloutTable(Table):
    """The waves, who approves, and what a failure means."""

    mode: Mode = Field(
        "waves", description="all-at-once: all agents with Core, whose key is made in advance; no canary"
    )
    canary: int = Field(1, ge=0, le=1000, description="servers before the first wide wave")
    wave: WaveSize = Field("1", description='servers at a time after that; "25%" works too')
    approve: Literal["each-server", "each-wave", "canary", "core-only"] = "each-wave"
    on_failure: Literal["ask", "continue"] = "ask"
    max_failures: int = Field(0, ge=0, le=10_000, description="with on_failure = continue: with more, ask all the same")
    gate_reminder: Duration = timedelta(hours=4)
    gate_timeout: Duration = timedelta(days=3)
    on_gate_timeout: Literal["hold", "stop"] = "hold"
    offline: Literal["wait", "leave", "refuse"] = Field("wait", description="what to do about a server that is offline")
    offline_for: Duration = Field(timedelta(hours=24), description="how long to wait for it, after the others")
    offline_check: Duration = Field(timedelta(minutes=10), description="between two checks")
    auto_rollback: DurationOrOff = Field(
        timedelta(), description="a host restores its old agent after this time unless Core has confirmed the new one"
    )
    window: WindowList = Field(
        default_factory=list, description='Core and waves begin only then: "Sat,Sun 22:00-05:00 Europe/Berlin"'
    )
    order: list[ServerName] = Field(
        default_factory=list, max_length=1000, description='"label:NAME", a server\'s name, or "*" for all others'
    )
    leave_behind: list[ServerName] = Field(default_factory=list, description="Servers that stay on v1 on purpose")


class VerifyTable(Table):
    """Checks beyond reading."""

    restart_stack: Text | None = Field(None, description="the guide's end-to-end check: this Stack is restarted")
    soak: DurationOrOff = Field(
        timedelta(), description="after each wave, its servers are watched for so long before the next one begins"
    )


class ChecksTable(Table):
    """Warnings that are known and accepted."""

    ignore: list[CheckName] = Field(default_factory=list, description="ids or codes of checks that warn: KU023")
    reason: Text | None = Field(None, description="why; the report shows it")

    @model_validator(mode="after")
    def _has_reason(self) -> ChecksTable:
        if self.ignore and not self.reason:
            raise ValueError("ignore needs a reason, which the report shows")
        return self


class AgentTable(Table):
    """Where agent binaries come from."""

    method: Literal["binary", "script"] = "binary"
    pin: Literal["file", "inline"] = Field(
        "file",
        description="Core's key in <root_directory>/keys/core.pub, which key rotations replace; or in the config",
    )
    download: Literal["auto", "host", "worker"] = "auto"
    url: DownloadUrl = AgentRelease().url
    script_url: DownloadUrl = AgentRelease().script_url
    sha256: dict[Literal["x86_64", "aarch64"], Digest] = Field(default_factory=dict)


class DatabaseTable(Table):
    """How dumps of Core's database are verified, and what a rollback restores."""

    proof: Literal["restore", "count"] = Field("restore", description="into a scratch database, or only counted")
    rollback: Literal["restore", "keep"] = Field(
        "restore", description="the final dump, or what was written since is kept in v1's form"
    )


class WatchTable(Table):
    """What is checked after an upgrade."""

    lasts: DurationOrOff = Field(timedelta(hours=6), description="zombies, servers, stats: for so long")
    every: Duration = Field(timedelta(hours=1), description="between two checks")
    backup_within: DurationOrOff = Field(timedelta(hours=26), description="by then the automatic backup must have run")


class NotifyTable(Table):
    """Who is notified, and of what."""

    command: Text | None = Field(None, description="runs on the worker with the message on its standard input")
    urls_env: EnvName | None = Field(None, description="variable that holds addresses as Apprise reads them")
    urls_file: Text | None = Field(None, description="the same in a file, one per line: ntfys://…, mailtos://…")
    urls_command: Text | None = Field(None, description="the same, printed by a command")
    events: list[Literal["gate", "reminder", "failure", "end", "watch"]] = Field(
        ["gate", "reminder", "failure", "end", "watch"], min_length=1, description="what people are notified of"
    )
    dashboard: Url | None = Field(None, description="address of your dashboard, which messages link to")


_DEFAULTS = Timing()
_HOST_DEFAULTS = HostSpec(name="", address="")
_STATE_DIR, _CONNECT_TIMEOUT = _HOST_DEFAULTS.state_dir, _HOST_DEFAULTS.connect_timeout
TimingTable: Any = create_model(
    "TimingTable",
    __base__=Table,
    __doc__="Every duration that a slow fleet may want changed.",
    **{f.name: (Duration, getattr(_DEFAULTS, f.name)) for f in fields(Timing)},  # type: ignore[call-overload]
)


class FleetFile(Table):
    """fleet.toml of komodo-upgrade."""

    fleet: FleetTable
    ssh: Ssh = Ssh()
    core: CoreTable
    rollout: RolloutTable = RolloutTable()
    verify: VerifyTable = VerifyTable()
    checks: ChecksTable = ChecksTable()
    watch: WatchTable = WatchTable()
    agent: AgentTable = AgentTable()
    database: DatabaseTable = DatabaseTable()
    notify: NotifyTable = NotifyTable()
    timing: TimingTable = TimingTable()
    server: list[ServerTable] = Field(default_factory=list)


def to_spec(file: FleetFile, path: Path) -> FleetSpec:
    """Defaults merged, local paths made absolute (relative to the file's folder, `~` is the home)."""
    build = _Build(file, path.parent)
    agent = file.agent
    core = build.core(file.core)
    return FleetSpec(
        name=file.fleet.name,
        target=file.fleet.target,
        core=core,
        servers=_separate_state_folders(core.host, tuple(build.server(table) for table in file.server)),
        rollout=_rollout(file.rollout),
        agent=AgentRelease(
            method=AgentMethod(agent.method),
            pin=Pin(agent.pin),
            download=Download(agent.download),
            url=agent.url,
            script_url=agent.script_url,
            sha256={str(arch): value for arch, value in sorted(agent.sha256.items())},
        ),
        timing=Timing(**file.timing.model_dump()),
        database=DatabasePolicy(
            proof=ProofPolicy(file.database.proof), rollback=DatabaseRollback(file.database.rollback)
        ),
        leave_behind=tuple(file.rollout.leave_behind),
        watch=Watch(**file.watch.model_dump()),
        restart_stack=file.verify.restart_stack or "",
        soak=file.verify.soak,
        notify=Notify(
            command=file.notify.command or "",
            urls=build.reference(file.notify, "urls"),
            events=tuple(Event(event) for event in file.notify.events),
            dashboard=(file.notify.dashboard or "").rstrip("/"),
        ),
        source=str(path),
        ignored_checks=tuple(file.checks.ignore),
        ignored_because=file.checks.reason or "",
    )


def _separate_state_folders(core: HostSpec, servers: tuple[ServerSpec, ...]) -> tuple[ServerSpec, ...]:
    """Give servers on one host a state folder each, also the agent on Core's host: each folder has one restore.sh."""
    taken = {_place(core)}
    found = []
    for server in servers:
        host = server.host
        if _place(host) in taken:
            host = replace(host, state_dir=f"{host.state_dir}-{slug(server.name)}")
        taken.add(_place(host))
        found.append(replace(server, host=host))
    return tuple(found)


def _place(host: HostSpec) -> tuple[object, ...]:
    return host.address, host.port, host.jump, host.state_dir


def _rollout(table: RolloutTable) -> Rollout:
    """With `all-at-once` all servers are one wave, and there is no gate after `core`."""
    rollout = Rollout(
        mode=RolloutMode(table.mode),
        canary=table.canary,
        wave=table.wave,
        approve=Approval(table.approve),
        on_failure=FailurePolicy(table.on_failure),
        max_failures=table.max_failures,
        gate_reminder=table.gate_reminder,
        gate_timeout=table.gate_timeout,
        on_gate_timeout=TimeoutPolicy(table.on_gate_timeout),
        offline=OfflinePolicy(table.offline),
        offline_for=table.offline_for,
        offline_check=table.offline_check,
        window=tuple(table.window),
        order=tuple(table.order),
    )
    if rollout.mode is RolloutMode.WAVES:
        return rollout
    return replace(rollout, canary=0, wave="100%", approve=Approval.CORE_ONLY)


class _Build:
    """Applies the file's folder and the `[ssh]` defaults to every host."""

    def __init__(self, file: FleetFile, folder: Path) -> None:
        self.defaults = file.ssh
        self.auto_rollback: timedelta = file.rollout.auto_rollback
        self.folder = folder

    def local(self, text: str) -> str:
        return str((self.folder / Path(text).expanduser()).resolve()) if text else ""

    def reference(self, table: Table, name: str) -> SecretRef | None:
        values = {kind: getattr(table, f"{name}_{kind}") or "" for kind in REFERENCES}
        if not any(values.values()):
            return None
        return SecretRef(env=values["env"], file=self.local(values["file"]), command=values["command"])

    def host(self, name: str, address: str, table: Ssh) -> HostSpec:
        def pick(key: str) -> Any:
            own = getattr(table, key)
            return getattr(self.defaults, key) if own is None else own

        sudo, password = pick("sudo") or (Sudo.PASSWORDLESS, None)
        if password is not None and password.file:
            password = SecretRef(file=self.local(password.file))
        config = pick("ssh_config") or ""
        jump = pick("jump") or ""
        timeout: timedelta | None = pick("connect_timeout")
        return HostSpec(
            name=name,
            address=address,
            port=pick("port") or 0,
            user=pick("user") or "",
            key_files=tuple(self.local(file) for file in pick("key_files") or ()),
            passphrase=self.reference(table, "passphrase") or self.reference(self.defaults, "passphrase"),
            known_hosts=self.local(pick("known_hosts") or ""),
            ssh_config=config if config == "none" else self.local(config),
            jump="" if jump == "none" else jump,
            sudo=sudo,
            sudo_password=password,
            state_dir=pick("state_dir") or _STATE_DIR,
            connect_timeout=timeout or _CONNECT_TIMEOUT,
        )

    def core(self, table: CoreTable) -> CoreSpec:
        return CoreSpec(
            host=self.host("core", table.host, table),
            url=table.url or "",
            agents_url=table.agents_url or "",
            api_key=self.reference(table, "api_key"),
            api_secret=self.reference(table, "api_secret"),
            container=table.container or "",
            project=table.project or "",
            project_dir=table.project_dir or "",
            compose_files=tuple(table.compose_files or ()),
            env_file=table.env_file or "",
            keys_mount=KeysMount(table.keys_mount),
            files=CoreFiles(table.files),
        )

    def server(self, table: ServerTable) -> ServerSpec:
        return ServerSpec(
            name=table.name,
            host=self.host(table.name, table.host, table),
            install=AgentInstall(table.install),
            connection=Connection(table.connection),
            unit=table.unit,
            binary=table.binary or "",
            config=table.config or "",
            labels=tuple(table.labels),
            auto_rollback=self.auto_rollback if table.auto_rollback is None else table.auto_rollback,
        )
