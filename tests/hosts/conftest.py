"""Small SSH servers on loopback that run real shells, one folder a host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest

from hosts.host import Host
from hosts.ssh.pool import Hosts
from model.fleet.spec import HostSpec, Sudo
from tests.shells import path

# Units of the machine that runs the tests are not for tests.
NO_SYSTEMD_RUN = "#!/bin/sh\nexit 1\n"


@dataclass
class Server:
    """One asyncssh server. `shell` is the login shell (argv before the command)."""

    folder: Path
    key: asyncssh.SSHKey
    port: int = 0
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    host_keys: list[asyncssh.SSHKey] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    max_sessions: int = 10
    forwarding: bool = True
    commands: list[str] = field(default_factory=list)
    sessions: int = 0
    most_sessions: int = 0
    logins: int = 0
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    forwarded: list[tuple[str, int]] = field(default_factory=list)
    children: list[asyncio.subprocess.Process] = field(default_factory=list)
    acceptor: asyncssh.SSHAcceptor | None = None

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def tool(self, name: str, text: str) -> Path:
        """Puts a stand-in for a command on the host."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    async def start(self, accepted: asyncssh.SSHKey) -> None:
        self.bin.mkdir(parents=True, exist_ok=True)
        self.tool("systemd-run", NO_SYSTEMD_RUN)
        authorized = asyncssh.import_authorized_keys(accepted.export_public_key().decode())
        outer = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                outer.connections.add(conn)
                self.conn = conn

            def connection_lost(self, exc: Exception | None) -> None:
                outer.connections.discard(self.conn)

            def auth_completed(self) -> None:
                outer.logins += 1

            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
                if not outer.forwarding:
                    raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "forwarding is off")
                outer.forwarded.append((dest_host, dest_port))
                return True

            def session_requested(self) -> bool:
                if outer.sessions >= outer.max_sessions:
                    raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "open failed")
                return False  # then process_factory serves it

        self.acceptor = await asyncssh.create_server(
            Login,
            "127.0.0.1",
            self.port,
            server_host_keys=self.host_keys or [self.key],
            authorized_client_keys=authorized,
            process_factory=self.process,
            encoding=None,
        )
        self.port = self.acceptor.get_port()

    async def process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.sessions += 1
        self.most_sessions = max(self.most_sessions, self.sessions)
        self.commands.append(process.command or "")
        env = {"PATH": path(self.bin), "HOME": str(self.folder), "LANG": "C.UTF-8", **self.env}
        child = await asyncio.create_subprocess_exec(
            *self.shell,
            process.command or "",
            cwd=self.folder,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.children.append(child)
        # Not process.redirect: what it writes after the channel has closed takes the whole connection down.
        feeding = asyncio.create_task(_feed(process, child))
        try:
            await asyncio.gather(_pump(child, 1, process.stdout), _pump(child, 2, process.stderr))
            code = await child.wait()
            feeding.cancel()
            if not process.is_closing():
                if code >= 0:
                    process.exit(code)
                else:
                    process.exit_with_signal(signal.Signals(-code).name[3:])
        finally:
            feeding.cancel()
            self.sessions -= 1

    def cut(self) -> None:
        """Every connection breaks, as if the link did."""
        for connection in list(self.connections):
            connection.abort()

    async def stop(self) -> None:
        if self.acceptor is not None:
            self.acceptor.close()
            self.cut()
            await self.acceptor.wait_closed()
            self.acceptor = None
        for child in self.children:
            if child.returncode is None:
                # What a session left attached; detached jobs are in sessions of their own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
            child._transport.close()  # type: ignore[attr-defined]


async def _feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    with contextlib.suppress(OSError, asyncssh.Error):
        while chunk := await process.stdin.read(65536):
            child.stdin.write(chunk)
            await child.stdin.drain()
    child.stdin.close()


async def _pump(child: asyncio.subprocess.Process, stream: int, to: asyncssh.SSHWriter[bytes]) -> None:
    reader = child.stdout if stream == 1 else child.stderr
    assert reader is not None
    try:
        while chunk := await reader.read(65536):
            to.write(chunk)
            await to.drain()
    except (OSError, asyncssh.Error):
        # As with sshd, what still writes gets a SIGPIPE.
        child._transport.get_pipe_transport(stream).close()  # type: ignore[attr-defined]


@dataclass
class Ground:
    """Servers, the client's key and its known_hosts file."""

    folder: Path
    key: asyncssh.SSHKey
    servers: list[Server] = field(default_factory=list)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    async def server(self, name: str = "web-1", *, known: bool = True, **options: object) -> Server:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = Server(folder=self.folder / name, key=key, **options)  # type: ignore[arg-type]
        await server.start(self.key)
        self.servers.append(server)
        if known:
            self.record(server)
        return server

    def record(self, server: Server, key: asyncssh.SSHKey | None = None) -> None:
        public = (key or server.key).export_public_key().decode().split()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{server.port} {public[0]} {public[1]}\n")

    def spec(self, server: Server, **changes: object) -> HostSpec:
        spec = HostSpec(
            name=server.folder.name,
            address="127.0.0.1",
            port=server.port,
            user="ops",
            key_files=(str(self.folder / "id"),),
            known_hosts=str(self.known_hosts),
            ssh_config="none",
            sudo=Sudo.NONE,
            state_dir=str(server.folder / "state"),
        )
        return replace(spec, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "id")
    (tmp_path / "id").chmod(0o600)
    ground = Ground(tmp_path, key)
    ground.known_hosts.write_text("")
    yield ground
    for server in ground.servers:
        await server.stop()


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    async with Hosts() as hosts:
        yield hosts


@dataclass
class Machine:
    """A server and a connected host that leads to it."""

    server: Server
    host: Host
    spec: HostSpec

    @property
    def run_folder(self) -> str:
        return f"{self.spec.state_dir}/prod/{CHANGE}"

    def job_folder(self, step: str = "step") -> Path:
        return Path(self.run_folder) / "jobs" / "web-1" / "1" / step


CHANGE = "20261123T221500Z"


@pytest.fixture
async def machine(ground: Ground, hosts: Hosts) -> AsyncIterator[Machine]:
    server = await ground.server()
    spec = ground.spec(server)
    machine = Machine(server, await hosts.get(spec), spec)
    yield machine
    # What a test left running is stopped by its recorded process group.
    for pid in list(Path(spec.state_dir).rglob("jobs/*/*/*/pid")):  # noqa: ASYNC240
        group = int(pid.read_text().split()[4])
        if group > 1:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


async def until(condition: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = 60) -> None:
    """Waits for a condition, with a deadline."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if asyncio.get_running_loop().time() > end:
            raise AssertionError("not within its time")
        await asyncio.sleep(0.02)
