"""A host reached in the simplest way: asyncssh, one connection, one script per session.

It sends the same scripts with the same arguments and data as the tool, without integrity checks, without secrecy of
arguments, without locks, detached jobs, start-or-attach, typed errors and reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shlex
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh

from hosts.exec.script import Script
from hosts.host import Completed, RemoteFile
from hosts.secrets import resolve
from model.errors import CommandFailed
from model.fleet.spec import HostSpec, Sudo

SESSIONS = 6
"""Sessions at once on a connection, as in the tool: sshd allows ten and counts those that are ending."""
_AGAIN = 0.05


class PlainHost:
    """Has the interface of hosts.Host, so that the activities decide which commands run."""

    def __init__(self, spec: HostSpec, connection: asyncssh.SSHClientConnection) -> None:
        self.spec = spec
        self._connection = connection
        self._free = asyncio.Semaphore(SESSIONS)

    async def run(
        self, script: Script, *, data: bytes = b"", root: bool = True, check: bool = True, **_: Any
    ) -> Completed:
        """One session: the script as an argument of sh, the data on standard input."""
        text = f"set -eu; umask 077; LC_ALL=C; export LC_ALL\n{script.text}"
        command = f"sh -c {shlex.quote(text)} {shlex.join((script.name, *script.words))}"
        if root and self.spec.sudo is Sudo.PASSWORDLESS:
            command = f"sudo -n {command}"
        elif root and self.spec.sudo is Sudo.PASSWORD and self.spec.sudo_password:
            command = f"sudo -S -p '' {command}"
            data = (await resolve(self.spec.sudo_password)).encode() + b"\n" + data
        async with self._free:
            done = await self._session(command, data)
        code, out, err = done.returncode or 0, _bytes(done.stdout), _bytes(done.stderr).decode()
        if code and check:
            raise CommandFailed(f"{script.name}: {err}", code=code, tail=err, host=self.spec.name)
        return Completed(code, out, err)

    async def _session(self, command: str, data: bytes) -> asyncssh.SSHCompletedProcess:
        while True:
            try:
                return await self._connection.run(command, input=data, encoding=None)
            except asyncssh.ChannelOpenError:
                await asyncio.sleep(_AGAIN)

    async def job(
        self,
        _op: str,
        folder: str,
        script: Script,
        *,
        data: bytes = b"",
        change: str,
        then: Script | None = None,
        **_: Any,
    ) -> Completed:
        """Run the script attached; every call runs it again."""
        text = f"KU_STAMP={change}\nmkdir -p {folder}\n{script.text}"
        done = await self.run(replace(script, text=text), data=data)
        return replace(done, after=(await self.run(then)).out) if then else done

    async def read(self, path: str, *, limit: int = 4 * 1024 * 1024) -> RemoteFile | None:
        """A file, or None."""
        done = await self.run(Script.load("hosts.sh", "read_file.sh", path=path, limit=str(limit)))
        facts, _, data = done.out.partition(b"\n")
        if facts == b"none":
            return None
        mode, owner, _size = facts.decode().split(" ")
        return RemoteFile(path, data, hashlib.sha256(data).hexdigest(), mode.zfill(4), owner)

    async def held(self) -> None:
        """There is no lock."""

    async def invalidate(self, _folder: str, *_prefixes: str, **_: Any) -> None:
        """There are no marks."""

    async def unlock(self, change: str) -> None:
        """Open a session as the tool does, although there is no lock."""
        await self.run(Script("unlock", ":", (change,)))

    async def clock(self) -> datetime:
        """The host's time."""
        text = (await self.run(Script.load("hosts.sh", "clock.sh"), root=False)).text
        return datetime.fromtimestamp(float(text), UTC)

    def close(self) -> None:
        """The connection."""
        self._connection.close()

    @contextlib.asynccontextmanager
    async def forward(self, host: str, port: int) -> AsyncIterator[Path]:
        """A Unix socket that leads to host:port."""
        with tempfile.TemporaryDirectory(prefix="komodo-upgrade-") as folder:
            path = Path(folder) / "forward.sock"
            listener = await self._connection.forward_local_path_to_port(str(path), host, port)
            try:
                yield path
            finally:
                listener.close()


class PlainHosts:
    """One connection per host."""

    def __init__(self) -> None:
        self._connections: dict[HostSpec, asyncio.Task[PlainHost]] = {}

    async def get(self, spec: HostSpec) -> PlainHost:
        """The host, connected."""
        if spec not in self._connections:
            self._connections[spec] = asyncio.create_task(_connect(spec))
        return await self._connections[spec]

    async def close(self) -> None:
        """All of them."""
        for task in self._connections.values():
            (await task).close()


async def _connect(spec: HostSpec) -> PlainHost:
    connection = await asyncssh.connect(
        spec.address,
        spec.port or 22,
        username=spec.user or None,
        client_keys=[str(Path(name)) for name in spec.key_files],
        known_hosts=spec.known_hosts,
        config=None,
    )
    return PlainHost(spec, connection)


def _bytes(output: str | bytes | None) -> bytes:
    return output.encode() if isinstance(output, str) else output or b""
