"""Core as a process: the sandbox's Core with a real database and agents on the network."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import bson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from sandbox.komodo_core import seed_documents, startup
from sandbox.komodo_core.api import CoreApi
from sandbox.komodo_core.core import RETRY, Core, Link
from sandbox.komodo_core.program import CoreProgram
from sandbox.mongo.store import Document
from sandbox.periphery.log import seconds
from sandbox.web import Request
from tests.e2e.standins.line import RemoteAgent
from tests.e2e.standins.parts import Container, Engine, Image, Server
from tests.e2e.standins.store import MongoStore

COLLECTIONS = ("UserGroup", "Permission", "GitProviderAccount", "DockerRegistryAccount", "Build", "Builder", "Repo",
               "Alerter", "ResourceSync", "Deployment", "Stack", "Action", "Alert", "Stats", "Variable",
               "Update")  # fmt: skip


def client(env: dict[str, str], **options: Any) -> MongoClient[Any]:
    """A client for KOMODO_DATABASE_URI, or for _ADDRESS, _USERNAME and _PASSWORD."""
    uri = env.get("KOMODO_DATABASE_URI", "")
    if not uri:
        user, password = env.get("KOMODO_DATABASE_USERNAME", ""), env.get("KOMODO_DATABASE_PASSWORD", "")
        who = f"{quote_plus(user)}:{quote_plus(password)}@" if user else ""
        uri = f"mongodb://{who}{env.get('KOMODO_DATABASE_ADDRESS', 'localhost:27017')}/"
    return MongoClient(uri, **options)


class Api(CoreApi):
    """The API with the calls that create a new installation's content."""

    async def _call(self, route: str, kind: str, params: dict[str, Any], user: str) -> Any:
        if route == "user" and kind == "CreateApiKey":
            return self._new_key(params, user)
        if route == "write" and kind == "CreateVariable":
            store = self.core.store
            store.insert(self.core.database, "Variable", [{**params, "_id": bson.ObjectId()}])
            return params
        if route == "read" and kind == "ListVariables":
            store = self.core.store
            return [{k: v for k, v in d.items() if k != "_id"} for d in store.find(self.core.database, "Variable", {})]
        if route == "read" and kind == "ListUpdates":
            params = {"page": 0, **params}
        return await super()._call(route, kind, params, user)

    def _user(self, request: Request) -> str:
        """The user of an API key. Each key has its own secret, stored as a hash."""
        key, secret = request.headers.get("x-api-key", ""), request.headers.get("x-api-secret", "")
        store = self.core.store
        if key:
            found = store.find(self.core.database, "ApiKey", {"key": key})
            right = bool(found) and found[0]["secret"] == hashlib.sha256(secret.encode()).hexdigest()
            self.core.world.api_secret = secret if right else f"{secret}-not"
        return super()._user(request)

    def _new_key(self, params: dict[str, Any], user: str) -> dict[str, str]:
        store = self.core.store
        key, secret = f"K-{secrets.token_hex(20)}", f"S-{secrets.token_hex(20)}"
        hashed = hashlib.sha256(secret.encode()).hexdigest()
        store.insert(
            self.core.database,
            "ApiKey",
            [{"_id": bson.ObjectId(), "name": params["name"], "key": key, "secret": hashed, "user_id": user,
              "created_at": int(time.time() * 1000), "expires": bson.Int64(0)}],
        )  # fmt: skip
        return {"key": key, "secret": secret}


class RealCore(Core):
    """Reaches agents over the network, and reads the database at each tick."""

    def reach(self, address: str) -> tuple[str, Any]:
        """(host as written, the agent at that address, whether it answers or not)."""
        written = urlsplit(address if "://" in address else f"https://{address}").netloc.partition(":")[0]
        agent = RemoteAgent(address)
        agent.private = private_key(self.env) if self.major >= 2 else None
        return written, agent

    def _stale(self, agent: object) -> None:
        """Simulate nothing: an outdated Ok arises between two ticks."""
        return

    async def watch(self) -> None:
        while True:
            written(self.store).forget()
            await asyncio.to_thread(self.tick)
            await asyncio.sleep(seconds(self.interval.strip('"')))

    async def keep_connected(self) -> None:
        """Reconnect each server independently: at once, then every 5 s."""
        tending: dict[str, asyncio.Task[None]] = {}
        while True:
            for server in await asyncio.to_thread(self.servers):
                identity = str(server["_id"])
                if server["config"].get("enabled") and identity not in tending:
                    tending[identity] = asyncio.ensure_future(self._tend(server, identity))
                    self._tasks.append(tending[identity])
            for task in tending.values():
                if task.done():
                    task.result()
            await asyncio.sleep(1)

    async def _tend(self, server: Document, identity: str) -> None:
        link = self.links.setdefault(identity, Link())
        while True:
            agent: Any = link.agent
            if agent is None:
                found, link.error = await asyncio.to_thread(self._try, server, identity)
                link.agent = found
                if found is None:
                    await asyncio.sleep(RETRY)
                    continue
                await asyncio.sleep(0.1)
                self.status[identity] = self._status_v2(identity)
            else:
                await asyncio.to_thread(agent.alive)
                if not agent.sessions:
                    link.agent = None
                    continue
            await asyncio.sleep(0.5)


