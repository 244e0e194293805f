"""Komodo Core: its settings, its database, and what it knows of the servers.

As in Komodo: the state "Ok" is as old as the last monitoring tick, and a v2 Core tries an unreachable agent every 5 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sandbox import keys
from sandbox.docker.engine import Container, Engine
from sandbox.komodo_core.outbound import Here, take
from sandbox.mongo.store import Document, Store
from sandbox.periphery.agent import Agent, CoreSide, Refusal, refused_websocket
from sandbox.periphery.log import line, seconds

RETRY = 5.0
"""Seconds between two tries of a v2 Core to reach an agent (v2.3.2:client/periphery/rs/src/lib.rs)."""
UNIT = "Kind: invalid type: map, expected unit, labels: {}, source: None"


@dataclass(slots=True)
class Status:
    """A server at the last monitoring tick: what the API answers until the next one."""

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
    """The state of one run of Core."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self.engine = engine
        self.container = container
        self.world = engine.host.world
        self.version = container.image.version
        self.major, self.minor, self.patch = (int(n) for n in self.version.split("."))
        self.env = container.environment
        self.store = Store()
        """Empty until the database answers."""
        self.public_key = ""
        self.status: dict[str, Status] = {}
        self.links: dict[str, Link] = {}
        self.listening = False
        self.broken = False
        self.tokens: dict[str, str] = {}
        self.failures: dict[str, list[float]] = {}
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

    def rotate_keys(self) -> None:
        """A new pair in the place of the one in its file, which agents are given that are logged in."""
        given = self.env.get("KOMODO_PRIVATE_KEY", "file:/config/keys/core.key")
        file = self.container.locate(given.removeprefix("file:"))
        file.unlink()
        self.public_key, _ = keys.ensure_pair(file)
        for link in self.links.values():
            if link.agent is not None:
                link.agent.take_key(self.public_key)

    def log(self, level: str, text: str, *, span: str = "", target: str = "") -> None:
        """One line of its log."""
        ansi = self.major == 1 or self.env.get("KOMODO_LOGGING_ANSI", "true").lower() != "false"
        at = target if self.major == 1 else ""
        self.container.say(line(level, text, ansi=ansi, span=span if self.major > 1 else "", target=at), "stdout")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until Core stops."""
        self._tasks.append(self.world.spawn(work))

    def stop(self) -> None:
        """End what `spawn` started; agents see the connection close."""
        self.listening = False
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        for link in self.links.values():
            if link.agent is not None:
                link.agent.closed(self.host_part)
        self.links.clear()

    # --- servers ------------------------------------------------------------------------------------------------------

    def servers(self) -> tuple[Document, ...]:
        """All Server documents, oldest first. Not copies: to be read only."""
        return self.store.read_all(self.database, "Server")

    def unreadable(self, collection: str) -> bool:
        """Whether this v1 Core meets documents that a v2 Core has touched."""
        found = self.store.peek(self.database, collection).documents
        return self.major == 1 and any(isinstance(d.get("info"), dict) for d in found)

    def reach(self, address: str) -> tuple[str, Agent | None]:
        """(host as written, the agent there) for a Server's address."""
        parts = urlsplit(address if "://" in address else f"https://{address}")
        written = parts.netloc.rpartition("@")[2].partition(":")[0]
        name, port = written.lower(), parts.port or 8120
        inside = self.engine.resolve(name, self.container.spec.network)
        if inside is not None:
            place = inside.address
        elif name in ("host.docker.internal", "localhost"):
            place = self.engine.host.address
        else:
            place = {n.lower(): address for n, address in self.world.addresses.items()}.get(name, name)
        found = self.world.listening.get((place, port))
        return written, found if isinstance(found, Agent) else None

    async def watch(self) -> None:
        """The monitoring tick."""
        while True:
            await asyncio.sleep(self.world.scaled(seconds(self.interval)))
            self.tick()

    def tick(self) -> None:
        """Check every server now."""
        if self.unreadable("Server"):
            self.log("ERROR", f"failed to get server list (manage status cache) | {UNIT}", target="core::monitor")
            return
        for server in self.servers():
            identity = str(server["_id"])
            if not server["config"].get("enabled"):
                self.status[identity] = Status(state="Disabled")
            elif self.major == 1:
                self.status[identity] = self._status_v1(server)
            else:
                stale = self._stale(self.reach(server["config"].get("address") or "")[1])
                self.status[identity] = stale or self._status_v2(identity)

    def _status_v1(self, server: Document) -> Status:
        _, agent = self.reach(server["config"]["address"])
        if agent is None or agent.request(self.passkey(server), self.engine.host.address) != 200:
            return Status(version="Unknown")
        return Status("Ok", agent.version, refreshed=time.time(), agent=agent)

    def _status_v2(self, identity: str) -> Status:
        link = self.links.get(identity) or Link()
        if link.agent is not None and link.agent.sessions.get(self.host_part) == identity:
            before = self.status.get(identity)
            frozen = before and before.refreshed and self.world.faults.on("stats-frozen", link.agent.host)
            at = before.refreshed if before and frozen else time.time()
            return Status("Ok", link.agent.version, link.agent.public_key, refreshed=at, agent=link.agent)
        return Status(err=link.error)

    def _stale(self, agent: Agent | None) -> Status | None:
        """Fault wrong-key on a server: for a while Core still reports a login that is no longer true."""
        if agent is None or not agent.running:
            return None
        fault = self.world.faults.on("wrong-key", agent.host)
        if fault is None or agent.with_core or time.time() - agent.started > float(fault.options.get("stale", 2)):
            return None
        return Status("Ok", agent.version, agent.public_key, refreshed=agent.started - 1, agent=agent)

    async def keep_connected(self) -> None:
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
                elif config.get("enabled"):
                    self._incoming(server)
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
            self.spawn(self._refresh(identity))
        elif stale := self._stale(self.reach(server["config"]["address"])[1]):
            self.status[identity] = stale

    def _incoming(self, server: Document) -> None:
        """A Server without an address: its agent connects by itself."""
        identity = str(server["_id"])
        link = self.links.setdefault(identity, Link())
        if link.agent is not None and link.agent.running and link.agent.sessions.get(self.host_part) == identity:
            return
        here = Here(engine=self.engine, container=self.container, host_part=self.host_part, public_key=self.public_key)
        link.agent = take(here, server)
        if link.agent is not None:
            self.spawn(self._refresh(identity))

    async def _refresh(self, identity: str) -> None:
        """Forced, about 100 ms after a login."""
        await asyncio.sleep(self.world.scaled(0.1))
        status = self._status_v2(identity)
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
