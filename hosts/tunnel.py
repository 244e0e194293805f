"""A port of this machine that leads to one behind a host, over whichever connection to it is open at the time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncssh

from hosts.clean import clean
from hosts.connection import Link
from hosts.failures import connection_lost
from model.errors import HostError, UpgradeError
from model.fleet import HostSpec

_PIECE = 64 * 1024


@contextlib.asynccontextmanager
async def tunnel(spec: HostSpec, link: Link, host: str, port: int) -> AsyncIterator[int]:
    """The port on 127.0.0.1. What goes through it ends with its connection; what comes after it opens the next one.

    (A forward of the SSH library belongs to one connection: cut that, and everybody who asks through it again and
    again is refused for as long as he likes.) Raises HostError where the SSH server forbids it, Unreachable.
    """
    connection = await link.connection()
    try:
        # Asked once by hand: a listener alone would never tell that the server forbids it.
        _, writer = await connection.open_connection(host, port)
        writer.close()
    except asyncssh.ChannelOpenError as error:
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise HostError(
                f"its SSH server does not let us connect to {host}:{port} ({clean(error.reason)})",
                host=spec.name,
                cure="AllowTcpForwarding yes (or local) in sshd_config, or name Core's url in the fleet file",
            ) from None
        # Nothing listens there yet, or the connection broke: whoever uses the port sees that.
    except (OSError, asyncssh.Error) as error:
        raise connection_lost(spec, f"a forward to {host}:{port}", error) from None
    async with _listening(link, host, port) as local:
        yield local


@contextlib.asynccontextmanager
async def _listening(link: Link, host: str, port: int) -> AsyncIterator[int]:
    carried: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_carry(link, host, port, reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in list(carried):
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)


async def _carry(link: Link, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection there and back. Where nobody listens, or the line is dead, it is closed."""
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
    while data := await source.read(_PIECE):
        target.write(data)
        await target.drain()
    target.write_eof()
