"""A whole simulated fleet in one process: `Sandbox.start`, faults, what was run where.

Simplified, besides what the parts document: all users of a host are one real user (there is no chroot), so file
permissions refuse nothing; kernel, clock and disks are those of the machine that it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import asyncssh

from sandbox import fleet_file, releases, seed_containers, seed_v2
from sandbox.docker import processes
from sandbox.docker.compose_cli import run as compose
from sandbox.docker.engine import Container, Engine
from sandbox.faults import Fault
from sandbox.handlers import handlers
from sandbox.komodo_core import seed_documents
from sandbox.komodo_core.core import Core
from sandbox.komodo_core.program import CoreProgram
from sandbox.machine import shims, stand_ins
from sandbox.machine.call import Call
from sandbox.machine.control import Control
from sandbox.machine.disks import FULL, READ_ONLY
from sandbox.machine.host import SandboxHost
from sandbox.machine.ssh import SshHost
from sandbox.mongo.program import database_of
from sandbox.mongo.store import Store
from sandbox.mongo.wire import MongoServer
from sandbox.seed_files import SHAPES, Secrets, invent_secrets, server_name, write_agent, write_project
from sandbox.web import Request, Response, WebServer
from sandbox.world import Recorded, World, address_of, free_net, now

CORE = "core"
_BAD_DISKS = {"disk-full": FULL, "read-only": READ_ONLY}
API_KEY = "K-sandbox-komodo-upgrade"


class Sandbox:
    """A running fleet. Use `async with await Sandbox.start(folder) as sandbox:`."""

    def __init__(self, folder: Path, world: World, secrets_of: Secrets) -> None:
        self.folder = folder
        self.world = world
        self.hosts: dict[str, SandboxHost] = {}
        self.own_secrets = secrets_of
        self.fleet_file = folder / "fleet.toml"
        self.api_key = API_KEY
        self._ssh: dict[str, SshHost] = {}
        self._control = Control(Path(tempfile.mkdtemp(prefix="kus-")))
        self._site = WebServer(self._release_site)
        world.watchers.append(self._drop_on_command)
        self.engines: dict[str, Engine] = {}
        """By host; Core's among them."""
        self._changes: list[asyncio.Task[Any]] = []
        self._client_key = asyncssh.generate_private_key("ssh-ed25519")

    # --- what tests read ----------------------------------------------------------------------------------------------

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of the fleet."""
        return (*self.own_secrets.all(), *self.world.minted)

    @property
    def journal(self) -> list[Recorded]:
        """Every command of the stand-ins, on all hosts, in order."""
        return self.world.journal

    def mutations(self, host: str = "") -> list[Recorded]:
        """Commands that change something."""
        return [r for r in self.journal if r.mutating and host in ("", r.host)]

    @property
    def core(self) -> Core | None:
        """The running Core, if there is one."""
        for container in self.engine.containers.values():
            if isinstance(container.program, CoreProgram):
                return container.program.core
        return None

    database = "mongo"
    """mongo | ferretdb"""
    files = "v1"
    """v1 | v2 | v2-keys-inside"""
    outbound: tuple[str, ...] = ()
    """Servers whose agents connect to Core by themselves; only with files of v2."""

    containers: Mapping[str, str] = MappingProxyType({})
    """Host → shape of its agent's container (sandbox/seed_containers.py); the other agents run under systemd."""

    @property
    def engine(self) -> Engine:
        """Docker on Core's host."""
        return self.engines[CORE]

    @property
    def store(self) -> Store:
        """Everything in the simulated mongod."""
        return next(iter(self.world.stores.values()))

    @property
    def database_server(self) -> MongoServer:
        """The listening mongod."""
        found = [s for c in self.engine.containers.values() if (s := database_of(c))]
        return found[0]

    def agent_version(self, host: str) -> str:
        """Of the running agent; empty when none runs."""
        if host in self.containers:
            agent = self.agent_container(host)
            return agent.image.version if agent.status == "running" else ""
        service = self.hosts[host].systemd.find("periphery.service")
        return service.agent.version if service and service.agent and service.agent.running else ""

    def agent_container(self, host: str) -> Container:
        """The agent's container on a host that has one."""
        found = [c for c in self.engines[host].containers.values() if c.image.program == "periphery" and c.started]
        return found[0]

    def logs(self, host: str) -> list[str]:
        """The agent's journal, or its container's log."""
        if host in self.containers:
            return [text for _, _, text in self.agent_container(host).logs]
        return [e.text for e in self.hosts[host].journal.of("periphery.service")]

    # --- faults -------------------------------------------------------------------------------------------------------

    def fault(self, name: str, host: str = "", **options: Any) -> Fault:
        """Switch a fault on (see sandbox/faults.py for the table). Host "" means every host."""
        fault = self.world.faults.set(name, host, options)
        for one in self._named(host):
            if name in _BAD_DISKS:
                one.break_disk(_BAD_DISKS[name], str(options.get("path", "")), int(options.get("at", 1)))
            elif name == "clock-jump":
                shims.set_clock(one, int(options.get("seconds", 3600)))
            elif name == "old-libc":
                (one.root / ".old-libc").touch()
            elif name in {"unreachable", "hang", "host-key-changed"}:
                self._changes.append(self.world.spawn(self._break_ssh(name, one.name)))
        self._settle_shims()
        return fault

    def heal(self, name: str = "", host: str = "") -> None:
        """Switch faults off. A changed host key stays changed, an exchanged Core key too."""
        for fault in self.world.faults.heal(name, host):
            for one in self._named(fault.host):
                if fault.name in _BAD_DISKS:
                    one.empty_disk()
                elif fault.name == "clock-jump":
                    shims.set_clock(one, 0)
                elif fault.name == "old-libc":
                    (one.root / ".old-libc").unlink(missing_ok=True)
                elif fault.name in {"unreachable", "hang"}:
                    self._changes.append(self.world.spawn(self._repair_ssh(one.name)))
        self._settle_shims()

    def _settle_shims(self) -> None:
        for host in self.hosts.values():
            stand_ins.settle(host)

    def kill_connections(self, host: str = "") -> None:
        """Cut every open SSH connection now."""
        for one in self._named(host):
            self._ssh[one.name].cut()

    def prune_images(self, host: str = CORE) -> list[str]:
        """What Komodo does every day: remove the images that no container uses. Returns their references."""
        used = {c.image.id for c in self.engines[host].containers.values()}
        images = self.engines[host].store.images
        gone = [image for image in images.values() if image.id not in used]
        for image in gone:
            del images[image.id]
        return sorted(f"{image.repository}:{tag}" for image in gone for tag in image.tags)

    async def reboot(self, host: str) -> None:
        """Power off and on: every process gone, units and containers back, connections cut."""
        machine = self.hosts[host]
        self._ssh[host].cut()
        self._end_processes(host)
        machine.sudo_seen.clear()
        for service in machine.systemd.services.values():
            await machine.systemd.stop(service)
        engine = self.engines.get(host)
        running = [(engine, c) for c in engine.containers.values() if c.wanted] if engine else []
        for docker, container in running:
            await docker.stop(container)
        machine.systemd.booted = now().timestamp()
        for service in machine.systemd.services.values():
            if machine.systemd.enabled(service) == "enabled":
                await machine.systemd.start(service)
        for docker, container in running:
            if container.spec.restart in {"unless-stopped", "always"}:
                await docker.start(container)

    def _drop_on_command(self, host: str, argv: tuple[str, ...]) -> None:
        """Fault connection-drop with `on`."""
        fault = self.world.faults.on("connection-drop", host)
        wanted = str(fault.options.get("on", "")) if fault else ""
        if wanted and " ".join(argv).startswith(wanted):
            self.world.faults.strike("connection-drop", host)
            self._ssh[host].cut()

    async def settled(self) -> None:
        """Wait until the changes that `fault` and `heal` started are done."""
        await asyncio.gather(*self._changes)

    async def _break_ssh(self, name: str, host: str) -> None:
        server = self._ssh[host]
        if name == "unreachable":
            await server.stop()
        elif name == "hang":
            await server.mute()
        else:
            await server.new_host_key()

    async def _repair_ssh(self, host: str) -> None:
        await self._ssh[host].stop()
        await self._ssh[host].start()

    def _named(self, host: str) -> list[SandboxHost]:
        return [self.hosts[host]] if host else list(self.hosts.values())

    # --- start and stop -----------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        servers: int = 5,
        core_version: str = "1.19.5",
        agent_version: str = "1.19.5",
        speed: float = 1.0,
        monitoring_interval: str = "1-sec",
        core_url: str = "https://komodo.example.com",
        target: str = "2.3.2",
        database: str = "mongo",
        files: str = "v1",
        outbound: tuple[str, ...] = (),
        containers: Mapping[str, str] | None = None,
    ) -> Sandbox:
        """Build the hosts' folders below `folder` and bring everything up. `database`: mongo | ferretdb.

        `files`: v1 | v2 | v2-keys-inside, the shape of Core's project and of the agents' configurations.
        `containers`: host → shape of its agent's container (sandbox/seed_containers.py).
        """
        folder = Path(os.path.abspath(folder))  # noqa: ASYNC240, PTH100
        folder.mkdir(parents=True, exist_ok=True)
        world = World(id=secrets.token_hex(8), net=await free_net(), speed=speed)
        sandbox = cls(folder, world, invent_secrets())
        world.commands_file = folder / "commands.jsonl"
        sandbox.database, sandbox.files, sandbox.outbound = database, files, outbound
        sandbox.containers = containers or {}
        world.api_secret = sandbox.own_secrets.api_secret
        try:
            await sandbox._build(servers, core_version, agent_version, monitoring_interval, core_url, target)
        except BaseException:
            await sandbox.stop()
            raise
        return sandbox

    async def _build(
        self, servers: int, core_version: str, agent_version: str, interval: str, url: str, target: str
    ) -> None:
        core = self._host(CORE, 1)
        self.engines[CORE] = Engine(core, processes.run)
        for position in range(servers):
            self._host(server_name(position), 11 + position)
        await self._control.start()
        port = await self._site.start(f"{self.world.net}.2", 0)
        self.world.releases.base = f"http://{self.world.net}.2:{port}"
        binary = releases.binary(agent_version, platform.machine())
        for position, host in enumerate(self._servers()):
            shape = SHAPES[position] if position < len(SHAPES) else "plain"
            if shape == "sudo":
                host.sudo, host.sudo_password = "password", self.own_secrets.sudo_password
            if host.name not in self.containers:
                write_agent(host.root, shape, binary=binary, core=core.address, secrets=self.own_secrets)
        for number, (name, shape) in enumerate(self.containers.items()):
            engine = self.engines[name] = Engine(self.hosts[name], processes.run, first=130 + 20 * number)
            engine.old_compose = shape == "config"
        for host in self.hosts.values():
            self._control.add(host, handlers(self.engines.get(host.name)))
            key = asyncssh.generate_private_key("ssh-ed25519")
            self._ssh[host.name] = SshHost(host, self._client_key, key)
            await self._ssh[host.name].start()
        for host in self._servers():
            if host.name in self.containers:
                await self._start_container(host, agent_version)
                continue
            service = host.systemd.find("periphery.service")
            assert service is not None
            await host.systemd.start(service)
        await self._start_core(core, core_version, interval, url)
        if self.files != "v1" and self.core is not None:
            for host in (h for h in self._servers() if h.name not in self.containers):
                address = core.address if host.name in self.outbound else ""
                await seed_v2.configure(host, self.store, self.core.public_key, address)
        keys = {name: ssh.host_key for name, ssh in self._ssh.items()}
        fleet_file.write(
            self.folder,
            self.hosts,
            self.world.releases.base,
            self._client_key,
            keys,
            self.own_secrets,
            API_KEY,
            target=target,
        )

    async def _start_core(self, host: SandboxHost, version: str, interval: str, url: str) -> None:
        engine = self.engine
        tag = "latest" if version == "1.19.5" else version
        written = {"tag": tag, "host": url, "interval": interval, "database": self.database}
        if self.files == "v1":
            write_project(host.root, secrets=self.own_secrets, **written)
        else:
            mounted = self.files == "v2"
            seed_v2.write_project(host.root, secrets=self.own_secrets, keys_mounted=mounted, **written)
        ferretdb = ("ghcr.io/ferretdb/ferretdb:2.7.0", "ghcr.io/ferretdb/postgres-documentdb:17")
        data = ferretdb if self.database == "ferretdb" else ("mongo",)
        for reference in (*data, *(f"ghcr.io/moghtech/komodo-{kind}:{tag}" for kind in ("core", "periphery"))):
            image = engine.store.published(reference)
            assert image is not None
            engine.store.add(image)
        await self._compose("up", "-d", "mongo", "periphery")
        rows = [("Local", "https://periphery:8120" if self.files == "v1" else "")]
        rows += [(h.name, f"https://{h.address}:8120") for h in self._servers()]
        seed_documents.fill(self.store, "komodo", rows, API_KEY)
        await self._compose("up", "-d")
        await self._core_ready()

    async def _start_container(self, host: SandboxHost, version: str) -> None:
        """An agent in a container, as its owner installed it."""
        engine = self.engines[host.name]
        project = seed_containers.seeded(
            self.containers[host.name], version=version, root=host.root, secrets=self.own_secrets
        )
        folder = seed_containers.write(host.root, project)
        for reference in project.images:
            image = engine.store.published(reference)
            assert image is not None
            engine.store.add(image)
        call = Call(host, "docker", [], str(folder), host.environment(root=True))
        if await compose(call, engine, [*project.words, "up", "-d"], old=project.old_compose):
            raise RuntimeError(f"the sandbox's agent container does not start: {call.pending()}")

    async def _compose(self, *words: str) -> None:
        """What an operator typed when the fleet was installed (not recorded)."""
        host = self.hosts[CORE]
        flags = ["-p", "komodo", "-f", "komodo/mongo.compose.yaml", "--env-file", "komodo/compose.env"]
        call = Call(host, "docker", [], str(host.root / "opt"), host.environment(root=True))
        if await compose(call, self.engine, [*flags, *words]):
            raise RuntimeError(f"the sandbox's own project does not start: {call.pending()}")

    async def _core_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while not (self.core and self.core.listening):
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"the sandbox's Core does not start: {self.world.defects}")
            await asyncio.sleep(0.01)
        self.core.tick()

    def _host(self, name: str, number: int) -> SandboxHost:
        address = self.world.addresses[name] = address_of(self.world.net, number)
        host = self.hosts[name] = SandboxHost(self.world, name, self.folder / "hosts" / name, address)
        return host

    def _servers(self) -> list[SandboxHost]:
        return [h for h in self.hosts.values() if h.name != CORE]

    async def _release_site(self, request: Request) -> Response:
        if self.world.faults.strike("download-403", "worker"):
            return Response(403, b"rate limit exceeded\n", "text/plain")
        answer = self.world.releases.get(request.path.partition("?")[0])
        return Response(answer.status, answer.body, answer.kind)

    async def stop(self) -> None:
        """Stop everything; files stay. Processes that commands left behind are killed."""
        for ssh in self._ssh.values():
            await ssh.stop()
        self._end_processes()
        for ssh in self._ssh.values():
            await ssh.finish()
        await self._control.stop()
        await self._site.stop()
        for host in self.hosts.values():
            await host.systemd.stop_all()
        for engine in self.engines.values():
            await engine.stop_all()
        await self.world.cancel_all()

    def _end_processes(self, host: str = "") -> None:
        mark = f"KU_SANDBOX={self.world.id}".encode()
        if host:
            mark = f"KU_SANDBOX_ROOT={self.hosts[host].root}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
