"""The tables of fleet.toml as pydantic models, and how they become a FleetSpec."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from model.fleet import (
    TOGETHER,
    AgentRelease,
    Clocks,
    CoreSpec,
    DatabasePolicy,
    FleetSpec,
    HostSpec,
    Rollout,
    SecretRef,
    ServerSpec,
    Sudo,
    Watch,
    slug,
)
from model.fleet_values import (
    REFERENCES,
    Digest,
    DownloadUrl,
    Duration,
    DurationOrOff,
    EnvName,
    FileList,
    FleetName,
    HostName,
    Jump,
    Mode,
    RemotePath,
    ServerName,
    SudoSetting,
    Target,
    Text,
    Url,
    WaveSize,
)


class Table(BaseModel):
    """Strict: unknown keys and wrong types are errors, never guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Ssh(Table):
    """How hosts are reached. In `[ssh]` for all of them; in `[core]` and `[[server]]` for one."""

    user: Text | None = Field(None, description="remote user; left out: as ~/.ssh/config says, else your own name")
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
    """The fleet's name and where it goes."""

    name: FleetName = Field(description="one upgrade runs per name")
    target: Target = Field(description='an exact version; "2" and "2.3" mean the newest known of that line')


class CoreTable(Ssh):
    """Komodo Core and its host."""

    host: HostName = Field(description="name or address that SSH connects to")
    url: Url | None = Field(None, description="left out: Core's published port through the SSH connection")
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
    keys_mount: Literal["bind", "volume"] = Field("bind", description="./keys beside compose.yaml, or a named volume")


class ServerTable(Ssh):
    """One Server of Komodo."""

    name: ServerName = Field(description="exactly as Komodo shows it")
    host: HostName = Field(description="name or address that SSH connects to")
    install: Literal["auto", "systemd", "systemd-user", "container"] = "auto"
    connection: Literal["inbound", "outbound"] = Field("inbound", description="inbound: Core connects to the agent")
    unit: Text = "periphery.service"
    binary: RemotePath | None = Field(None, description="left out: found from the unit")
    config: RemotePath | None = Field(None, description="left out: found from the unit")
    dead_man: DurationOrOff | None = Field(None, description="left out: as [rollout] says")


class RolloutTable(Table):
    """In which portions, who approves, and what a failure means."""

    mode: Mode = Field("waves", description="together: all agents with Core, their key made beforehand; no canary")
    canary: int = Field(1, ge=0, le=1000, description="servers before the first wide wave")
    wave: WaveSize = Field("1", description='servers at a time after that; "25%" works too')
    approve: Literal["each-server", "each-wave", "canary", "core-only"] = "each-wave"
    on_failure: Literal["ask", "go-on"] = "ask"
    max_failures: int = Field(0, ge=0, description="with on_failure = go-on: with more, ask all the same")
    gate_reminder: Duration = timedelta(hours=4)
    gate_timeout: Duration = timedelta(days=3)
    on_gate_timeout: Literal["hold", "stop"] = "hold"
    offline: Literal["wait", "leave", "refuse"] = Field("wait", description="what a server that is away means")
    offline_for: Duration = Field(timedelta(hours=24), description="how long it is waited for, after the others")
    offline_look: Duration = Field(timedelta(minutes=10), description="between two looks")
    dead_man: DurationOrOff = Field(
        timedelta(), description="a host puts its agent back by itself unless Core confirms it"
    )
    leave_behind: list[ServerName] = Field(default_factory=list, description="Servers that stay on v1 on purpose")


class VerifyTable(Table):
    """Checks beyond reading."""

    restart_stack: Text | None = Field(None, description="the guide's end-to-end check: this Stack is restarted")


class AgentTable(Table):
    """Where agent binaries come from."""

    method: Literal["binary", "script"] = "binary"
    download: Literal["auto", "host", "worker"] = "auto"
    url: DownloadUrl = AgentRelease().url
    script_url: DownloadUrl = AgentRelease().script_url
    sha256: dict[Literal["x86_64", "aarch64"], Digest] = Field(default_factory=dict)


