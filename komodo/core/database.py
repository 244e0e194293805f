"""Core's database through motor: version, counts, the documents the plan needs, and the drop before a restore.

Who connects where: Core's own settings (v1.19.5:client/core/rs/src/entities/config/core.rs `DatabaseConfig`,
lib/database/src/lib.rs), reached on the database container's address through the SSH connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

import bson
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure, PyMongoError

from model.errors import DatabaseDenied, DatabaseError, DatabaseUnreachable
from model.facts import CollectionCount
from model.text.outside import single_line

DEFAULT_PORT = 27017
TRIED = "allowed"
"""The collection that `may_write` makes: all that is left of it where its connection is cut."""
_HOST = "127.0.0.1"
_BATCH = 1000
"""Documents per batch: a slow database answers its own monitor between two batches."""
_LIMIT = 64 * 1024 * 1024
"""Bytes of a query whose answer is held in memory: Servers, Actions, Procedures, Stacks."""
_WHOLE_ANSWER = 600.0
"""Seconds from a request to the end of its answer; counting a large collection without an index takes minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLogin:
    """How Core logs in to its database. The password is in memory only and left out of repr."""

    host: str
    port: int = DEFAULT_PORT
    username: str = ""
    password: str = field(default="", repr=False)
    name: str = "komodo"
    auth_source: str = ""
    """Empty: `admin`, where the official files create the user."""
    mechanism: str = ""

    def uri(self, host: str = _HOST, port: int = 0) -> str:
        """For mongodump and mongorestore: the user, never the password (argv is readable by every user of a host)."""
        options = {"authSource": self.auth_source or "admin"}
        if self.mechanism:
            options["authMechanism"] = self.mechanism
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        tail = f"?{urlencode(options)}" if self.username else ""
        return f"mongodb://{user}{host}:{port or self.port}/{tail}"

    def config(self) -> bytes:
        """The one line that `--config=/dev/stdin` takes; empty where there is no password."""
        if not self.password:
            return b""
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.password) and self.password.lower() not in _YAML_WORDS
        return f"password: {self.password if plain else json.dumps(self.password, ensure_ascii=False)}\n".encode()


_YAML_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"))


def login_of(
    *, uri: str = "", address: str = "", username: str = "", password: str = "", name: str = ""
) -> DatabaseLogin:
    """From Core's settings, as Core reads them: a URI wins over address, user and password.

    Raises DatabaseError for what is not supported (SRV names, several hosts, TLS, no address at all).
    """
    database = name or "komodo"
    if not uri:
        if not address:
            raise DatabaseError("Core's settings name no database (KOMODO_DATABASE_ADDRESS or KOMODO_DATABASE_URI)")
        host, port = _host_port(address)
        both = bool(username and password)
        return DatabaseLogin(
            host=host,
            port=port,
            username=username if both else "",
            password=password if both else "",
            name=database,
        )
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("mongodb", "mongodb+srv"):
        raise DatabaseError("KOMODO_DATABASE_URI is no mongodb:// URI")
    login, _, tail = rest.rpartition("@") if "@" in rest else ("", "", rest)
    hosts, _, query = tail.partition("?")
    hosts, _, path = hosts.partition("/")
    options = dict(parse_qsl(query, keep_blank_values=True))
    lowered = {k.lower(): v for k, v in options.items()}
    if scheme == "mongodb+srv" or "," in hosts:
        raise DatabaseError(
            "Core's database is a replica set or an SRV name, outside of this host",
            hint="this version upgrades only a database that runs in a container on Core's host",
        )
    if lowered.get("tls", lowered.get("ssl", "false")).lower() == "true":
        raise DatabaseError("Core's database wants TLS", hint="this version connects to a database without TLS only")
    user, _, secret = login.partition(":")
    host, port = _host_port(hosts)
    return DatabaseLogin(
        host=host,
        port=port,
        username=unquote(user),
        password=unquote(secret),
        name=database,
        auth_source=lowered.get("authsource", "") or unquote(path),
        mechanism=lowered.get("authmechanism", ""),
    )


def _host_port(text: str) -> tuple[str, int]:
    bare = text.removeprefix("mongodb://").rstrip("/")
    host, separator, port = bare.rpartition(":")
    if separator and port.isdigit():
        return host.strip("[]"), int(port)
    return bare.strip("[]"), DEFAULT_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """What the database says it is. FerretDB names a MongoDB version it is compatible with."""

    text: str
    ferretdb: bool = False

    @property
    def major(self) -> int:
        """First number; 0 where there is none."""
        found = re.match(r"\d+", self.text)
        return int(found.group()) if found else 0


