"""Komodo Core as the program of a container: reads its environment and keys, connects the database, listens.

As in Komodo: a v2 Core changes `Server.info`, which a v1 Core cannot read afterwards (v2.3.2:bin/core/src/startup.rs),
and `/version` answers as soon as the port is open, whether or not anything else works.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from sandbox import keys
from sandbox.docker.engine import Container, Engine
from sandbox.komodo_core import log, startup
from sandbox.komodo_core.api import CoreApi
from sandbox.komodo_core.core import Core
from sandbox.mongo.program import database_of
from sandbox.mongo.store import Store
from sandbox.periphery.log import panic
from sandbox.web import WebServer

STARTING = 0.4
"""Seconds from the first line to the open port."""
DATABASE_PATIENCE = 30.0


class CoreProgram:
    """One run of the program; `core` is its state."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self.core = Core(engine, container)
        self._servers: list[WebServer] = []

    async def start(self) -> int | None:
        """Read the environment; everything else happens in the background."""
        core = self.core
        if core.major >= 2:
            problem = log.alias_pair(core.env)
            if problem:
                for text in panic("bin/core/src/config.rs:116:9", problem, thread=25228):
                    core.container.say(text, "stderr")
                return 1
        core.container.say(log.KEYWORDS, "stdout")
        core.log("INFO", f"Komodo Core version: v{core.version}", span="CoreStartup", target="core")
        core.log("INFO", log.config(core.env, core.version), span="CoreStartup", target="core")
        if core.major >= 2:
            self._keys()
        core.spawn(self._begin())
        return None

    def _keys(self) -> None:
        core = self.core
        given = core.env.get("KOMODO_PRIVATE_KEY", "file:/config/keys/core.key")
        if not given.startswith("file:"):
            core.public_key = keys.read_private(given)
        else:
            name = given.removeprefix("file:")
            file = core.container.locate(name)
            if core.world.faults.strike("wrong-key", core.engine.host.name):
                file.unlink(missing_ok=True)
            core.public_key, new = keys.ensure_pair(file)
            if new:
                core.log("INFO", f'Writing private key to "{name}"', span="CoreStartup")
                core.log("INFO", f'Writing public key to "{name.removesuffix(".key")}.pub"', span="CoreStartup")
        core.log("INFO", f"Public Key: {core.public_key}", span="CoreStartup")

    async def stop(self) -> None:
        """Handle SIGTERM: close the ports and the connections to agents."""
        for server in self._servers:
            await server.stop()
        self._servers.clear()
        self.core.stop()

    async def _begin(self) -> None:
        core = self.core
        await asyncio.sleep(core.world.scaled(STARTING))
        fault = core.world.faults.on("core-never-up", core.engine.host.name)
        if fault is not None and fault.covers(core.version):
            await asyncio.Event().wait()
        if not await self._connect_database():
            return
        core.broken = startup.run(core)
        await self._listen()
        if core.major >= 2 and not core.broken:
            core.spawn(core.keep_connected())
        core.spawn(core.watch())

    async def _connect_database(self) -> bool:
        core = self.core
        deadline = time.monotonic() + core.world.scaled(DATABASE_PATIENCE)
        while time.monotonic() < deadline:
            if (store := self._find_database()) is not None:
                core.store = store
                return True
            await asyncio.sleep(0.05)
        if core.major == 1:
            for text in panic("bin/core/src/state.rs:48:6", "failed to initialize database client"):
                core.container.say(text, "stderr")
        else:
            text = "Failed to initialize database::Client | Kind: Server selection timeout: No available servers."
            core.container.say(f"FATAL: {text}", "stderr")
        core.engine.exited(core.container, 1)
        return False

    def _find_database(self) -> Store | None:
        core = self.core
        uri = core.env.get("KOMODO_DATABASE_URI", "")
        parts = urlsplit(uri or f"mongodb://{core.env.get('KOMODO_DATABASE_ADDRESS', 'localhost:27017')}")
        user = parts.username or core.env.get("KOMODO_DATABASE_USERNAME", "")
        password = parts.password or core.env.get("KOMODO_DATABASE_PASSWORD", "")
        container = core.engine.resolve(parts.hostname or "", core.container.spec.network)
        server = database_of(container)
        if server is None:
            return None
        if server.auth and server.store.users.get(("admin", user)) != password:
            return None
        return server.store

    async def _listen(self) -> None:
        core = self.core
        answer = CoreApi(core).answer
        inner = int(core.env.get("KOMODO_PORT", "9120"))
        places = {(core.container.address, inner)}
        for ip, outer, target in core.container.spec.ports:
            if target == inner:
                places.add((ip if ip not in ("", "0.0.0.0", "127.0.0.1") else core.engine.host.address, outer))
        for address, port in places:
            server = WebServer(answer)
            await server.start(address, port)
            self._servers.append(server)
        core.listening = True
        bind = core.env.get("KOMODO_BIND_IP", "[::]")
        if core.major == 1:
            core.log("INFO", f"Komodo Core starting on http://{bind}:{inner}", target="core")
        else:
            core.log("INFO", f"Server starting on http://{bind}:{inner}")
