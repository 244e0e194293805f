"""The commands of the simulated mongod."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import bson

from sandbox.mongo.connection import Connection, Scram
from sandbox.mongo.store import Document, dig, matches

Handler = Callable[[Connection, Document, str], Document]

_cursor_ids = itertools.count(1_000_001)
_FREE = frozenset({"hello", "ismaster", "saslstart", "saslcontinue", "ping", "buildinfo", "endsessions", "logout"})


def run(connection: Connection, command: Document) -> Document:
    """One command: its answer, or MongoDB's error document."""
    name = next(iter(command))
    database = str(command.get("$db", "admin"))
    handler = _COMMANDS.get(name.lower())
    if handler is None:
        return _error(59, "CommandNotFound", f"no such command: '{name}'")
    if connection.auth and not connection.user and name.lower() not in _FREE:
        return _error(13, "Unauthorized", f"Command {name} requires authentication")
    only = connection.store.only
    if only and database not in ("admin", only):
        text = f"not authorized on {database} to execute command {{ {name}: ... }}"
        return _error(13, "Unauthorized", text)
    try:
        return {**handler(connection, command, database), "ok": 1.0}
    except _Failed as failed:
        return failed.document


class _Failed(Exception):
    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        self.document = _error(code, name, text)


def _error(code: int, name: str, text: str) -> Document:
    return {"ok": 0.0, "errmsg": text, "code": code, "codeName": name}


def _hello(_connection: Connection, command: Document, _db: str) -> Document:
    answer: Document = {
        "helloOk": True,
        "ismaster": True,
        "isWritablePrimary": True,
        "topologyVersion": {"processId": bson.ObjectId("6b048234268802f58d0e9900"), "counter": bson.Int64(0)},
        "maxBsonObjectSize": 16777216,
        "maxMessageSizeBytes": 48000000,
        "maxWriteBatchSize": 100000,
        "localTime": datetime.now(UTC),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": 1,
        "minWireVersion": 0,
        "maxWireVersion": 25,
        "readOnly": False,
    }
    del answer["topologyVersion"]  # no streaming hello: drivers poll
    if "saslSupportedMechs" in command:
        answer["saslSupportedMechs"] = ["SCRAM-SHA-256"]
    return answer


def _sasl_start(connection: Connection, command: Document, db: str) -> Document:
    if command.get("mechanism") != "SCRAM-SHA-256":
        raise _Failed(334, "MechanismUnavailable", f"Unsupported mechanism {command.get('mechanism')}")
    connection.scram = Scram(db, connection.store.users)
    return {"conversationId": 1, "done": False, "payload": connection.scram.first(bytes(command["payload"]))}


def _sasl_continue(connection: Connection, command: Document, _db: str) -> Document:
    scram = connection.scram
    if scram is None:
        raise _Failed(17, "ProtocolError", "No SASL session state found")
    if scram.done:
        return {"conversationId": 1, "done": True, "payload": b""}
    answer = scram.final(bytes(command["payload"]))
    if answer is None:
        connection.scram = None
        raise _Failed(18, "AuthenticationFailed", "Authentication failed.")
    connection.user = scram.user
    return {"conversationId": 1, "done": True, "payload": answer}


def _ping(_connection: Connection, _command: Document, _db: str) -> Document:
    return {}


def _build_info(connection: Connection, _command: Document, _db: str) -> Document:
    ferretdb = {"ferretdb": {"version": "v2.7.0", "package": "docker"}} if connection.ferretdb else {}
    return {
        **ferretdb,
        "version": connection.version,
        "gitVersion": "0" * 40,
        "modules": [],
        "versionArray": [*(int(n) for n in connection.version.split(".")), 0],
        "bits": 64,
        "maxBsonObjectSize": 16777216,
        "storageEngines": ["devnull", "wiredTiger"],
    }


def _list_databases(connection: Connection, command: Document, _db: str) -> Document:
    if connection.ferretdb and "authorizedDatabases" in command:
        raise _Failed(9, "FailedToParse", "authorizedDatabases is an unrecognized field name")
    listed = [
        {"name": name, "sizeOnDisk": sum(c.size for c in collections.values()) + 40960, "empty": False}
        for name, collections in sorted(connection.store.databases.items())
    ]
    return {"databases": listed, "totalSize": sum(d["sizeOnDisk"] for d in listed)}


def _cursor(connection: Connection, namespace: str, found: list[Document], batch: int) -> Document:
    first, rest = found[:batch], found[batch:]
    number = 0
    if rest:
        number = next(_cursor_ids)
        connection.cursors[number] = (namespace, rest)
    return {"cursor": {"id": bson.Int64(number), "ns": namespace, "firstBatch": first}}


