"""What runs in simulated containers: mongod, Core, the agent, or nothing in particular."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sandbox.agent import Agent
from sandbox.core import Core
from sandbox.mongo_store import Store
from sandbox.mongo_wire import MongoServer

if TYPE_CHECKING:
    from sandbox.engine import Container, Engine, Program


class Mongo:
    """mongod of the official image: makes its root user at the first start of an empty volume."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self._container = container
        self._ferretdb = container.image.ferretdb
        # FerretDB keeps nothing itself: whatever container of it runs in this network finds the same data.
        volume = f"postgres of {container.spec.network}" if self._ferretdb else str(container.locate("/data/db"))
        self.store = engine.host.world.stores.setdefault(volume, Store())
        self.server: MongoServer | None = None

    async def start(self) -> int | None:
        """Listen on the container's address."""
        env = self._container.environment
        user, password = env.get("MONGO_INITDB_ROOT_USERNAME", ""), env.get("MONGO_INITDB_ROOT_PASSWORD", "")
        if self._ferretdb:  # users are PostgreSQL's
            parts = urlsplit(env.get("FERRETDB_POSTGRESQL_URL", ""))
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not self.store.users and not self.store.databases:
            if user and password:
                self.store.users["admin", user] = password
            self.store.collection("admin", "system.version")
        version = "7.0.77" if self._ferretdb else self._container.image.version
        self.server = MongoServer(self.store, version=version, auth=bool(self.store.users), ferretdb=self._ferretdb)
        await self.server.start(self._container.address)
        return None

    async def stop(self) -> None:
        """Close the port."""
        if self.server is not None:
            await self.server.stop()
            self.server = None


class AgentProgram:
    """Periphery in a container."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self._engine = engine
        self._container = container
        self.agent = Agent(
            world=engine.host.world,
            host=engine.host,
            version=container.image.version,
            argv=list(container.spec.cmd or []),
            env=container.environment,
            say=container.say,
            address=container.address,
            locate=container.locate,
            container=True,
        )

    async def start(self) -> int | None:
        """Read the config and listen."""
        code = self.agent.start()
        fault = self._engine.host.world.faults.on("crash-loop", self._engine.host.name)
        if code is None and fault is not None and fault.covers(self.agent.version):
            self.agent.crash()
            return 1
        return code

    async def stop(self) -> None:
        """SIGTERM."""
        await self.agent.stop()


class Idle:
    """Any other image: runs and does nothing."""

    async def start(self) -> int | None:
        """Nothing."""
        return None

    async def stop(self) -> None:
        """Nothing."""


def database_of(container: Container | None) -> MongoServer | None:
    """The server in a running mongo container."""
    program = container.program if container else None
    return program.server if isinstance(program, Mongo) else None


def run(engine: Engine, container: Container) -> Program:
    """The program of a container, by its image."""
    role = container.image.program
    if role == "mongo":
        return Mongo(engine, container)
    if role == "periphery":
        return AgentProgram(engine, container)
    if role == "core":
        return Core(engine, container)
    return Idle()
