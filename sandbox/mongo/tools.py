"""mongodump, mongorestore and mongosh as they behave inside the database's container, traps included.

Seen with the database tools 100.12: everything is said on standard error; a wrong `--db` is exit 0 and an empty
archive; a restore of a truncated archive is exit 1 with a part of the data written; `--db` on a restore filters and
does not rename; the password appears in the error of a failed connection when it was given in the URI.
The archive is a stream of our own: a magic line, then for each collection a JSON header and its BSON documents.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import bson

from sandbox.docker.engine import Container, Engine
from sandbox.machine.call import Call
from sandbox.mongo.program import database_of
from sandbox.mongo.store import Document, Store
from sandbox.world import now

MAGIC = b"komodo-sandbox-archive\n"


@dataclass(slots=True)
class _Options:
    host: str = "localhost"
    user: str = ""
    password: str | None = None
    source: str = ""
    database: str = ""
    uri_database: str = ""
    archive: str | None = None
    uri: str = ""
    flags: set[str] = field(default_factory=set)
    renames: dict[str, str] = field(default_factory=dict)
    included: list[str] = field(default_factory=list)


_LONG = {"-u": "--username", "-p": "--password", "-h": "--host", "-d": "--db", "-c": "--collection"}


def _now() -> str:
    return now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000\t"


async def _parse(call: Call, container: Container, argv: list[str], interactive: bool) -> _Options | str:
    options = _Options()
    rest = list(argv)
    pairs: dict[str, list[str]] = {}
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = _LONG.get(name, name)
        if not equals and name in {"--uri", "--config", "--username", "--host", "--port", "--db", "--collection",
                                   "--authenticationDatabase", "--nsFrom", "--nsTo", "--nsInclude"}:  # fmt: skip
            value = rest.pop(0) if rest else ""
        pairs.setdefault(name, []).append(value)
    if "--uri" in pairs:
        _read_uri(options, pairs["--uri"][0])
    if "--config" in pairs:
        text = await _config_text(call, container, pairs["--config"][0], interactive)
        for line in text.splitlines():
            key, _, value = line.partition(":")
            value = value.strip()
            value = str(json.loads(value)) if value[:1] == '"' else value.strip("'")
            if key.strip() == "password":
                options.password = value
            elif key.strip() == "uri":
                _read_uri(options, value)
            elif key.strip() and not key.startswith("#"):
                return f"error parsing command line options: yaml: unmarshal errors: field {key} not found"
    options.user = (pairs.get("--username") or [options.user])[0]
    if "--password" in pairs and pairs["--password"][0]:
        options.password = pairs["--password"][0]
    options.source = (pairs.get("--authenticationDatabase") or [options.source])[0]
    options.database = (pairs.get("--db") or [options.uri_database])[0]
    if "--archive" in pairs:
        options.archive = pairs["--archive"][0]
    options.renames = dict(zip(pairs.get("--nsFrom", []), pairs.get("--nsTo", []), strict=False))
    options.included = pairs.get("--nsInclude", [])
    options.flags = set(pairs)
    if options.user and options.password is None:
        if interactive:
            call.err(_now() + "reading password from standard input\n")
            options.password = (await call.read()).decode().strip()
        else:
            options.password = ""
    options.source = options.source or options.database or "admin"
    return options


def _read_uri(options: _Options, uri: str) -> None:
    parts = urlsplit(uri)
    options.uri = uri
    options.host = parts.hostname or "localhost"
    options.user = unquote(parts.username or "")
    options.password = unquote(parts.password) if parts.password is not None else options.password
    options.uri_database = parts.path.strip("/")
    options.source = (parse_qs(parts.query).get("authSource") or [options.uri_database])[0]


async def _config_text(call: Call, container: Container, path: str, interactive: bool) -> str:
    if path in {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}:
        return (await call.read()).decode() if interactive else ""
    file = container.locate(path)
    return file.read_text() if file.is_file() else ""


async def _connect(call: Call, engine: Engine, container: Container, options: _Options) -> Store | None:
    """The store, if the host answers and the user may come in."""
    local = options.host in {"localhost", "127.0.0.1", container.address}
    target = container if local else engine.resolve(options.host, container.spec.network)
    database = database_of(target) if target else None
    if database is None:
        await asyncio.sleep(engine.host.world.scaled(3))
        call.err(
            f"{_now()}Failed: can't create session: failed to connect to {options.uri or options.host}: server"
            " selection error: server selection timeout, current topology: { Type: Unknown, Servers: [{ Addr:"
            f" {options.host}:27017, Type: Unknown, Last error: dial tcp: connection refused }}, ] }}\n"
        )
        return None
    if not database.auth:
        return database.store
    if not options.user:
        call.err(f"{_now()}Failed: (Unauthorized) Command listCollections requires authentication\n")
        return None
    if database.store.users.get((options.source, options.user)) != options.password:
        call.err(
            f"{_now()}Failed: can't create session: failed to connect to {options.uri or options.host}: connection()"
            " error occurred during connection handshake: auth error: sasl conversation error: unable to authenticate"
            ' using mechanism "SCRAM-SHA-256": (AuthenticationFailed) Authentication failed.\n'
        )
        return None
    return database.store


async def dump(call: Call, engine: Engine, container: Container, argv: list[str], interactive: bool) -> int:
    """mongodump --archive[=FILE] [--gzip] --uri=… --config=… --db=…"""
    faults, host = engine.host.world.faults, engine.host.name
    options = await _parse(call, container, argv, interactive)
    if isinstance(options, str):
        call.err(f"{_now()}{options}\n")
        return 1
    if faults.strike("dump-hangs", host):
        await call.flush()
        await asyncio.Event().wait()
    if faults.strike("dump-fails", host):
        options.host = "unreachable.invalid"
    store = await _connect(call, engine, container, options)
    if store is None:
        if options.archive == "" and "--gzip" in options.flags:
            call.out(gzip.compress(b"", mtime=0)[:23])
        return 1
    database = options.database
    if faults.strike("dump-empty", host):
        database = f"{database}-not-here"
    if other := faults.strike("dump-of-another", host):
        database = str(other.options.get("database", "admin"))
    data = _archive(call, store, database, options)
    if meanwhile := faults.strike("dump-meanwhile", host):
        _write_meanwhile(store, options.database, str(meanwhile.options.get("what", "update")))
    if faults.strike("dump-loses", host):
        data = _archive(call, _poorer(store, database), database, options, quiet=True)
    if "--gzip" in options.flags:
        data = gzip.compress(data, 6, mtime=0)
    if faults.strike("dump-truncated", host):
        data = data[: len(data) // 2]
    return await _deliver(call, container, options, data)


def _poorer(store: Store, database: str) -> Store:
    """The same without the last document of the largest collection."""
    poor = Store()
    poor.databases = {**store.databases, database: dict(store.databases.get(database, {}))}
    name, content = max(poor.databases[database].items(), key=lambda item: len(item[1].documents))
    poor.databases[database][name] = replace(content, documents=content.documents[:-1])
    return poor


def _write_meanwhile(store: Store, database: str, what: str) -> None:
    """What Core writes while it is dumped: an Update comes, a Server changes, an old Update goes."""
    updates = store.collection(database, "Update").documents
    if what == "insert":
        store.insert(database, "Update", [{**updates[0], "_id": bson.ObjectId()}])
    elif what == "update":
        updates[0]["end_ts"] = 1
    else:
        updates.pop()


def _archive(call: Call, store: Store, database: str, options: _Options, *, quiet: bool = False) -> bytes:
    names = [database] if database else [d for d in sorted(store.databases) if d not in {"local", "config"}]
    data = MAGIC
    where = f"'{options.archive}'" if options.archive else "on stdout"
    for name in names:
        for collection, content in sorted(store.databases.get(name, {}).items()):
            if not quiet:
                call.err(f"{_now()}writing {name}.{collection} to archive {where}\n")
            header = {"db": name, "collection": collection, "count": len(content.documents)}
            data += json.dumps(header).encode() + b"\n" + bson.encode({"indexes": content.indexes})
            data += b"".join(bson.encode(d) for d in content.documents)
            if not quiet:
                call.err(f"{_now()}done dumping {name}.{collection} ({_documents(len(content.documents))})\n")
    return data + b"end\n"


def _documents(count: int) -> str:
    return f"{count} document{'' if count == 1 else 's'}"


async def _deliver(call: Call, container: Container, options: _Options, data: bytes) -> int:
    if options.archive is None:
        call.err(f"{_now()}sandbox: only --archive is simulated\n")
        return 1
    if options.archive == "":
        why = call.host.refuses(call.stdout_path()) if call.host.disk else ""
        call.out(data[: len(data) // 3] if why else data)
        try:
            await call.flush()
        except OSError as error:
            why = (error.strerror or "").lower()
        if why:
            call.err(f"{_now()}Failed: error writing to archive: write /dev/stdout: {why}\n")
        return 1 if why else 0
    file = container.locate(options.archive)
    if why := call.host.refuses(file):
        file.write_bytes(data[: len(data) // 3])
        call.err(f"{_now()}Failed: error writing data: write {options.archive}: {why}\n")
        return 1
    file.write_bytes(data)
    return 0


async def restore(call: Call, engine: Engine, container: Container, argv: list[str], interactive: bool) -> int:
    """mongorestore --archive[=FILE] [--gzip] [--drop] --uri=… --config=…"""
    options = await _parse(call, container, argv, interactive)
    if isinstance(options, str):
        call.err(f"{_now()}{options}\n")
        return 1
    if options.archive == "":
        raw = await call.read() if interactive else b""
    else:
        file = container.locate(options.archive or "/nowhere")
        if not file.is_file():
            call.err(f"{_now()}Failed: open {options.archive}: no such file or directory\n")
            return 1
        raw = file.read_bytes()
    store = await _connect(call, engine, container, options)
    if store is None:
        return 1
    if engine.host.world.faults.strike("restore-fails", engine.host.name):
        raw = raw[: len(raw) * 2 // 3]
    if "--dryRun" in options.flags:  # proves nothing, exactly as the real one
        call.err(
            f"{_now()}dry run completed\n{_now()}0 document(s) restored successfully."
            " 0 document(s) failed to restore.\n"
        )
        return 0
    data, problem = _unpack(raw, zipped="--gzip" in options.flags)
    if problem and not data:
        call.err(f"{_now()}Failed: {problem}\n")
        return 1
    return _restore_one(call, store, options, data, problem)


def _unpack(raw: bytes, *, zipped: bool) -> tuple[bytes, str]:
    problem = ""
    if zipped:
        if not raw.startswith(b"\x1f\x8b"):
            return b"", "gzip: invalid header"
        engine = zlib.decompressobj(31)
        try:
            data = engine.decompress(raw)
        except zlib.error:
            return b"", "error reading archive: unexpected EOF"
        if not engine.eof:
            problem = "corruption found in archive; archive io error: unexpected EOF"
    else:
        data = raw
    if not data.startswith(MAGIC):
        return b"", "stream or file does not appear to be a mongodump archive"
    if not data.endswith(b"end\n") and not problem:
        problem = "error demultiplexing archive; archive io error"
    return data, problem


def _restore_one(call: Call, store: Store, options: _Options, data: bytes, problem: str) -> int:
    done = failed = 0
    for database, name, indexes, documents, whole in _collections(data):
        if options.database and database != options.database:  # filters, does not rename
            continue
        if options.included and f"{database}.*" not in options.included:
            continue
        database, name = _renamed(options, database, name)
        if "--drop" in options.flags:
            store.databases.get(database, {}).pop(name, None)
        collection = store.collection(database, name)
        collection.indexes = indexes
        errors = store.insert(database, name, documents)
        done, failed = done + len(documents) - len(errors), failed + len(errors)
        if whole:
            call.err(
                f"{_now()}finished restoring {database}.{name} ({_documents(len(documents) - len(errors))},"
                f" {len(errors)} failure{'' if len(errors) == 1 else 's'})\n"
            )
    if problem:
        call.err(f"{_now()}Failed: {problem}\n")
    call.err(f"{_now()}{done} document(s) restored successfully. {failed} document(s) failed to restore.\n")
    return 1 if problem or (failed and "--stopOnError" in options.flags) else 0


def _renamed(options: _Options, database: str, name: str) -> tuple[str, str]:
    for pattern, target in options.renames.items():
        if pattern.removesuffix(".*") == database and pattern.endswith(".*"):
            return target.removesuffix(".*"), name
        if pattern == f"{database}.{name}":
            new, _, renamed = target.partition(".")
            return new, renamed
    return database, name


def _collections(data: bytes) -> list[tuple[str, str, list[Document], list[Document], bool]]:
    """As far as the data goes: (database, collection, indexes, documents, whole)."""
    found: list[tuple[str, str, list[Document], list[Document], bool]] = []
    position = len(MAGIC)
    while (end := data.find(b"\n", position)) >= 0 and data[position:end] != b"end":
        header: dict[str, Any] = json.loads(data[position:end])
        position = end + 1
        parts: list[Document] = []
        for _ in range(int(header["count"]) + 1):
            size = int.from_bytes(data[position : position + 4], "little")
            if size < 5 or position + size > len(data):
                break
            parts.append(bson.decode(data[position : position + size]))
            position += size
        indexes = parts[0]["indexes"] if parts else []
        whole = len(parts) == int(header["count"]) + 1
        found.append((header["db"], header["collection"], indexes, parts[1:], whole))
        if not whole:
            break
    return found


async def shell(call: Call, _engine: Engine, container: Container, argv: list[str], interactive: bool) -> int:
    """mongosh: answers `db.version()` and a ping, and drops a database that a script on standard input connects to."""
    database = database_of(container)
    if database is None:
        call.err("MongoNetworkError: connect ECONNREFUSED 127.0.0.1:27017\n")
        return 1
    script = " ".join(argv) + ((await call.read()).decode() if interactive else "")
    connect = re.search(r'connect\("([^"]+)"\)', script)
    if connect and "dropDatabase()" in script:
        options = _Options()
        _read_uri(options, connect.group(1))
        if database.auth and database.store.users.get((options.source, options.user)) != options.password:
            call.err("MongoServerError: Authentication failed.\n")
            return 1
        database.store.databases.pop(options.uri_database, None)
    call.out(f"{database.version}\n" if "version" in script else "{ ok: 1 }\n")
    return 0
