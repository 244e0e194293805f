"""A small HTTP/1.1 server and client on asyncio: enough for Core's API and the release site."""

from __future__ import annotations

import asyncio
import contextlib
import http
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """One request, headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str


@dataclass(slots=True)
class Response:
    """One answer. Without a kind no Content-Type is sent."""

    status: int
    body: bytes = b""
    kind: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class WebServer:
    """Serves one address until it is stopped; stopping cuts open connections, as killing a process does."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, address: str, port: int) -> int:
        """Listen; port 0 picks one. Returns the port."""
        self._server = await asyncio.start_server(self._serve, address, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.close()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        try:
            while True:
                request = await _read(reader, peer)
                if request is None:
                    break
                response = await self._answer(request)
                writer.write(_render(response))
                await writer.drain()
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, peer: str) -> Request | None:
    first = await reader.readline()
    if not first.strip():
        return None
    method, path, *_ = first.decode("latin-1").split(" ")
    headers: dict[str, str] = {}
    while True:
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            body += await reader.readexactly(size)
            await reader.readline()
            if not size:
                break
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0") or 0))
    return Request(method, path, headers, body, peer)


def _render(response: Response) -> bytes:
    try:
        phrase = http.HTTPStatus(response.status).phrase
    except ValueError:
        phrase = ""
    headers = {"content-length": str(len(response.body)), **response.headers}
    if response.kind:
        headers["content-type"] = response.kind
    lines = [f"HTTP/1.1 {response.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.body


async def fetch(address: str, port: int, method: str, path: str) -> tuple[int, str, bytes]:
    """One request without a body: (status, content type, body). Raises OSError."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        data = await reader.read()
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in lines[1:])}
    return int(lines[0].split(" ")[1]), headers.get("content-type", ""), body
