"""One SSH server per simulated host: real protocol, real host keys, the client's command run by a real /bin/sh.

Like sshd: at most 10 sessions per connection; a command lives on when its connection breaks; a session ends when the
command has ended *and* nobody holds its output any more. `127.0.0.1` in a forward means this host's own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any, cast

import asyncssh

from sandbox.machine.host import SandboxHost
from sandbox.world import Recorded, now

MAX_SESSIONS = 10
"""sshd's default MaxSessions."""
_ALGORITHMS: dict[str, Any] = {"kex_algs": ["curve25519-sha256"], "encryption_algs": ["aes128-gcm@openssh.com"]}
"""The cheapest of those that every client has: a fleet of twenty shares two cores with its clients."""


class SshHost:
    """The listener and the open connections of one host."""

    def __init__(self, host: SandboxHost, client_key: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> None:
        self.host = host
        self.client_key = client_key
        self.host_key = host_key
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._mute: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on the host's address (a free port the first time)."""
        self._acceptor = await asyncssh.create_server(
            lambda: _Server(self),
            self.host.address,
            self.host.port,
            server_host_keys=[self.host_key],
            encoding=None,
            reuse_address=True,
            login_timeout=30,
            **_ALGORITHMS,
        )
        self.host.port = self._acceptor.get_port()

    async def stop(self) -> None:
        """Close the port and cut every connection. Commands live on."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._mute is not None:
            self._mute.close()
            self._mute = None
        self.cut()

    async def finish(self) -> None:
        """After `stop`: let the sessions' own tasks end."""
        if self._running:
            await asyncio.wait(self._running, timeout=1)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection, as pulling the plug does."""
        for connection in list(self.connections):
            connection.abort()

    async def mute(self) -> None:
        """Accept connections and say nothing, as a machine does that hangs."""
        await self.stop()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        self._mute = await asyncio.start_server(silent, self.host.address, self.host.port)

    async def new_host_key(self) -> None:
        """From now on the host shows another key."""
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        await self.stop()
        await self.start()

    def process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run what a client asked for."""
        task = asyncio.ensure_future(self._run(process))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        with contextlib.suppress(asyncssh.Error, OSError):
            await self._shell(process)

    async def _shell(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        host = self.host
        command = process.command
        argv = ["/bin/sh", "-c", command] if command is not None else ["/bin/sh", "-l"]
        env = host.environment(root=host.user == "root")
        env["SSH_CONNECTION"] = f"{host.world.net}.254 50000 {host.address} {host.port}"
        drop = host.world.faults.on("connection-drop", host.name)
        if drop is not None and "on" in drop.options:
            drop = None  # waits for a stand-in's command, not for a session
        if drop is not None:
            drop.options["seen"] = int(drop.options.get("seen", 0)) + 1
        dropping = drop is not None and drop.options["seen"] == int(drop.options.get("at", 1))
        (stdin, feed), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()  # pipes, as sshd uses
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=stdin, stdout=stdout, stderr=stderr, cwd=env["HOME"], env=env, start_new_session=True
        )
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        host.shells.append(Recorded(host=host.name, argv=(command or "-l",), at=now(), code=0, mutating=False))
        feeding = asyncio.ensure_future(_feed(process, feed))
        pumps = [
            asyncio.ensure_future(_pump(out, process.stdout)),
            asyncio.ensure_future(_pump(err, process.stderr)),
        ]
        if dropping and drop is not None and drop.options.get("when", "start") == "start":
            host.world.faults.strike("connection-drop", host.name)
            await asyncio.sleep(float(drop.options.get("after", 0.05)))
            _abort(process)
        code = await child.wait()
        if dropping and drop is not None and drop.options.get("when") == "end":
            host.world.faults.strike("connection-drop", host.name)
            _abort(process)
        await asyncio.gather(*pumps, return_exceptions=True)
        feeding.cancel()
        if host.world.faults.on("hang", host.name):
            await asyncio.Event().wait()
        with contextlib.suppress(OSError, asyncssh.Error):
            if code >= 0:
                process.exit(code)
            else:
                process.exit_with_signal(_SIGNALS.get(-code, "KILL"))


def _abort(process: asyncssh.SSHServerProcess[bytes]) -> None:
    connection = process.channel.get_connection()
    if connection is not None:
        connection.abort()


_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 6: "ABRT", 9: "KILL", 13: "PIPE", 14: "ALRM", 15: "TERM"}


class _Session(asyncssh.SSHServerProcess[bytes]):
    """Counted while it is open."""

    def __init__(self, server: _Server, owner: SshHost) -> None:
        super().__init__(owner.process, lambda channel: asyncssh.SFTPServer(cast(Any, channel)), 3, allow_scp=False)
        self._server = server
        server.open_sessions += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open_sessions -= 1
        super().connection_lost(exc)


class _Server(asyncssh.SSHServer):
    def __init__(self, owner: SshHost) -> None:
        self._owner = owner
        self._connection: asyncssh.SSHServerConnection | None = None
        self.open_sessions = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._owner.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._connection is not None:
            self._owner.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._owner.host.user and key == self._owner.client_key.convert_to_public()

    def session_requested(self) -> Any:
        """One more session, up to sshd's limit."""
        if self._connection is None or self.open_sessions >= MAX_SESSIONS:
            return False
        return self._connection.create_server_channel(encoding=""), _Session(self, self._owner)

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002
        orig_port: int,  # noqa: ARG002
    ) -> Any:
        """direct-tcpip: to this host itself or to any address of the simulated network."""
        if dest_host in {"127.0.0.1", "localhost", "::1", "0.0.0.0", "[::]", "::"}:
            dest_host = self._owner.host.address
        elif not dest_host.startswith("127."):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
        return _forward(self._connection, dest_host, dest_port)


async def _forward(connection: Any, host: str, port: int) -> Any:
    try:
        return await connection.forward_connection(host, port)
    except OSError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused") from error


async def _feed(process: asyncssh.SSHServerProcess[bytes], fd: int) -> None:
    """The client's standard input into the command's pipe."""
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(fd, "wb", buffering=0)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        while True:
            data = await process.stdin.read(65536)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except (OSError, asyncssh.Error):
        pass
    finally:
        writer.close()


async def _pump(fd: int, target: Any) -> None:
    """A command's output to the client, until everybody who holds the pipe has ended."""
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=1 << 20)
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), pipe)
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except (OSError, asyncssh.Error):
        pass  # the connection is gone: the command lives on, and writes into a closed pipe, as under sshd
    finally:
        transport.close()