class DatabaseTable(Table):
    """How dumps of Core's database are proven, and which way a rollback takes."""

    proof: Literal["restore", "count"] = Field("restore", description="into a scratch database, or only counted")
    rollback: Literal["restore", "keep"] = Field(
        "restore", description="the final dump, or what was written since is kept in v1's form"
    )


class WatchTable(Table):
    """What is looked at after an upgrade."""

    lasts: DurationOrOff = Field(timedelta(hours=6), description="zombies, servers, stats: for so long")
    every: Duration = Field(timedelta(hours=1), description="between two looks")
    backup_within: DurationOrOff = Field(timedelta(hours=26), description="by then the automatic backup must have run")


class NotifyTable(Table):
    """Who is told about gates and the end."""

    command: Text | None = Field(None, description="run on the worker, the message on its standard input")


_DEFAULTS = Clocks()
_HOST_DEFAULTS = HostSpec(name="", address="")
_STATE_DIR, _CONNECT_TIMEOUT = _HOST_DEFAULTS.state_dir, _HOST_DEFAULTS.connect_timeout
TimingTable: Any = create_model(
    "TimingTable",
    __base__=Table,
    __doc__="Every duration that a slow fleet may want changed.",
    **{f.name: (Duration, getattr(_DEFAULTS, f.name)) for f in fields(Clocks)},  # type: ignore[call-overload]
)


class FleetFile(Table):
    """fleet.toml of komodo-upgrade."""

    fleet: FleetTable
    ssh: Ssh = Ssh()
    core: CoreTable
    rollout: RolloutTable = RolloutTable()
    verify: VerifyTable = VerifyTable()
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
        servers=_apart(core.host, tuple(build.server(table) for table in file.server)),
        rollout=_rollout(file.rollout),
        agent=AgentRelease(
            method=agent.method,
            download=agent.download,
            url=agent.url,
            script_url=agent.script_url,
            sha256={str(arch): value for arch, value in sorted(agent.sha256.items())},
        ),
        clocks=Clocks(**file.timing.model_dump()),
        database=DatabasePolicy(**file.database.model_dump()),
        leave_behind=tuple(file.rollout.leave_behind),
        watch=Watch(**file.watch.model_dump()),
        restart_stack=file.verify.restart_stack or "",
        notify_command=file.notify.command or "",
        source=str(path),
    )


def _apart(core: HostSpec, servers: tuple[ServerSpec, ...]) -> tuple[ServerSpec, ...]:
    """An agent under systemd on Core's host keeps its backups in a folder of its own: each has its one restore.sh."""
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
    """With `together` all servers are one portion, and nobody is asked after gate `core`."""
    rollout = Rollout(**table.model_dump(exclude={"leave_behind", "dead_man"}))
    return replace(rollout, canary=0, wave="100%", approve="core-only") if rollout.mode == TOGETHER else rollout


class _Build:
    """Carries the file's folder and the `[ssh]` defaults to every host."""

    def __init__(self, file: FleetFile, folder: Path) -> None:
        self.defaults = file.ssh
        self.dead_man: timedelta = file.rollout.dead_man
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
            api_key=self.reference(table, "api_key"),
            api_secret=self.reference(table, "api_secret"),
            container=table.container or "",
            project=table.project or "",
            project_dir=table.project_dir or "",
            compose_files=tuple(table.compose_files or ()),
            env_file=table.env_file or "",
            keys_mount=table.keys_mount,
        )

    def server(self, table: ServerTable) -> ServerSpec:
        return ServerSpec(
            name=table.name,
            host=self.host(table.name, table.host, table),
            install=table.install,
            connection=table.connection,
            unit=table.unit,
            binary=table.binary or "",
            config=table.config or "",
            dead_man=self.dead_man if table.dead_man is None else table.dead_man,
        )
