"""A whole simulated fleet in one process: `Sandbox.start`, faults, what was run where.

Simplified, besides what the parts say of themselves: everybody on a host is the same real user (there is no chroot, no
second user), so file permissions refuse nothing; the kernel, clock and disks are those of the machine it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

from sandbox import fleet_file, programs, quick, releases, seed_documents, shims
from sandbox.compose_cli import run as compose
from sandbox.core import Core
from sandbox.disks import FULL, READ_ONLY
from sandbox.engine import Engine
from sandbox.faults import Fault
from sandbox.handlers import HANDLERS
from sandbox.host import SandboxHost
from sandbox.mongo_store import Store
from sandbox.mongo_wire import MongoServer
from sandbox.seed_files import NAMES, SHAPES, Secrets, write_agent, write_project
from sandbox.ssh import SshHost
from sandbox.standin import Call, ControlSocket
from sandbox.web import Request, Response, WebServer
from sandbox.world import Recorded, World, now

CORE = "core"
_BAD_DISKS = {"disk-full": FULL, "read-only": READ_ONLY}
API_KEY = "K-sandbox-komodo-upgrade"


class Sandbox:
    """A running fleet. Use `async with await Sandbox.start(folder) as sandbox:`."""

    def __init__(self, folder: Path, world: World, secrets_of: Secrets) -> None:
        self.folder = folder
        self.world = world
        self.hosts: dict[str, SandboxHost] = world.hosts
        self.own_secrets = secrets_of
        self.fleet_file = folder / "fleet.toml"
        self.api_key = API_KEY
        self._ssh: dict[str, SshHost] = {}
        self._sockets = Path(tempfile.mkdtemp(prefix="kus-"))
        self._control = ControlSocket(str(self._sockets / "s"), world.hosts)
        self._site = WebServer(self._release_site)
        world.watchers.append(self._drop_on_command)
        self._changes: list[asyncio.Task[Any]] = []
        self._client_key = asyncssh.generate_private_key("ssh-ed25519")

    # --- what tests look at -------------------------------------------------------------------------------------------

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of the fleet."""
        return (*self.own_secrets.all(), *self.world.minted)

    @property
    def journal(self) -> list[Recorded]:
        """Everything the stand-ins were asked to do, on all hosts, in order."""
        return self.world.journal

    def mutations(self, host: str = "") -> list[Recorded]:
        """Those that change something."""
        return [r for r in self.journal if r.mutating and host in ("", r.host)]

    @property
    def engine(self) -> Engine:
        """Docker on the Core host."""
        engine = self.hosts[CORE].docker
        assert engine is not None
        return engine

    @property
    def core(self) -> Core | None:
        """The running Core, if there is one."""
        for container in self.engine.containers.values():
            if isinstance(container.program, Core):
                return container.program
        return None

    database = "mongo"
    """mongo | ferretdb"""

    @property
    def store(self) -> Store:
        """Everything in the simulated mongod."""
        return next(iter(self.world.stores.values()))

    @property
    def database_server(self) -> MongoServer:
        """The listening mongod."""
        found = [s for c in self.engine.containers.values() if (s := programs.database_of(c))]
        return found[0]

    def agent_version(self, host: str) -> str:
        """Of the running agent; empty when none runs."""
        service = self.hosts[host].systemd.find("periphery.service")
        return service.agent.version if service and service.agent and service.agent.running else ""

    def logs(self, host: str) -> list[str]:
        """The agent's journal."""
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
                    one.mend_disk()
                elif fault.name == "clock-jump":
                    shims.set_clock(one, 0)
                elif fault.name == "old-libc":
                    (one.root / ".old-libc").unlink(missing_ok=True)
                elif fault.name in {"unreachable", "hang"}:
                    self._changes.append(self.world.spawn(self._mend_ssh(one.name)))
        self._settle_shims()

    def _settle_shims(self) -> None:
        for host in self.hosts.values():
            quick.settle(host)

    def kill_connections(self, host: str = "") -> None:
        """Cut every open SSH connection now."""
        for one in self._named(host):
            self._ssh[one.name].cut()

    def prune_images(self) -> list[str]:
        """What Komodo itself does every day: images that no container uses are gone. Returns their references."""
        used = {c.image.id for c in self.engine.containers.values()}
        images = self.engine.store.images
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
        engine = machine.docker
        running = [c for c in engine.containers.values() if c.wanted] if engine else []
        for container in running:
            assert engine is not None
            await engine.stop(container)
        machine.booted = now().timestamp()
        for service in machine.systemd.services.values():
            if machine.systemd.enabled(service) == "enabled":
                await machine.systemd.start(service)
        for container in running:
            if engine is not None and container.spec.restart in {"unless-stopped", "always"}:
                await engine.start(container)

    def _drop_on_command(self, host: str, argv: tuple[str, ...]) -> None:
        """Fault connection-drop with `on`."""
        fault = self.world.faults.on("connection-drop", host)
        wanted = str(fault.options.get("on", "")) if fault else ""
        if wanted and " ".join(argv).startswith(wanted):
            self.world.faults.strike("connection-drop", host)
            self._ssh[host].cut()

    async def settled(self) -> None:
        """Wait until what `fault` and `heal` began is done."""
        await asyncio.gather(*self._changes)

    async def _break_ssh(self, name: str, host: str) -> None:
        server = self._ssh[host]
        if name == "unreachable":
            await server.stop()
        elif name == "hang":
            await server.mute()
        else:
            await server.new_host_key()

    async def _mend_ssh(self, host: str) -> None:
        await self._ssh[host].stop()
        await self._ssh[host].start()

    def _named(self, host: str) -> list[SandboxHost]:
        return [self.hosts[host]] if host else list(self.hosts.values())

    # --- life ---------------------------------------------------------------------------------------------------------

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
    ) -> Sandbox:
        """Build the hosts' folders below `folder` and bring everything up. `database`: mongo | ferretdb."""
        folder = Path(os.path.abspath(folder))  # noqa: ASYNC240, PTH100
        folder.mkdir(parents=True, exist_ok=True)
        world = World(id=secrets.token_hex(8), net=await free_net(), speed=speed, handlers=dict(HANDLERS))
        sandbox = cls(folder, world, invent_secrets())
        world.commands_file = folder / "commands.jsonl"
        sandbox.database = database
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
        core = self._host(CORE, 1, docker=True)
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
            write_agent(host.root, shape, binary=binary, core=core.address, secrets=self.own_secrets)
        for host in self.hosts.values():
            host.build(self._control.path)
            key = asyncssh.generate_private_key("ssh-ed25519")
            self._ssh[host.name] = SshHost(host, self._client_key, key)
            await self._ssh[host.name].start()
        for host in self._servers():
            service = host.systemd.find("periphery.service")
            assert service is not None
            await host.systemd.start(service)
        await self._start_core(core, core_version, interval, url)
        keys = {name: ssh.host_key for name, ssh in self._ssh.items()}
        fleet_file.write(self.folder, self.world, self._client_key, keys, self.own_secrets, API_KEY, target=target)

    async def _start_core(self, host: SandboxHost, version: str, interval: str, url: str) -> None:
        folder = write_project(
            host.root, tag="latest", host=url, interval=interval, secrets=self.own_secrets, database=self.database
        )
        engine = self.engine
        if version != "1.19.5":
            text = (folder / "compose.env").read_text()
            (folder / "compose.env").write_text(text.replace("IMAGE_TAG=latest", f"IMAGE_TAG={version}"))
        tag = "latest" if version == "1.19.5" else version
        ferretdb = ("ghcr.io/ferretdb/ferretdb:2.7.0", "ghcr.io/ferretdb/postgres-documentdb:17")
        data = ferretdb if self.database == "ferretdb" else ("mongo",)
        for reference in (*data, *(f"ghcr.io/moghtech/komodo-{kind}:{tag}" for kind in ("core", "periphery"))):
            image = engine.store.published(reference)
            assert image is not None
            engine.store.add(image)
        await self._compose("up", "-d", "mongo", "periphery")
        rows = [("Local", "https://periphery:8120")]
        rows += [(h.name, f"https://{h.address}:8120") for h in self._servers()]
        seed_documents.fill(self.store, "komodo", rows, API_KEY)
        await self._compose("up", "-d")
        await self._core_ready()

    async def _compose(self, *words: str) -> None:
        """What a person typed when the fleet was installed (not recorded)."""
        host = self.hosts[CORE]
        null = os.open(os.devnull, os.O_RDWR)
        flags = ["-p", "komodo", "-f", "komodo/mongo.compose.yaml", "--env-file", "komodo/compose.env"]
        call = Call(host, "docker", [], str(host.root / "opt"), host.environment(root=True), 0, [null, null, null])
        try:
            code = await compose(call, self.engine, [*flags, *words])
        finally:
            os.close(null)
        if code:
            raise RuntimeError(f"the sandbox's own project does not start: {call.said()}")

    async def _core_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while not (self.core and self.core.listening):
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"the sandbox's Core does not start: {self.world.defects}")
            await asyncio.sleep(0.01)
        self.core.tick()

    def _host(self, name: str, number: int, *, docker: bool = False) -> SandboxHost:
        address = address_of(self.world.net, number)
        host = SandboxHost(self.world, name, self.folder / "hosts" / name, address)
        if docker:
            host.docker = Engine(host, programs.run)
        self.hosts[name] = host
        return host

    def _servers(self) -> list[SandboxHost]:
        return [h for h in self.hosts.values() if h.name != CORE]

    async def _release_site(self, request: Request) -> Response:
        if self.world.faults.strike("download-403", "worker"):
            return Response(403, b"rate limit exceeded\n", "text/plain")
        answer = self.world.releases.get(request.path.partition("?")[0])
        return Response(answer.status, answer.body, answer.kind)

    async def stop(self) -> None:
        """Everything down; files stay. Processes that commands left behind are ended."""
        for ssh in self._ssh.values():
            await ssh.stop()
        self._end_processes()
        for ssh in self._ssh.values():
            await ssh.finish()
        await self._control.stop()
        await self._site.stop()
        for host in self.hosts.values():
            await host.systemd.stop_all()
            if host.docker is not None:
                await host.docker.stop_all()
        await self.world.cancel_all()
        shutil.rmtree(self._sockets, ignore_errors=True)

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


