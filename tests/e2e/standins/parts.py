"""The environment that the sandbox's Core and agent expect, made of one real process on one real machine."""

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
    """Print a line of the log at once."""
    print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)


def locate(path: str) -> Path:
    """Return the path: every path is the machine's own."""
    return Path(path)


@dataclass
class Here:
    """The machine; a SandboxHost in the sandbox."""

    world: World = field(default_factory=lambda: World(id="", net=""))
    name: str = field(default_factory=socket.gethostname)
    address: str = ""


@dataclass
class Image:
    """The image of the container; only its version matters."""

    version: str


@dataclass
class Spec:
    """The container's ports are published by the engine outside."""

    ports: tuple[Any, ...] = ()
    network: str = ""
    cmd: tuple[str, ...] = ()


@dataclass
class Container:
    """The container of Core: its environment, its log, its files."""

    image: Image
    address: str = ""
    spec: Spec = field(default_factory=Spec)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def say(self, text: str, stream: str) -> None:
        """Print a line of the log."""
        say(text, stream)

    def locate(self, path: str) -> Path:
        """The path of a file."""
        return locate(path)


@dataclass
class Engine:
    """An engine without other containers: the network resolves names."""

    host: Here = field(default_factory=Here)

    def resolve(self, _name: str, _network: str) -> None:
        """No fault is simulated."""
        return

    def exited(self, _container: Container, code: int) -> None:
        """End the process."""
        sys.stdout.flush()
        os._exit(code)


class Server(WebServer):
    """The sandbox's web server on all IPv4 and IPv6 addresses, optionally with TLS."""

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
