"""Hosts of the sandbox on which a test runs scripts itself, without SSH: a thread serves their stand-ins."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sandbox.docker import processes
from sandbox.docker.engine import Engine
from sandbox.handlers import handlers
from sandbox.machine.control import Control
from sandbox.machine.host import SandboxHost
from sandbox.world import World, free_net

T = TypeVar("T")


class LocalHosts:
    """One event loop and one control pipe for all hosts of a test session."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._folder = tempfile.TemporaryDirectory(prefix="kul-")  # removed at the end of the process
        self._control = Control(Path(self._folder.name))
        self.run(self._control.start())

    @classmethod
    @functools.cache
    def of_session(cls) -> LocalHosts:
        """Started when a test first needs it."""
        return cls()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of the sandbox where the sandbox runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def host(self, root: Path) -> SandboxHost:
        """A host without Docker. Its name is that of its folder."""
        host = self._new(root)
        self._control.add(host, handlers())
        return host

    def docker_host(self, root: Path) -> Engine:
        """The engine of a host with Docker."""
        engine = Engine(self._new(root), processes.run)
        self._control.add(engine.host, handlers(engine))
        return engine

    def _new(self, root: Path) -> SandboxHost:
        net = self.run(free_net())
        return SandboxHost(World(id=str(root), net=net, speed=20), str(root), root, f"{net}.11", user="root")