def server_name(position: int) -> str:
    """web-1, db-1, nas, build-1, web-2, then web-3, web-4, …"""
    return NAMES[position] if position < len(NAMES) else f"web-{position - 2}"


def address_of(net: str, number: int) -> str:
    """Loopback address of the n-th machine: .1 to .99, then the next networks."""
    if number < 100:
        return f"{net}.{number}"
    first, second, third = net.split(".")
    number -= 100
    return f"{first}.{second}.{(int(third) + 1 + number // 250) % 256}.{number % 250 + 1}"


def invent_secrets() -> Secrets:
    """Random ones, so that a search for them finds only them."""
    new = secrets.token_hex
    return Secrets(
        passkey=f"pk{new(14)}", db_password=f"db{new(14)}", webhook_secret=f"wh{new(14)}", jwt_secret=f"jw{new(14)}",
        admin_password=f"ad{new(14)}", git_token=f"gt{new(14)}", stack_secret=f'st{new(8)} = [with] #odd',
        sudo_password=f"su{new(10)}", api_secret=f"as{new(14)}",
    )  # fmt: skip


async def free_net() -> str:
    """A random 127.x.y in which nobody listens on the ports that we need."""
    for _ in range(50):
        net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        try:
            for number, port in ((1, 9120), (100, 27017), (101, 27017), (102, 9120)):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((f"{net}.{number}", port))
        except OSError:
            continue
        return net
    raise RuntimeError("no free loopback network: the sandbox needs Linux, where all of 127.0.0.0/8 is local")
