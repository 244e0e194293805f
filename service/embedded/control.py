"""The supervisor's unix socket: one JSON object in, one out. Only its owner can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from model.errors import ServiceRefused

log = logging.getLogger("komodo_upgrade.supervisor")

LONGEST = 90
"""Bytes of a socket's path; systems allow 104 to 108."""


class Control:
    """An async context manager around the listening socket."""

    def __init__(self, root: Path, answer: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self.path = root / "control.sock"
        self._answer = answer
        self._private: Path | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Control:
        if len(os.fsencode(self.path)) > LONGEST:
            self._private = Path(tempfile.mkdtemp(prefix="komodo-upgrade-"))
            self.path = self._private / "control.sock"
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=self.path, limit=1 << 20)
        self.path.chmod(0o600)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            reply = await self._answer(request)
        except Exception as error:
            log.exception("a request over the control socket")
            reply = {"error": str(error)}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
            writer.close()


async def ask(path: str, do: str, *, timeout: float = 10, **request: Any) -> dict[str, Any]:
    """Send one request. Raises ServiceRefused without an answer, or if the answer is an error."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
            writer.write(json.dumps({"do": do, **request}).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        raise ServiceRefused(
            f"the embedded service does not answer at {path}: {error or 'no answer in time'}",
            hint="see `komodo-upgrade up`, and supervisor.log in the state folder",
        ) from None
    reply: dict[str, Any] = json.loads(line or b'{"error": "closed without an answer"}')
    if "error" in reply:
        raise ServiceRefused(f"the embedded service: {reply['error']}", hint="see supervisor.log in the state folder")
    return reply
