"""Documents of one simulated mongod: databases of collections of dicts, with the few operators Komodo needs."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import bson

Document = dict[str, Any]


@dataclass(slots=True)
class Collection:
    """Documents and index descriptions."""

    documents: list[Document] = field(default_factory=list)
    indexes: list[Document] = field(default_factory=lambda: [{"v": 2, "key": {"_id": 1}, "name": "_id_"}])

    @property
    def size(self) -> int:
        """Bytes of BSON."""
        return sum(len(bson.encode(d)) for d in self.documents)


class Store:
    """All databases that live in one data volume."""

    def __init__(self) -> None:
        self.databases: dict[str, dict[str, Collection]] = {}
        self.users: dict[tuple[str, str], str] = {}
        """(database, user) -> password. Made once, at the first start of mongod, as the official image does."""
        self.only = ""
        """The one database that users may read and write; empty: they are root."""

    def collection(self, database: str, name: str) -> Collection:
        """Made when it is missing."""
        return self.databases.setdefault(database, {}).setdefault(name, Collection())

    def peek(self, database: str, name: str) -> Collection:
        """The collection, or an empty one that is not kept."""
        return self.databases.get(database, {}).get(name) or Collection()

    def find(self, database: str, name: str, query: Document | None = None) -> list[Document]:
        """Matching documents, copied."""
        return [copy.deepcopy(d) for d in self.peek(database, name).documents if matches(d, query or {})]

    def read_all(self, database: str, name: str) -> tuple[Document, ...]:
        """All documents, not copied, to be read only: Core reads its servers many times a second."""
        return tuple(self.peek(database, name).documents)

    def insert(self, database: str, name: str, documents: list[Document]) -> list[Document]:
        """Insert; returns write errors for `_id`s that are there already."""
        collection = self.collection(database, name)
        known = {repr(d.get("_id")) for d in collection.documents}
        errors: list[Document] = []
        for position, document in enumerate(documents):
            entry = {"_id": document.get("_id", bson.ObjectId()), **document}
            if repr(entry["_id"]) in known:
                text = f"E11000 duplicate key error collection: {database}.{name} index: _id_ dup key"
                errors.append({"index": position, "code": 11000, "errmsg": text})
                continue
            known.add(repr(entry["_id"]))
            collection.documents.append(entry)
        return errors

    def update(
        self, database: str, name: str, query: Document, change: Document, *, many: bool, upsert: bool
    ) -> Document:
        """$set, $unset, $inc, $push or a whole document; returns n and nModified."""
        collection = self.collection(database, name)
        found = [d for d in collection.documents if matches(d, query)]
        for document in found if many else found[:1]:
            apply(document, change)
        if not found and upsert:
            document = {k: v for k, v in query.items() if not k.startswith("$") and not isinstance(v, dict)}
            apply(document, change)
            self.insert(database, name, [document])
            return {"n": 1, "nModified": 0, "upserted": [{"index": 0, "_id": document.get("_id")}]}
        count = len(found) if many else min(len(found), 1)
        return {"n": count, "nModified": count}

    def delete(self, database: str, name: str, query: Document, limit: int) -> int:
        """Remove matching documents (limit 0: all)."""
        collection = self.peek(database, name)
        doomed = [d for d in collection.documents if matches(d, query)]
        doomed = doomed[:limit] if limit else doomed
        collection.documents = [d for d in collection.documents if not any(d is x for x in doomed)]
        return len(doomed)

    def digest(self, database: str, name: str) -> str:
        """Like dbHash: the same documents give the same text, in whatever order they were inserted."""
        encoded = sorted(bson.encode(d) for d in self.peek(database, name).documents)
        return hashlib.md5(b"".join(encoded), usedforsecurity=False).hexdigest()


def dig(document: Any, path: str) -> Any:
    """A value by its dotted path; None when it is not there."""
    for part in path.split("."):
        if isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, dict):
            document = document.get(part)
        else:
            return None
    return document


def matches(document: Document, query: Document) -> bool:
    """Equality, $and, $or, $in, $nin, $ne, $gt…, $exists, $regex, $type (loosely)."""
    for key, wanted in query.items():
        if key == "$and":
            if not all(matches(document, q) for q in wanted):
                return False
        elif key == "$or":
            if not any(matches(document, q) for q in wanted):
                return False
        elif not _test(document, key, wanted):
            return False
    return True


def _test(document: Document, path: str, wanted: Any) -> bool:
    parts = path.split(".")
    for place in range(1, len(parts)):  # a path reaches into the items of an array
        items = dig(document, ".".join(parts[:place]))
        if isinstance(items, list) and not parts[place].isdigit():
            return any(_test(i, ".".join(parts[place:]), wanted) for i in items if isinstance(i, dict))
    value = dig(document, path)
    if isinstance(wanted, dict) and wanted and all(str(k).startswith("$") for k in wanted):
        return all(_operator(document, path, value, name, operand) for name, operand in wanted.items())
    return value == wanted or (isinstance(value, list) and wanted in value)


def _operator(document: Document, path: str, value: Any, name: str, operand: Any) -> bool:
    if name == "$exists":
        parent = dig(document, path.rpartition(".")[0]) if "." in path else document
        present = isinstance(parent, dict) and path.rpartition(".")[2] in parent
        return bool(present) == bool(operand)
    if name == "$regex":
        return isinstance(value, str) and re.search(str(operand), value) is not None
    if name == "$not":
        return not _test(document, path, operand)
    if name in {"$gt", "$gte", "$lt", "$lte"}:
        if value is None:
            return False
        below, equal = bool(value < operand), bool(value == operand)
        return {"$gt": not below and not equal, "$gte": not below, "$lt": below, "$lte": below or equal}[name]
    if name in {"$eq", "$ne"}:
        return bool(value == operand) == (name == "$eq")
    if name in {"$in", "$nin"}:
        return (value in operand) == (name == "$in")
    if name in {"$type", "$options"}:
        return True
    raise ValueError(f"the sandbox's mongod does not know {name}")


def apply(document: Document, change: Document) -> None:
    """An update document, in place."""
    if not any(k.startswith("$") for k in change):
        identity = document.get("_id")
        document.clear()
        document.update({"_id": identity, **change} if identity is not None else change)
        return
    for operator, fields in change.items():
        for path, value in fields.items():
            parent, last = _parent(document, path)
            if operator == "$set" or (operator == "$setOnInsert" and last not in parent):
                parent[last] = value
            elif operator == "$unset":
                parent.pop(last, None)
            elif operator == "$inc":
                parent[last] = parent.get(last, 0) + value
            elif operator == "$push":
                parent.setdefault(last, []).append(value)


def _parent(document: Document, path: str) -> tuple[Document, str]:
    *parts, last = path.split(".")
    for part in parts:
        inner = document.get(part)
        if not isinstance(inner, dict):
            inner = document[part] = {}
        document = inner
    return document, last
