"""mongod, or FerretDB, in a simulated container."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from sandbox.docker.engine import Container, Engine
from sandbox.mongo.store import Store
from sandbox.mongo.wire import MongoServer


class Mongo:
    """mongod of the official image, which creates its root user at the first start with an empty volume."""

    def __init__(self, engine: Engine, container: Container) -> None:
        self._container = container
        self._ferretdb = container.image.ferretdb
        # FerretDB stores nothing itself: every container of it in this network has the same data.
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


def database_of(container: Container | None) -> MongoServer | None:
    """The server in a running mongo container."""
    program = container.program if container else None
    return program.server if isinstance(program, Mongo) else None
