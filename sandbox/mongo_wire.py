"""A server that speaks MongoDB's wire protocol well enough for the official drivers: OP_MSG, SCRAM-SHA-256, cursors.

Simplified: no TLS, no compression, no sessions or transactions (their fields are ignored), no change streams.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.codec_options import CodecOptions

from sandbox import mongo_commands
from sandbox.mongo_store import Document, Store

_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True)
ITERATIONS = 4096


@dataclass(slots=True)
class Connection:
    """State of one client."""

    store: Store
    version: str
    auth: bool
    ferretdb: bool = False
    user: str = ""
    """Authenticated as; empty: not."""
    cursors: dict[int, tuple[str, list[Document]]] = field(default_factory=dict)
    scram: Scram | None = None


class Scram:
    """One SCRAM-SHA-256 conversation (RFC 7677)."""

    def __init__(self, database: str, passwords: dict[tuple[str, str], str]) -> None:
        self._database = database
        self._passwords = passwords
        self.user = ""
        self._auth = ""
        self._salted = b""
        self.done = False

    def first(self, payload: bytes) -> bytes:
        """The client's first message."""
        bare = payload.decode().split(",", 2)[2]
        fields = dict(part.split("=", 1) for part in bare.split(","))
        self.user = fields["n"].replace("=2C", ",").replace("=3D", "=")
        salt = hashlib.sha256(f"salt {self.user}".encode()).digest()[:28]
        password = self._passwords.get((self._database, self.user), secrets.token_hex(8))
        self._salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
        nonce = fields["r"] + base64.b64encode(secrets.token_bytes(18)).decode()
        answer = f"r={nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}"
        self._auth = f"{bare},{answer}"
        return answer.encode()

    def final(self, payload: bytes) -> bytes | None:
        """The client's proof; None when it is wrong."""
        text = payload.decode()
        without, _, proof = text.rpartition(",p=")
        auth = f"{self._auth},{without}".encode()
        client_key = hmac.digest(self._salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
        wanted = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if (self._database, self.user) not in self._passwords or not hmac.compare_digest(
            wanted, base64.b64decode(proof)
        ):
            return None
        server_key = hmac.digest(self._salted, b"Server Key", "sha256")
        self.done = True
        return b"v=" + base64.b64encode(hmac.digest(server_key, auth, "sha256"))


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
                    answer = mongo_commands.run(connection, command)
                    if not quiet:
                        payload = struct.pack("<i", 0) + b"\0" + bson.encode(answer)
                        writer.write(_HEADER.pack(16 + len(payload), 0, request, _OP_MSG) + payload)
                elif opcode == _OP_QUERY:
                    answer = mongo_commands.run(connection, _read_query(body))
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