class RealProgram(CoreProgram):
    """One run of Core, on the database that the environment names."""

    def __init__(self, engine: Any, container: Any) -> None:
        super().__init__(engine, container)
        self.core: Core = RealCore(engine, container)

    async def _connect_database(self) -> bool:
        core = self.core
        mongo = client(dict(os.environ), serverSelectionTimeoutMS=2000)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                await asyncio.to_thread(mongo.admin.command, "listDatabases")
            except PyMongoError:
                await asyncio.sleep(0.3)
                continue
            core.store = MongoStore(mongo)  # type: ignore[assignment]
            self._first_start()
            return True
        core.log("ERROR", "Failed to initialize database::Client | Kind: Server selection timeout")
        os._exit(1)

    def _first_start(self) -> None:
        """Create an admin, the first server and Komodo's own procedures in an empty database."""
        core = self.core
        store, database = core.store, core.database
        if store.find(database, "User"):
            return
        admin = seed_documents._user(bson.ObjectId(), int(time.time() * 1000))
        admin["username"] = core.env.get("KOMODO_INIT_ADMIN_USERNAME", "admin")
        store.insert(database, "User", [admin])
        for name in COLLECTIONS:
            store.collection(database, name)
        first = core.env.get("KOMODO_FIRST_SERVER", "")
        if first:
            name = core.env.get("KOMODO_FIRST_SERVER_NAME", "Local")
            server = seed_documents.resource("Server", name, {"address": first, "enabled": True})
            if core.major > 1:
                server["info"] = {"attempted_public_key": "", "public_key": ""}
            store.insert(database, "Server", [server])
        tag = bson.ObjectId()
        store.insert(database, "Tag", [{"_id": tag, "name": "system", "owner": "System", "color": "Red"}])
        store.insert(database, "Procedure", seed_documents._procedures(str(tag))[:2])

    async def _begin(self) -> None:
        try:
            await self._work()
        except Exception:  # noqa: BLE001 - a defect of the stand-in must be visible
            traceback.print_exc()
            os._exit(70)

    async def _work(self) -> None:
        core = self.core
        await asyncio.sleep(0.4)
        await self._connect_database()
        core.broken = startup.run(core)
        written(core.store).flush()
        await self._listen()
        work = [core.watch()]
        if core.major >= 2 and not core.broken:
            work.append(core.keep_connected())
        await asyncio.gather(*work)

    async def _listen(self) -> None:
        core = self.core
        inner = int(core.env.get("KOMODO_PORT", "9120"))
        server = Server(Api(core).answer)
        await server.start("", inner)
        self._servers.append(server)
        core.listening = True
        bind = core.env.get("KOMODO_BIND_IP", "[::]")
        word, target = ("Komodo Core starting", "core") if core.major == 1 else ("Server starting", "")
        core.log("INFO", f"{word} on http://{bind}:{inner}", target=target)


def written(store: object) -> MongoStore:
    """The store of a Core that is connected."""
    assert isinstance(store, MongoStore)
    return store


def private_key(env: dict[str, str]) -> X25519PrivateKey:
    """Core's private key."""
    given = env.get("KOMODO_PRIVATE_KEY", "file:/config/keys/core.key")
    if given.startswith("file:"):
        given = Path(given.removeprefix("file:")).read_text()
    if "-----BEGIN" in given:
        loaded: Any = serialization.load_pem_private_key(given.encode(), None)
    elif len(given) <= 32:
        loaded = X25519PrivateKey.from_private_bytes(given.encode().ljust(32, b"\0"))
    else:
        loaded = serialization.load_der_private_key(base64.b64decode(given), None)
    assert isinstance(loaded, X25519PrivateKey)
    return loaded


async def serve(version: str) -> int:
    """Run until SIGTERM."""
    core = RealProgram(Engine(), Container(Image(version)))
    code = await core.start()
    if code is not None:
        return code
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    await ended.wait()
    await core.stop()
    return 0


def main(version: str) -> int:
    """Run the program. Returns its exit code."""
    if sys.argv[1:2] in (["--version"], ["-V"]):
        print(f"komodo_core {version}")
        return 0
    code = asyncio.run(serve(version))
    sys.stdout.flush()
    os._exit(code)