class Database:
    """One connection to Core's database through a local Unix socket. Use as an async context manager."""

    def __init__(self, login: DatabaseLogin, *, socket: Path) -> None:
        self._login = login
        options: dict[str, Any] = {}
        if login.username:
            options = {
                "username": login.username,
                "password": login.password,
                "authSource": login.auth_source or "admin",
            }
            if login.mechanism:
                options["authMechanism"] = login.mechanism
        self._client: Any = AsyncIOMotorClient(
            f"mongodb://{quote(str(socket), safe='')}",
            directConnection=True,
            appname="komodo-upgrade",
            serverSelectionTimeoutMS=10_000,
            # Also the time limit of the driver's own monitor, which ends reads where a busy database answers late.
            connectTimeoutMS=60_000,
            socketTimeoutMS=120_000,
            retryWrites=False,
            io_loop=asyncio.get_running_loop(),
            **options,
        )
        self._db: Any = self._client[login.name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Motor closes synchronously, with a last message. In this event loop, which serves the forward, that message
        # would wait for itself.
        await asyncio.to_thread(self._client.close)

    async def version(self) -> ServerVersion:
        """`buildInfo`."""
        answer = await self._ask(self._client.admin.command("buildInfo"))
        ferretdb = "ferretdb" in answer or "ferretdbVersion" in answer
        return ServerVersion(text=str(answer.get("version", "")), ferretdb=ferretdb)

    @property
    def name(self) -> str:
        """The database's name."""
        return str(self._db.name)

    async def collections(self) -> tuple[str, ...]:
        """Names of all collections but the system's."""
        names = await self._ask(self._db.list_collection_names())
        return tuple(sorted(n for n in names if not n.startswith("system.")))

    async def counts(self) -> tuple[CollectionCount, ...]:
        """Documents of every collection of Core's database, by name; system collections left out."""
        return tuple(
            [
                CollectionCount(name=n, documents=await self._ask(self._db[n].count_documents({})))
                for n in await self.collections()
            ]
        )

    async def batches(self, collection: str) -> AsyncIterator[bytes]:
        """All documents as they are stored, one after the other, in batches."""
        async for batch in self._raw(self._db[collection].find_raw_batches({}, batch_size=_BATCH)):
            yield batch

    async def indexes(self, collection: str) -> tuple[Mapping[str, Any], ...]:
        """Of one collection, as the database describes them."""
        return tuple(await self._ask(self._db[collection].list_indexes().to_list(length=1000)))

    # --- other databases of the same server ---------------------------------------------------------------------------

    def other(self, name: str) -> Database:
        """Another database over the same connection. Closed with this one."""
        return _Other(self, name)

    async def names(self, prefix: str) -> tuple[str, ...]:
        """Databases whose names begin so, as far as the login may see them."""
        # FerretDB refuses `authorizedDatabases`; without it MongoDB shows the same where a login may not see all.
        answer = await self._ask(self._client.admin.command("listDatabases", nameOnly=True))
        return tuple(sorted(d["name"] for d in answer.get("databases", ()) if d["name"].startswith(prefix)))

    async def may_write(self) -> None:
        """Make a collection here and drop this database again. Raises DatabaseError where that is not allowed.

        Only for a database of our own.
        """
        await self._ask(self._db[TRIED].insert_one({"by": "komodo-upgrade"}))
        await self.drop()

    async def size(self) -> int:
        """Bytes of data as the database reports them; 0 if it does not (FerretDB and similar)."""
        try:
            answer = await self._ask(self._db.command("dbStats"))
        except DatabaseError:
            return 0
        return int(max(answer.get("dataSize") or 0, answer.get("storageSize") or 0))

    async def servers(self) -> tuple[Mapping[str, Any], ...]:
        """`Server`: name, config.address, config.enabled. Passkeys are not asked for."""
        return await self.find("Server", {}, ("name", "config.address", "config.enabled"))

    async def actions(self) -> tuple[Mapping[str, Any], ...]:
        """`Action`: name and script."""
        return await self.find("Action", {}, ("name", "config.file_contents"))

    async def procedures(self) -> tuple[Mapping[str, Any], ...]:
        """`Procedure`: name, stages, schedule."""
        return await self.find("Procedure", {}, ("name", "config.stages", "config.schedule", "config.schedule_enabled"))

    async def stacks(self) -> tuple[Mapping[str, Any], ...]:
        """`Stack`: what tells whether Core itself is one of them."""
        return await self.find(
            "Stack", {}, ("name", "config.project_name", "config.files_on_host", "config.run_directory")
        )

    async def open_updates(self) -> tuple[Mapping[str, Any], ...]:
        """`Update` documents that are queued or in progress."""
        found = await self.find(
            "Update", {"status": {"$in": ["Queued", "InProgress"]}}, ("operation", "target", "status")
        )
        return tuple(u for u in found if u.get("status") in ("Queued", "InProgress"))

    async def drop(self) -> None:
        """Drop this whole database. mongorestore's own --drop leaves collections that the archive does not have."""
        await self._ask(self._client.drop_database(self._db.name))

    async def remove(self, collection: str, query: Mapping[str, Any]) -> int:
        """Delete what matches; how many that were."""
        return int((await self._ask(self._db[collection].delete_many(dict(query)))).deleted_count)

    async def unset(self, collection: str, path: str) -> None:
        """Take one field out of every document that has it."""
        await self._ask(self._db[collection].update_many({path: {"$exists": True}}, {"$unset": {path: ""}}))

    async def change(self, collection: str, query: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        """Update every document that matches."""
        await self._ask(self._db[collection].update_many(dict(query), dict(update)))

    async def put(self, collection: str, document: Mapping[str, Any]) -> None:
        """Store a whole document under its id."""
        await self._ask(self._db[collection].replace_one({"_id": document["_id"]}, dict(document), upsert=True))

    async def find(
        self, collection: str, query: Mapping[str, Any], fields: Iterable[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """These fields of the documents that match; no fields: all of them."""
        found: list[Mapping[str, Any]] = []
        size = 0
        async for batch in self._raw(
            self._db[collection].find_raw_batches(dict(query), dict.fromkeys(fields, 1) or None)
        ):
            size += len(batch)
            if size > _LIMIT:
                raise DatabaseError(f"{self.name}.{collection} holds more than {_LIMIT // 1024**2} MiB")
            found += bson.decode_all(batch)
        return tuple(found)

    async def _raw(self, cursor: Any) -> AsyncIterator[bytes]:
        """The batches of a cursor. Each has to arrive in time."""
        batches = aiter(cursor)
        while batch := await self._ask(anext(batches, b"")):
            yield batch

    async def _ask(self, request: Any) -> Any:
        with self._reported():
            async with asyncio.timeout(_WHOLE_ANSWER):
                return await request

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """The driver's errors as errors of this project, without the password."""
        try:
            yield
        except TimeoutError:
            raise DatabaseUnreachable(f"the database did not finish its answer within {_WHOLE_ANSWER:g} s") from None
        except OperationFailure as error:
            words = self._clean(str((error.details or {}).get("errmsg") or error))
            if error.code in (13, 18):
                hint = "the user and password in Core's environment are not accepted (any more) by the database"
                raise DatabaseDenied(f"the database refused: {words}", hint=hint) from None
            raise DatabaseError(f"the database refused: {words}") from None
        except (PyMongoError, ConfigurationError) as error:
            # the full text repeats the whole topology three times
            words = self._clean(str(error).split(", Timeout:", 1)[0])
            kind = DatabaseUnreachable if isinstance(error, ConnectionFailure) else DatabaseError
            raise kind(f"the database does not answer: {words}") from None

    def _clean(self, text: str) -> str:
        """One line without the password, cut after that: a part of it would not be recognized."""
        password = self._login.password
        return single_line(text.replace(password, "***") if password else text, 300)


class _Other(Database):
    """See Database.other."""

    def __init__(self, first: Database, name: str) -> None:
        self._login = first._login
        self._client = first._client
        self._db = self._client[name]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The connection is the other one's."""


# --- dumps ---------------------------------------------------------------------------------------------------------

_DUMPED = re.compile(r"done dumping [`']?([^\s`']+?)[`']?\s+\((\d+) documents?\)")


def dumped_counts(stderr: str, name: str) -> tuple[CollectionCount, ...]:
    """What mongodump says it wrote, by its `done dumping komodo.Update (1500 documents)` lines (mongo-tools 100.x)."""
    found: dict[str, int] = {}
    for match in _DUMPED.finditer(stderr):
        database, _, collection = match.group(1).partition(".")
        if database == name and not collection.startswith("system."):
            found[collection] = int(match.group(2))
    return tuple(CollectionCount(name=n, documents=found[n]) for n in sorted(found))


def differences(
    dumped: Iterable[CollectionCount],
    before: Iterable[CollectionCount],
    after: Iterable[CollectionCount],
    *,
    quiet: bool,
) -> tuple[str, ...]:
    """What a dump lacks of the database it was taken from, for people.

    `quiet`: Core is stopped, so every count must be equal before, after and in the dump. Otherwise Core continues to
    write: each count must lie between the two that were taken around the dump, give or take what a
    few seconds of statistics and updates add.
    """
    wrote = {c.name: c.documents for c in dumped}
    first = {c.name: c.documents for c in before}
    last = {c.name: c.documents for c in after}
    found = []
    for name in sorted(first.keys() | last.keys() | wrote.keys()):
        low, high = sorted((first.get(name, 0), last.get(name, 0)))
        have = wrote.get(name, 0)
        if quiet and not low == high == have:
            found.append(f"{name}: {first.get(name, 0)} before, {have} in the dump, {last.get(name, 0)} after")
        slack = max(20, high // 20)
        if not quiet and not (low - slack <= have <= high + slack and (have or not low)):
            found.append(f"{name}: {low} to {high} in the database, {have} in the dump")
    return tuple(found)
