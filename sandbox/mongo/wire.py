"""A server that speaks MongoDB's wire protocol well enough for the official drivers: OP_MSG, SCRAM-SHA-256, cursors.

Simplified: no TLS, no compression, no sessions or transactions (their fields are ignored), no change streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import bson
from bson.codec_options import CodecOptions

from sandbox.mongo import commands
from sandbox.mongo.connection import Connection
from sandbox.mongo.store import Document, Store

_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True)


class MongoServer:
    """Serves one store on one address."""

    def __init__(self, store: Store, *, version: str, auth: bool, ferretdb: bool = False) -> None:
        self.store = store
        self.version = version
        self.auth = auth
        self.ferretdb = ferretdb
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, address: str, port: int = 27017) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, address, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.close()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self.store, self.version, self.auth, self.ferretdb)
        self._open.add(writer)
        try:
            while True:
                size, request, _, opcode = _HEADER.unpack(await reader.readexactly(16))
                body = await reader.readexactly(size - 16)
                if opcode == _OP_MSG:
                    command, quiet = _read_msg(body)
                    answer = commands.run(connection, command)
                    if not quiet:
                        payload = struct.pack("<i", 0) + b"\0" + bson.encode(answer)
                        writer.write(_HEADER.pack(16 + len(payload), 0, request, _OP_MSG) + payload)
                elif opcode == _OP_QUERY:
                    answer = commands.run(connection, _read_query(body))
                    payload = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer)
                    writer.write(_HEADER.pack(16 + len(payload), 0, request, _OP_REPLY) + payload)
                else:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


def _read_query(body: bytes) -> Document:
    end = body.index(b"\0", 4)
    start = end + 9
    (size,) = struct.unpack_from("<i", body, start)
    command: Document = bson.decode(body[start : start + size], _OPTIONS)
    return {**command.get("$query", command), "$db": body[4:end].decode().split(".")[0]}


def _read_msg(body: bytes) -> tuple[Document, bool]:
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & 1 else 0)
    position, command = 4, Document()
    while position < end:
        kind = body[position]
        position += 1
        (size,) = struct.unpack_from("<i", body, position)
        if kind == 0:
            command.update(bson.decode(body[position : position + size], _OPTIONS))
        else:
            name_end = body.index(b"\0", position + 4)
            name = body[position + 4 : name_end].decode()
            command[name] = bson.decode_all(body[name_end + 1 : position + size], _OPTIONS)
        position += size
    return command, bool(flags & 2)