def _list_collections(connection: Connection, command: Document, db: str) -> Document:
    listed = [
        {
            "name": name,
            "type": "collection",
            "options": {},
            "info": {"readOnly": False},
            "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"},
        }
        for name in sorted(connection.store.databases.get(db, {}))
    ]
    listed = [entry for entry in listed if matches(entry, command.get("filter") or {})]
    return _cursor(connection, f"{db}.$cmd.listCollections", listed, 1000)


def _list_indexes(connection: Connection, command: Document, db: str) -> Document:
    name = str(command["listIndexes"])
    if name not in connection.store.databases.get(db, {}):
        raise _Failed(26, "NamespaceNotFound", f"ns does not exist: {db}.{name}")
    extra = {"storageEngine": {"enableOrderedIndex": True}} if connection.ferretdb else {}
    found = [{**index, **extra} for index in connection.store.peek(db, name).indexes]
    return _cursor(connection, f"{db}.{name}", found, 1000)


def _count(connection: Connection, command: Document, db: str) -> Document:
    return {"n": len(connection.store.find(db, str(command["count"]), command.get("query") or {}))}


def _find(connection: Connection, command: Document, db: str) -> Document:
    name = str(command["find"])
    found = connection.store.find(db, name, command.get("filter") or {})
    found = _sorted(found, command.get("sort") or {})
    found = found[int(command.get("skip") or 0) :]
    limit = abs(int(command.get("limit") or 0))
    found = found[:limit] if limit else found
    found = [_project(d, command.get("projection") or {}) for d in found]
    batch = int(command.get("batchSize") or 101)
    if command.get("singleBatch"):
        found = found[:batch]
    return _cursor(connection, f"{db}.{name}", found, batch)


def _sorted(found: list[Document], order: Document) -> list[Document]:
    for key, direction in reversed(list(order.items())):
        found.sort(key=lambda d: (dig(d, key) is not None, dig(d, key) or 0), reverse=int(direction) < 0)
    return found


def _project(document: Document, projection: Document) -> Document:
    if not projection:
        return document
    wanted = {k: v for k, v in projection.items() if k != "_id"}
    if any(v for v in wanted.values()):
        out: Document = {} if projection.get("_id", 1) in (0, False) else {"_id": document.get("_id")}
        for path in wanted:
            value = dig(document, path)
            if value is not None or path in document:
                target = out
                *parts, last = path.split(".")
                for part in parts:
                    target = target.setdefault(part, {})
                target[last] = value
        return out
    return {k: v for k, v in document.items() if k not in projection}


def _get_more(connection: Connection, command: Document, _db: str) -> Document:
    number = int(command["getMore"])
    if number not in connection.cursors:
        raise _Failed(43, "CursorNotFound", f"cursor id {number} not found")
    namespace, rest = connection.cursors.pop(number)
    batch = int(command.get("batchSize") or 1000)
    if rest[batch:]:
        connection.cursors[number] = (namespace, rest[batch:])
    else:
        number = 0
    return {"cursor": {"id": bson.Int64(number), "ns": namespace, "nextBatch": rest[:batch]}}


def _kill_cursors(connection: Connection, command: Document, _db: str) -> Document:
    killed = [c for c in command.get("cursors", []) if connection.cursors.pop(int(c), None)]
    return {"cursorsKilled": killed, "cursorsNotFound": [], "cursorsAlive": [], "cursorsUnknown": []}


def _aggregate(connection: Connection, command: Document, db: str) -> Document:
    name = command["aggregate"]
    found = connection.store.find(db, str(name)) if isinstance(name, str) else []
    for stage in command.get("pipeline", []):
        found = _stage(found, next(iter(stage)), next(iter(stage.values())))
    batch = int((command.get("cursor") or {}).get("batchSize") or 101)
    return _cursor(connection, f"{db}.{name}", found, batch)


def _stage(found: list[Document], stage: str, value: Any) -> list[Document]:
    if stage == "$match":
        return [d for d in found if matches(d, value)]
    if stage == "$count":
        return [{str(value): len(found)}] if found else []
    if stage == "$sort":
        return _sorted(found, value)
    if stage in {"$limit", "$skip"}:
        return found[: int(value)] if stage == "$limit" else found[int(value) :]
    if stage == "$project":
        return [_project(d, value) for d in found]
    if stage == "$group":
        return _group(found, value)
    raise _Failed(40324, "Location40324", f"Unrecognized pipeline stage name: '{stage}'")


