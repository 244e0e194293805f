"""A local Unix socket that leads to a port behind a host, over whichever connection to that host is open.

A loopback TCP port could be reached by every user of this machine, and Core and its database trust who reaches them.
The socket lies in a folder that only the worker's user may enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh

from hosts.errors import connection_lost
from hosts.redact import clean
from hosts.ssh.connection import Link
from model.errors import HostError, UpgradeError
from model.fleet.spec import HostSpec

_CHUNK = 64 * 1024
_LONGEST_PATH = 100
"""Bytes. A socket's path may have 104 to 108, depending on the system."""


@contextlib.asynccontextmanager
async def tunnel(spec: HostSpec, link: Link, host: str, port: int) -> AsyncIterator[Path]:
    """The socket's path. When the SSH connection breaks, open streams end; the next client opens a new connection.

    (A forward of the SSH library belongs to one connection; after a break, it would refuse every further client.)
    Raises HostError where the SSH server forbids forwarding, Unreachable.
    """
    connection = await link.connection()
    try:
        # A listener alone would not report that the server forbids forwarding.
        _, writer = await connection.open_connection(host, port)
        writer.close()
    except asyncssh.ChannelOpenError as error:
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise HostError(
                f"its SSH server does not allow a connection to {host}:{port} ({clean(error.reason)})",
                host=spec.name,
                hint="set `AllowTcpForwarding yes` (or local) in sshd_config, or url under [core] in the fleet file",
            ) from None
        # Nothing listens there yet, or the connection broke: the client of the socket sees that.
    except (OSError, asyncssh.Error) as error:
        raise connection_lost(spec, f"a forward to {host}:{port}", error) from None
    async with _listening(link, host, port) as path:
        yield path


@contextlib.asynccontextmanager
async def _listening(link: Link, host: str, port: int) -> AsyncIterator[Path]:
    streams: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_relay(link, host, port, reader, writer))
        streams.add(task)
        task.add_done_callback(streams.discard)

    with tempfile.TemporaryDirectory(prefix="komodo-upgrade-", dir=_short_folder()) as folder:
        path = Path(folder) / "forward.sock"
        listener = await asyncio.start_unix_server(accept, path)
        try:
            yield path
        finally:
            listener.close()
            for task in list(streams):
                task.cancel()
            await asyncio.gather(*streams, return_exceptions=True)


def _short_folder() -> str:
    """The folder for temporary files, or /tmp where a socket's path in it would be too long."""
    usual = tempfile.gettempdir()
    return usual if len(usual.encode()) + len("/komodo-upgrade-xxxxxxxx/forward.sock") <= _LONGEST_PATH else "/tmp"  # noqa: S108


async def _relay(link: Link, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client's stream, both ways. It is closed when nothing listens at the other end or the connection breaks."""
    with contextlib.suppress(UpgradeError, asyncssh.Error, OSError), contextlib.closing(writer):
        connection = await link.connection()
        far_reader, far_writer = await connection.open_connection(host, port)
        ways = {asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()


async def _pump(source: Any, target: Any) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()
    target.write_eof()
