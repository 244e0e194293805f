"""Runs a dashboard in this process: one listening socket, uvicorn, and the link that opens it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn
from temporalio.client import Client

from model.errors import UpgradeError
from web.access.rules import Rules
from web.access.sessions import Sessions
from web.dashboard import Dashboard

_LARGEST_HEAD = 16 << 10
_CONNECTIONS = 300


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the command."""
        yield


@dataclass(frozen=True, slots=True)
class Running:
    """A dashboard that answers."""

    rules: Rules
    sessions: Sessions
    actor: str

    def link(self) -> str:
        """What to open in a browser; with a token it works once."""
        if not self.rules.by_token:
            return self.rules.url
        return f"{self.rules.url}/enter?token={self.sessions.link(self.actor)}"


@contextlib.asynccontextmanager
async def serve(
    client: Client, rules: Rules, actor: str, *, certificate: str = "", key: str = ""
) -> AsyncIterator[Running]:
    """A dashboard for the length of the block. `actor`: who opens the link. Raises UpgradeError."""
    listening = _listen(rules)
    sessions = Sessions()
    config = uvicorn.Config(
        lambda *_: None,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who connects is who connects: web/access decides about headers of proxies
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        timeout_graceful_shutdown=2,
        ssl_certfile=certificate or None,
        ssl_keyfile=key or None,
    )
    server = _Server(config)
    config.app = Dashboard(client, rules, sessions, lambda: server.should_exit).app()
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if task.done():
            await task
        yield Running(rules, sessions, actor)
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=5)
        listening.close()


def _listen(rules: Rules) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in rules.host else socket.AF_INET
        return socket.create_server((rules.host, rules.port), family=family)
    except OSError as error:
        raise UpgradeError(
            f"{rules.host}:{rules.port} cannot be listened on: {error.strerror}",
            hint="choose another port: komodo-upgrade dashboard --listen 127.0.0.1:8241",
        ) from None
