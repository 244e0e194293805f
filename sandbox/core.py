"""Komodo Core in its container: starts, reads and writes its database, watches the servers, answers the API.

What is kept to: a v2 Core touches `Server.info`, a v1 Core cannot read it afterwards (komodo v2.3.2:bin/core/src/
startup.rs); "Ok" is as old as the last tick; a v2 Core tries an unreachable agent every 5 s; `/version` answers as
soon as the port is open, whether or not anything else works.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox import core_log, keys
from sandbox.agent import Agent, CoreSide, Refusal, refused_websocket
from sandbox.mongo_store import Document, Store
from sandbox.rustlog import line, panic, seconds
from sandbox.web import WebServer

if TYPE_CHECKING:
    from sandbox.engine import Container, Engine

RETRY = 5.0
"""Seconds between two tries of a v2 Core to reach an agent (v2.3.2:client/periphery/rs/src/lib.rs)."""
STARTING = 0.4
"""From the first line to the open port."""
DATABASE_PATIENCE = 30.0
UNIT = "Kind: invalid type: map, expected unit, labels: {}, source: None"


@dataclass(slots=True)
class Status:
    """A server as the last look left it: what the API tells until the next one."""

    state: str = "NotOk"
    version: str = ""
    public_key: str = ""
    err: Refusal | None = None
    refreshed: float = 0.0
    agent: Agent | None = None


@dataclass(slots=True)
class Link:
    """A v2 Core's connection to one agent."""

    agent: Agent | None = None
    error: Refusal | None = None
    next_try: float = 0.0