def _group(found: list[Document], value: Document) -> list[Document]:
    groups: dict[str, Document] = {}
    for document in found:
        identity = value["_id"]
        key = dig(document, identity[1:]) if isinstance(identity, str) and identity.startswith("$") else identity
        group = groups.setdefault(repr(key), {"_id": key})
        for field, accumulator in value.items():
            if field != "_id":
                operator, operand = next(iter(accumulator.items()))
                if operator not in {"$sum", "$count"}:
                    raise _Failed(15952, "Location15952", f"unknown group operator '{operator}'")
                amount = 1 if operator == "$count" else operand
                if isinstance(amount, str):
                    amount = dig(document, amount[1:]) or 0
                group[field] = group.get(field, 0) + amount
    return list(groups.values())


def _insert(connection: Connection, command: Document, db: str) -> Document:
    documents = list(command.get("documents", []))
    errors = connection.store.insert(db, str(command["insert"]), documents)
    answer: Document = {"n": len(documents) - len(errors)}
    return {**answer, "writeErrors": errors} if errors else answer


def _update(connection: Connection, command: Document, db: str) -> Document:
    total: Document = {"n": 0, "nModified": 0}
    for change in command.get("updates", []):
        done = connection.store.update(
            db, str(command["update"]), change["q"], change["u"], many=bool(change.get("multi")),
            upsert=bool(change.get("upsert")),
        )  # fmt: skip
        total["n"] += done["n"]
        total["nModified"] += done["nModified"]
        if "upserted" in done:
            total.setdefault("upserted", []).extend(done["upserted"])
    return total


def _delete(connection: Connection, command: Document, db: str) -> Document:
    name = str(command["delete"])
    count = sum(connection.store.delete(db, name, d["q"], int(d.get("limit", 0))) for d in command.get("deletes", []))
    return {"n": count}


def _drop_database(connection: Connection, _command: Document, db: str) -> Document:
    gone = connection.store.databases.pop(db, None)
    return {"dropped": db} if gone is not None else {}


def _drop(connection: Connection, command: Document, db: str) -> Document:
    name = str(command["drop"])
    gone = connection.store.databases.get(db, {}).pop(name, None)
    if gone is None:
        return {}
    if not connection.store.databases[db]:
        del connection.store.databases[db]
    return {"ns": f"{db}.{name}", "nIndexesWas": len(gone.indexes)}


def _create(connection: Connection, command: Document, db: str) -> Document:
    connection.store.collection(db, str(command["create"]))
    return {}


def _create_indexes(connection: Connection, command: Document, db: str) -> Document:
    collection = connection.store.collection(db, str(command["createIndexes"]))
    before = len(collection.indexes)
    known = {i["name"] for i in collection.indexes}
    collection.indexes += [{"v": 2, **i} for i in command.get("indexes", []) if i["name"] not in known]
    return {"numIndexesBefore": before, "numIndexesAfter": len(collection.indexes)}


def _db_stats(connection: Connection, _command: Document, db: str) -> Document:
    collections = connection.store.databases.get(db, {})
    size = sum(c.size for c in collections.values())
    return {
        "db": db,
        "collections": len(collections),
        "objects": sum(len(c.documents) for c in collections.values()),
        "dataSize": float(size),
        "storageSize": float(size + 4096 * len(collections)),
        "totalSize": float(size + 8192 * len(collections)),
        "indexes": sum(len(c.indexes) for c in collections.values()),
    }


def _db_hash(connection: Connection, _command: Document, db: str) -> Document:
    found = {name: connection.store.digest(db, name) for name in sorted(connection.store.databases.get(db, {}))}
    return {"collections": found}


_COMMANDS: dict[str, Handler] = {
    "hello": _hello, "ismaster": _hello, "saslstart": _sasl_start, "saslcontinue": _sasl_continue, "ping": _ping,
    "buildinfo": _build_info, "listdatabases": _list_databases, "listcollections": _list_collections,
    "listindexes": _list_indexes, "count": _count, "find": _find, "getmore": _get_more, "killcursors": _kill_cursors,
    "aggregate": _aggregate, "insert": _insert, "update": _update, "delete": _delete, "dropdatabase": _drop_database,
    "drop": _drop, "create": _create, "createindexes": _create_indexes, "dbstats": _db_stats,
    "dbhash": _db_hash, "endsessions": _ping, "logout": _ping, "connectionstatus": _ping,
}  # fmt: skip
