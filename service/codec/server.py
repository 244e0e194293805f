"""A codec server on loopback: the Temporal UI and `temporal --codec-endpoint` read and write payloads with it.

`POST /decode` shows payloads of any workflow. `POST /<workflow id>/encode` encrypts for that workflow: nobody tells a
codec server whose payloads they are, so the id is part of the endpoint. Every request carries the token; pages of one
origin may call it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from temporalio.api.common.v1 import Payload, Payloads

from model.gates import MADE_AT, MESSAGE_ID
from service.codec.aead import ENCODING, EncryptingCodec, is_refused
from service.codec.key_ring import KeyRing

LARGEST = 16 << 20
_SECONDS = 30.0
_HEAD_BYTES = 16 << 10


class BadRequest(Exception):
    """A request that is answered with this status."""

    def __init__(self, status: HTTPStatus, why: str = "") -> None:
        super().__init__(why or status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecServer:
    """Answers HTTP requests."""

    ring: KeyRing
    token: str
    origin: str = ""
    """Of the Temporal UI, such as http://127.0.0.1:8233; empty: no page may call."""
    port: int = 0

    async def start(self) -> asyncio.Server:
        """Listens on 127.0.0.1."""
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers: dict[str, str] = {}
        try:
            async with asyncio.timeout(_SECONDS):
                status, body = await self._answer(reader, headers)
        except BadRequest as error:
            status, body = error.status, {"message": str(error)}
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            status, body = HTTPStatus.BAD_REQUEST, {"message": "not an HTTP request that this server reads"}
        text = json.dumps(body).encode()
        head = [f"HTTP/1.1 {status.value} {status.phrase}", "Content-Type: application/json", "Connection: close"]
        head += [f"Content-Length: {len(text)}", *self._cross_origin(headers)]
        try:
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + text)
            await writer.drain()
            writer.close()
        except OSError:
            return

    def _cross_origin(self, headers: Mapping[str, str]) -> list[str]:
        if not self.origin or headers.get("origin") != self.origin:
            return []
        return [
            f"Access-Control-Allow-Origin: {self.origin}",
            "Access-Control-Allow-Methods: POST",
            "Access-Control-Allow-Headers: authorization, content-type, x-namespace",
            "Vary: Origin",
        ]

    async def _answer(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[HTTPStatus, object]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers.update({name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in head[1:])})
        if headers.get("host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            raise BadRequest(HTTPStatus.FORBIDDEN, "not the name of this server")
        origin = headers.get("origin")
        if origin is not None and origin != self.origin:
            raise BadRequest(HTTPStatus.FORBIDDEN, "not the origin that this server was started for")
        if method == "OPTIONS":
            return HTTPStatus.OK, {}
        self._authorize(headers)
        if method != "POST":
            raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= LARGEST:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return HTTPStatus.OK, self._converted(path, headers, await reader.readexactly(length))

    def _authorize(self, headers: Mapping[str, str]) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, self.token.encode()):
            raise BadRequest(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")

    def _converted(self, path: str, headers: Mapping[str, str], body: bytes) -> object:
        try:
            payloads = ParseDict({**json.loads(body)}, Payloads())
        except (TypeError, ValueError, RecursionError, ParseError):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the body is not a list of payloads") from None
        before, _, verb = unquote(path).rpartition("/")
        workflow_id = before.strip("/")
        if verb == "decode":
            shown = [self._shown(payload) for payload in payloads.payloads]
        elif verb == "encode" and (workflow_id or not payloads.payloads):
            namespace = headers.get("x-namespace", "default")
            shown = [encode_for(self.ring, namespace, workflow_id, payload) for payload in payloads.payloads]
        elif verb == "encode":
            why = "the endpoint must end with the workflow's id: --codec-endpoint http://127.0.0.1:PORT/<workflow id>"
            raise BadRequest(HTTPStatus.BAD_REQUEST, why)
        else:
            raise BadRequest(HTTPStatus.NOT_FOUND)
        return MessageToDict(Payloads(payloads=shown))

    def _shown(self, payload: Payload) -> Payload:
        """In the clear; what was never encrypted stays as it is."""
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        opened = EncryptingCodec(self.ring, display=True).open(payload)
        if is_refused(opened):
            text = f"refused: {opened.data.decode()}"
            return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(text).encode())
        encoding = {name: opened.metadata[name] for name in ("encoding", "messageType") if name in opened.metadata}
        return Payload(metadata=encoding, data=opened.data)


def encode_for(ring: KeyRing, namespace: str, workflow_id: str, payload: Payload) -> Payload:
    """One payload, encrypted for a workflow, with the time at which it was made."""
    made = Payload(metadata={**payload.metadata, MADE_AT: str(int(time.time())).encode()}, data=payload.data)
    made.metadata.pop(MESSAGE_ID, None)
    return EncryptingCodec(ring, f"workflow {namespace}/{workflow_id}").seal(made)
