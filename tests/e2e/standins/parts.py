"""What the sandbox's Core and agent expect around them, made of one real process on one real machine."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.web import Request, Response, WebServer
from sandbox.world import World


def say(text: str, stream: str) -> None:
    """A line of the log, out at once."""
    print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)


def locate(path: str) -> Path:
    """Every path is the machine's own."""
    return Path(path)


@dataclass
class Here:
    """The machine: in the sandbox a SandboxHost."""

    world: World = field(default_factory=lambda: World(id="", net=""))
    name: str = field(default_factory=socket.gethostname)
    address: str = ""


@dataclass
class Image:
    """Of the container that the process runs in: only the version counts."""

    version: str


@dataclass
class Spec:
    """The container's ports are published by the engine outside."""

    ports: tuple[Any, ...] = ()
    network: str = ""
    cmd: tuple[str, ...] = ()


@dataclass
class Container:
    """Around Core: its environment, its log, its files."""

    image: Image
    address: str = ""
    spec: Spec = field(default_factory=Spec)

    @property
    def environment(self) -> dict[str, str]:
        """Of the process."""
        return dict(os.environ)

    def say(self, text: str, stream: str) -> None:
        """A line of the log."""
        say(text, stream)

    def locate(self, path: str) -> Path:
        """A file."""
        return locate(path)


@dataclass
class Engine:
    """Knows no other container: names are resolved by the network."""

    host: Here = field(default_factory=Here)

    def resolve(self, _name: str, _network: str) -> None:
        """Never simulated here."""
        return

    def exited(self, _container: Container, code: int) -> None:
        """Core gives up."""
        sys.stdout.flush()
        os._exit(code)


class Server(WebServer):
    """The sandbox's web server on all addresses, IPv4 and IPv6, with TLS where given."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], context: ssl.SSLContext | None = None) -> None:
        super().__init__(self._plain_peer)
        self._inner = answer
        self._context = context

    async def _plain_peer(self, request: Request) -> Response:
        request.peer = request.peer.removeprefix("::ffff:")
        return await self._inner(request)

    async def start(self, address: str, port: int) -> int:
        """Listen on every address, whatever `address` says."""
        import asyncio

        self._server = await asyncio.start_server(self._serve, None, port, ssl=self._context)
        return port
