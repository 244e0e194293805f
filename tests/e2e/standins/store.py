"""The sandbox's Store on a real database through pymongo."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient
from pymongo.errors import BulkWriteError

from sandbox.mongo.store import Collection, Document


class Peeked(Collection):
    """A collection as it is now; `MongoStore.flush` writes changed documents."""


class _Indexed:
    """A collection whose indexes a restore can set."""

    def __init__(self, target: Any) -> None:
        self._target = target

    @property
    def indexes(self) -> list[Document]:
        """The present indexes."""
        return [dict(i) for i in self._target.list_indexes()]

    @indexes.setter
    def indexes(self, wanted: list[Document]) -> None:
        for index in wanted:
            if index["name"] != "_id_":
                options = {k: v for k, v in index.items() if k in ("name", "unique", "sparse", "expireAfterSeconds")}
                self._target.create_index(list(index["key"].items()), **options)


class _Database:
    """The part of a dict of collections that the dump tools use."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def items(self) -> Iterator[tuple[str, Collection]]:
        """(name, content)."""
        for name in sorted(self._database.list_collection_names()):
            if not name.startswith("system."):
                found = self._database[name]
                yield name, Collection(list(found.find()), [_plain_index(i) for i in found.list_indexes()])

    def pop(self, name: str, _default: object) -> None:
        """Drop a collection."""
        self._database.drop_collection(name)


class MongoStore:
    """The methods of sandbox.mongo.store.Store that Core uses."""

    def __init__(self, client: MongoClient[Any]) -> None:
        self._client = client
        self._seen: list[tuple[str, str, Document, Document]] = []

    @property
    def databases(self) -> MongoStore:
        """`store.databases.get(name, {})`."""
        return self

    def get(self, name: str, _default: object = None) -> _Database:
        """The database of this name."""
        return _Database(self._client[name])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._client.list_database_names()))

    def collection(self, database: str, name: str) -> Any:
        """The collection; it is created if it is missing."""
        if name not in self._client[database].list_collection_names():
            self._client[database].create_collection(name)
        return _Indexed(self._client[database][name])

    def peek(self, database: str, name: str) -> Collection:
        """The documents of a collection; `flush` writes changes in them."""
        found = list(self._client[database][name].find())
        self._seen += [(database, name, copy.deepcopy(d), d) for d in found]
        return Peeked(found)

    def flush(self) -> None:
        """Write the changed documents of `peek`."""
        for database, name, before, after in self._seen:
            if before != after:
                self._client[database][name].replace_one({"_id": before["_id"]}, after)
        self._seen.clear()

    def forget(self) -> None:
        """Discard the documents of `peek`."""
        self._seen.clear()

    def find(self, database: str, name: str, query: Document | None = None) -> list[Document]:
        """Matching documents."""
        return list(self._client[database][name].find(query or {}))

    def read_all(self, database: str, name: str) -> tuple[Document, ...]:
        """All documents, for reading only."""
        return tuple(self._client[database][name].find())

    def insert(self, database: str, name: str, documents: list[Document]) -> list[Document]:
        """Insert documents. Returns a write error for each `_id` that exists already."""
        if not documents:
            return []
        try:
            self._client[database][name].insert_many(documents, ordered=False)
        except BulkWriteError as error:
            return list(error.details["writeErrors"])
        return []

    def update(
        self, database: str, name: str, query: Document, change: Document, *, many: bool, upsert: bool
    ) -> Document:
        """Update one or all matching documents."""
        found = self._client[database][name]
        done = (found.update_many if many else found.update_one)(query, change, upsert=upsert)
        return {"n": done.matched_count, "nModified": done.modified_count}

    def delete(self, database: str, name: str, query: Document, limit: int) -> int:
        """Delete one (limit 1) or all (0) matching documents. Returns the number."""
        found = self._client[database][name]
        return int((found.delete_one if limit else found.delete_many)(query).deleted_count)


def _plain_index(index: Any) -> Document:
    found = dict(index)
    found["key"] = dict(found["key"])
    return found