class Core:
    """One run of Core."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self.engine = engine
        self.container = container
        self.world = engine.host.world
        self.version = container.image.version
        self.major, self.minor, self.patch = (int(n) for n in self.version.split("."))
        self.env = container.environment
        self.store: Store | None = None
        self.public_key = ""
        self.status: dict[str, Status] = {}
        self.links: dict[str, Link] = {}
        self.listening = False
        self.broken = False
        self.tokens: dict[str, str] = {}
        self.failures: dict[str, list[float]] = {}
        self._servers: list[WebServer] = []
        self._tasks: list[asyncio.Task[Any]] = []

    # --- settings -----------------------------------------------------------------------------------------------------

    @property
    def database(self) -> str:
        """Name of its database."""
        return self.env.get("KOMODO_DATABASE_DB_NAME", "komodo")

    @property
    def url(self) -> str:
        """KOMODO_HOST."""
        return self.env.get("KOMODO_HOST", "https://komodo.example.com")

    @property
    def host_part(self) -> str:
        """What agents print at login."""
        return urlsplit(self.url).hostname or ""

    @property
    def interval(self) -> str:
        """monitoring_interval."""
        return self.env.get("KOMODO_MONITORING_INTERVAL", "15-sec")

    def passkey(self, server: Document) -> str:
        """For one server: its own, else Core's; only v1 has a built-in default."""
        default = "default-passkey-changeme" if self.major == 1 else ""
        return str(server["config"].get("passkey") or self.env.get("KOMODO_PASSKEY", default))

    # --- life ---------------------------------------------------------------------------------------------------------

    def log(self, level: str, text: str, *, span: str = "", target: str = "") -> None:
        """One line of its log."""
        ansi = self.major == 1 or self.env.get("KOMODO_LOGGING_ANSI", "true").lower() != "false"
        at = target if self.major == 1 else ""
        self.container.say(line(level, text, ansi=ansi, span=span if self.major > 1 else "", target=at), "stdout")

    async def start(self) -> int | None:
        """Read the environment; everything else happens in the background."""
        if self.major >= 2:
            problem = core_log.alias_pair(self.env)
            if problem:
                for text in panic("bin/core/src/config.rs:116:9", problem, thread=25228):
                    self.container.say(text, "stderr")
                return 1
        self.container.say(core_log.KEYWORDS, "stdout")
        self.log("INFO", f"Komodo Core version: v{self.version}", span="CoreStartup", target="core")
        self.log("INFO", core_log.config(self.env, self.version), span="CoreStartup", target="core")
        if self.major >= 2:
            self._keys()
        self._tasks.append(self.world.spawn(self._begin()))
        return None

    def _keys(self) -> None:
        given = self.env.get("KOMODO_PRIVATE_KEY", "file:/config/keys/core.key")
        if not given.startswith("file:"):
            self.public_key = keys.read_private(given)
        else:
            name = given.removeprefix("file:")
            file = self.container.locate(name)
            if self.world.faults.strike("wrong-key", self.engine.host.name):
                file.unlink(missing_ok=True)
            self.public_key, new = keys.ensure_pair(file)
            if new:
                self.log("INFO", f'Writing private key to "{name}"', span="CoreStartup")
                self.log("INFO", f'Writing public key to "{name.removesuffix(".key")}.pub"', span="CoreStartup")
        self.log("INFO", f"Public Key: {self.public_key}", span="CoreStartup")

    async def stop(self) -> None:
        """SIGTERM: ports closed, agents see the connection close."""
        self.listening = False
        for server in self._servers:
            await server.stop()
        self._servers.clear()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        for link in self.links.values():
            if link.agent is not None:
                link.agent.closed(self.host_part)
        self.links.clear()

    async def _begin(self) -> None:
        await asyncio.sleep(self.world.scaled(STARTING))
        fault = self.world.faults.on("core-never-up", self.engine.host.name)
        if fault is not None and fault.covers(self.version):
            await asyncio.Event().wait()
        if not await self._connect_database():
            return
        assert self.store is not None
        from sandbox import core_startup

        self.broken = core_startup.run(self)
        await self._listen()
        if self.major >= 2 and not self.broken:
            self._tasks.append(self.world.spawn(self._keep_connected()))
        self._tasks.append(self.world.spawn(self._watch()))

    async def _connect_database(self) -> bool:
        deadline = time.monotonic() + self.world.scaled(DATABASE_PATIENCE)
        while time.monotonic() < deadline:
            self.store = self._find_database()
            if self.store is not None:
                return True
            await asyncio.sleep(0.05)
        if self.major == 1:
            for text in panic("bin/core/src/state.rs:48:6", "failed to initialize database client"):
                self.container.say(text, "stderr")
        else:
            text = "Failed to initialize database::Client | Kind: Server selection timeout: No available servers."
            self.container.say(f"FATAL: {text}", "stderr")
        self.engine.exited(self.container, 1)
        return False

    def _find_database(self) -> Store | None:
        from sandbox.programs import database_of

        uri = self.env.get("KOMODO_DATABASE_URI", "")
        parts = urlsplit(uri or f"mongodb://{self.env.get('KOMODO_DATABASE_ADDRESS', 'localhost:27017')}")
        user = parts.username or self.env.get("KOMODO_DATABASE_USERNAME", "")
        password = parts.password or self.env.get("KOMODO_DATABASE_PASSWORD", "")
        container = self.engine.resolve(parts.hostname or "", self.container.spec.network)
        server = database_of(container)
        if server is None:
            return None
        if server.auth and server.store.users.get(("admin", user)) != password:
            return None
        return server.store

    async def _listen(self) -> None:
        from sandbox.core_api import CoreApi

        answer = CoreApi(self).answer
        inner = int(self.env.get("KOMODO_PORT", "9120"))
        places = {(self.container.address, inner)}
        for ip, outer, target in self.container.spec.ports:
            if target == inner:
                places.add((ip if ip not in ("", "0.0.0.0", "127.0.0.1") else self.engine.host.address, outer))
        for address, port in places:
            server = WebServer(answer)
            await server.start(address, port)
            self._servers.append(server)
        self.listening = True
        bind = self.env.get("KOMODO_BIND_IP", "[::]")
        if self.major == 1:
            self.log("INFO", f"Komodo Core starting on http://{bind}:{inner}", target="core")
        else:
            self.log("INFO", f"Server starting on http://{bind}:{inner}")

    # --- servers ------------------------------------------------------------------------------------------------------

    def servers(self) -> tuple[Document, ...]:
        """All Server documents, oldest first. Not copies: to be read only."""
        assert self.store is not None
        return self.store.look(self.database, "Server")

    def unreadable(self, collection: str) -> bool:
        """Whether this v1 Core meets documents that a v2 Core has touched."""
        assert self.store is not None
        found = self.store.peek(self.database, collection).documents
        return self.major == 1 and any(isinstance(d.get("info"), dict) for d in found)

    def reach(self, address: str) -> tuple[str, Agent | None]:
        """(host as written, the agent there) for a Server's address."""
        parts = urlsplit(address if "://" in address else f"https://{address}")
        written = parts.netloc.rpartition("@")[2].partition(":")[0]
        name, port = written.lower(), parts.port or 8120
        inside = self.engine.resolve(name, self.container.spec.network)
        if inside is not None:
            return written, self.world.agents.get((inside.address, port))
        if name in ("host.docker.internal", "localhost"):
            return written, self.world.agents.get((self.engine.host.address, port))
        known = {h.name.lower(): h.address for h in self.world.hosts.values()}
        return written, self.world.agents.get((known.get(name, name), port))

    async def _watch(self) -> None:
        """The monitoring tick."""
        while True:
            await asyncio.sleep(self.world.scaled(seconds(self.interval)))
            self.tick()

    def tick(self) -> None:
        """Look at every server now."""
        if self.unreadable("Server"):
            self.log("ERROR", f"failed to get server list (manage status cache) | {UNIT}", target="core::monitor")
            return
        for server in self.servers():
            identity = str(server["_id"])
            if not server["config"].get("enabled"):
                self.status[identity] = Status(state="Disabled")
            elif self.major == 1:
                self.status[identity] = self._look_v1(server)
            else:
                stale = self._stale(self.reach(server["config"].get("address") or "")[1])
                self.status[identity] = stale or self._look_v2(identity)

    def _look_v1(self, server: Document) -> Status:
        _, agent = self.reach(server["config"]["address"])
        if agent is None or agent.request(self.passkey(server), self.engine.host.address) != 200:
            return Status(version="Unknown")
        return Status("Ok", agent.version, refreshed=time.time(), agent=agent)

    def _look_v2(self, identity: str) -> Status:
        link = self.links.get(identity) or Link()
        if link.agent is not None and link.agent.sessions.get(self.host_part) == identity:
            return Status("Ok", link.agent.version, link.agent.public_key, refreshed=time.time(), agent=link.agent)
        return Status(err=link.error)

    def _stale(self, agent: Agent | None) -> Status | None:
        """Fault wrong-key on a server: for a while Core still tells of a login that is not true any more."""
        if agent is None or not agent.running:
            return None
        fault = self.world.faults.on("wrong-key", agent.host.name)
        if fault is None or agent.container or time.time() - agent.started > float(fault.options.get("stale", 2)):
            return None
        return Status("Ok", agent.version, agent.public_key, refreshed=agent.started - 1, agent=agent)

    async def _keep_connected(self) -> None:
        """A v2 Core's connections: lost ones are tried at once, then every 5 s."""
        pause = min(0.1, self.world.scaled(RETRY) / 5)
        while True:
            moment = time.monotonic()
            servers = self.servers()
            for gone in set(self.links) - {str(s["_id"]) for s in servers}:
                link = self.links.pop(gone)
                self.status.pop(gone, None)
                if link.agent is not None:
                    link.agent.closed(self.host_part)
            for server in servers:
                config = server["config"]
                if config.get("enabled") and config.get("address"):
                    self._connection(server, moment)
            await asyncio.sleep(pause)

    def _connection(self, server: Document, moment: float) -> None:
        identity = str(server["_id"])
        link = self.links.setdefault(identity, Link())
        if link.agent is not None:
            if link.agent.running and link.agent.sessions.get(self.host_part) == identity:
                return
            link.agent, link.next_try = None, 0.0
        if moment < link.next_try:
            return
        link.agent, link.error = self._try(server, identity)
        link.next_try = moment + self.world.scaled(RETRY)
        if link.agent is not None:
            self._tasks.append(self.world.spawn(self._refresh(identity)))
        elif stale := self._stale(self.reach(server["config"]["address"])[1]):
            self.status[identity] = stale

    async def _refresh(self, identity: str) -> None:
        """Forced, about 100 ms after a login."""
        await asyncio.sleep(self.world.scaled(0.1))
        status = self._look_v2(identity)
        if status.state == "Ok":
            self.status[identity] = status

    def _try(self, server: Document, identity: str) -> tuple[Agent | None, Refusal | None]:
        address = str(server["config"]["address"])
        scheme, mark, rest = address.partition("://")
        socket = {"https": "wss", "http": "ws"}.get(scheme, "wss") if mark else "ws"
        url = f"{socket}://{rest if mark else address}/?core={self.host_part}"
        written, agent = self.reach(address)
        if agent is None or not agent.running:
            refused = "Connection refused (os error 111)"
            return None, refused_websocket(url, f"IO error: {refused}", refused)
        side = CoreSide(
            server_id=identity,
            host=self.host_part,
            public_key=self.public_key,
            passkey=self.passkey(server),
            address=self.engine.host.address,
            url_host=written,
        )
        expected = str((server.get("info") or {}).get("public_key") or "")
        if expected and agent.public_key and agent.public_key != expected and agent.config.core_public_keys is not None:
            rule = "Ensure public key matches configured Periphery Public Key"
            trace = (rule, f"{agent.public_key} is invalid")
            return None, Refusal("Core failed to validate Periphery public key", trace)
        refusal = agent.connect(side, url)
        return (agent, None) if refusal is None else (None, refusal)
