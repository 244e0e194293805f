"""What a database holds, in a few kilobytes: per collection the count, a digest that no order changes, the indexes.

Two forms. `exact` is over the BSON as stored: mongodump and mongorestore keep every byte. `values` is for km, whose
backups are JSON lines (v1.19.5:lib/database/src/utils/backup.rs, restore.rs): a restore keeps no order of fields, no
width of integers and not the last bits of a float, so these are left out.

Each collection is cut into PARTS by its documents' ids. So a dump of a database in use can still be compared: a part
that was the same before and after the dump must be the same in it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from komodo.core.database import Database
from model.errors import DatabaseError
from model.facts import CollectionCount

PARTS = 256
EXACT, VALUES = "exact", "values"
_WIDTH = 16
"""Bytes of a document's digest; digests are added up."""
_WHOLE = 1 << (8 * _WIDTH)
_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
_UNREPORTED = ("v", "ns", "background", "storageEngine")
"""What an index's description holds besides the index: FerretDB adds its storage engine."""

Part = tuple[int, int]
"""Documents, and the sum of their digests."""


@dataclass(slots=True)
class Content:
    """One collection."""

    parts: dict[int, Part] = field(default_factory=dict)
    indexes: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        """How many."""
        return sum(count for count, _ in self.parts.values())

    @property
    def digest(self) -> str:
        """The same for the same documents, in whatever order they come."""
        total = sum(value for _, value in self.parts.values()) % _WHOLE
        return f"{total:0{2 * _WIDTH}x}"

    def add(self, number: int, value: int) -> None:
        """One document of this part."""
        count, total = self.parts.get(number, (0, 0))
        self.parts[number] = (count + 1, (total + value) % _WHOLE)


@dataclass(slots=True)
class Fingerprint:
    """One database, at one time."""

    form: str
    collections: dict[str, Content] = field(default_factory=dict)

    def counts(self) -> tuple[CollectionCount, ...]:
        """For results and reports: one line a collection."""
        return tuple(
            CollectionCount(name=n, documents=c.documents, digest=c.digest) for n, c in sorted(self.collections.items())
        )


async def take(database: Database, form: str, send_heartbeat: Callable[[], None] = lambda: None) -> Fingerprint:
    """Read the whole database once: one batch in memory at a time. `send_heartbeat` is called for each.

    Raises DatabaseError.
    """
    found = Fingerprint(form)
    entry = _exact if form == EXACT else _values
    for name in await database.collections():
        content = found.collections[name] = Content()
        async for batch in database.batches(name):
            for raw in _documents(batch):
                content.add(*entry(raw))
            send_heartbeat()
        content.indexes = tuple(sorted(_index(i) for i in await database.indexes(name)))
    return found


def _documents(batch: bytes) -> Iterator[bytes]:
    start, end = 0, len(batch)
    while start < end:
        size = int.from_bytes(batch[start : start + 4], "little")
        yield batch[start : start + size]
        start += size


def _exact(raw: bytes) -> tuple[int, int]:
    # An ObjectId as first field, as it nearly always is, is read in place.
    plain = raw[4:9] == b"\x07_id\x00"
    identity = raw[9:21] if plain else _canonical(bson.decode(raw, _OPTIONS).get("_id"))
    return zlib.crc32(identity) % PARTS, int.from_bytes(blake2b(raw, digest_size=_WIDTH).digest(), "big")


def _values(raw: bytes) -> tuple[int, int]:
    document = bson.decode(raw, _OPTIONS)
    text = _canonical(document)
    return (
        zlib.crc32(_canonical(document.get("_id"))) % PARTS,
        int.from_bytes(blake2b(text, digest_size=_WIDTH).digest(), "big"),
    )


def _canonical(value: Any) -> bytes:
    """A value without the order of its fields, the width of its integers and the last bits of its floats."""
    if isinstance(value, Mapping):
        inner = b",".join(key.encode() + b":" + _canonical(value[key]) for key in sorted(value))
        return b"{" + inner + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(_canonical(v) for v in value) + b"]"
    if isinstance(value, bool) or value is None:
        return repr(value).encode()
    if isinstance(value, int):
        return b"%d" % int(value)
    if isinstance(value, float):
        return f"f{value:.7g}".encode()
    return f"{type(value).__name__}({value!r})".encode()


def _index(description: Mapping[str, Any]) -> str:
    """An index without what differs from server to server."""
    kept = {k: v for k, v in description.items() if k not in _UNREPORTED}
    kept["key"] = [[k, int(v) if isinstance(v, (int, float)) else v] for k, v in dict(description["key"]).items()]
    return json.dumps(kept, sort_keys=True, default=str)


# --- what a dump is held to -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Source:
    """A database before and after it was dumped. A quiet one is the same twice."""

    first: Fingerprint
    last: Fingerprint

    def to_json(self) -> bytes:
        """For the run folder. What changed in between is written twice, everything else once."""
        last = {n: c for n, c in self.last.collections.items() if self.first.collections.get(n) != c}
        text = {
            "fingerprint": 1,
            "form": self.first.form,
            "collections": {n: _plain(c) for n, c in self.first.collections.items()},
            "changed": {n: _plain(c) for n, c in last.items()},
            "gone": sorted(self.first.collections.keys() - self.last.collections.keys()),
        }
        return json.dumps(text, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Source:
        """Raises DatabaseError for what `to_json` did not write."""
        try:
            text = json.loads(data)
            first = {n: _content(c) for n, c in text["collections"].items()}
            gone = set(text["gone"])
            changed = {n: _content(c) for n, c in text["changed"].items()}
            last = {n: c for n, c in {**first, **changed}.items() if n not in gone}
            return cls(Fingerprint(text["form"], first), Fingerprint(text["form"], last))
        except (ValueError, KeyError, TypeError) as error:
            raise DatabaseError(f"the database's fingerprint in the run folder cannot be read ({error})") from None


def _plain(content: Content) -> dict[str, Any]:
    parts = {f"{n:02x}": [count, f"{value:x}"] for n, (count, value) in sorted(content.parts.items())}
    return {"parts": parts, "indexes": content.indexes}


def _content(text: Mapping[str, Any]) -> Content:
    parts = {int(n, 16): (int(count), int(value, 16)) for n, (count, value) in text["parts"].items()}
    return Content(parts=parts, indexes=tuple(text["indexes"]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a dump holds what the database held. `kind`: equal | empty | wrong database | truncated | different."""

    kind: str
    wrong: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Collections that changed while they were dumped, and by how much: tolerated."""
    without_indexes: tuple[str, ...] = ()
    """Collections whose indexes the restore did not make."""


def compare(source: Source, held: Fingerprint) -> Verdict:
    """What the dump holds, restored elsewhere, against the database it was taken from."""
    names = sorted(source.first.collections.keys() | source.last.collections.keys() | held.collections.keys())
    comparisons = [_Comparison.of(name, source, held) for name in names]
    wrong = tuple(line for one in comparisons if (line := one.wrong))
    changed = tuple(one.change for one in comparisons if one.change)
    bare = tuple(one.name for one in comparisons if one.unindexed)
    if not wrong:
        return Verdict("equal", (), changed, bare)
    return Verdict(_kind(comparisons), wrong, changed, bare)


def _kind(comparisons: Iterable[_Comparison]) -> str:
    every = list(comparisons)
    if not any(one.held for one in every):
        return "empty"
    if not any(one.equal for one in every):
        return "wrong database"
    return "different" if any(one.alien for one in every) else "truncated"


@dataclass(slots=True)
class _Comparison:
    """One collection, compared part by part."""

    name: str
    first: int = 0
    last: int = 0
    held: int = 0
    equal: int = 0
    """Documents in parts that are the same in the dump."""
    moved: int = 0
    """Parts that changed meanwhile."""
    parts: int = 0
    bad: int = 0
    alien: bool = False
    """Something is in the dump that was not in the database."""
    unindexed: bool = False

    @classmethod
    def of(cls, name: str, source: Source, held: Fingerprint) -> _Comparison:
        first, last = source.first.collections.get(name, Content()), source.last.collections.get(name, Content())
        have = held.collections.get(name, Content())
        one = cls(name, first.documents, last.documents, have.documents)
        for number in first.parts.keys() | last.parts.keys() | have.parts.keys():
            one._part(first.parts.get(number, (0, 0)), last.parts.get(number, (0, 0)), have.parts.get(number, (0, 0)))
        one.unindexed = bool(have.parts) and not set(last.indexes) <= set(have.indexes)
        return one

    def _part(self, first: Part, last: Part, have: Part) -> None:
        self.parts += 1
        if first == last:
            if have == first:
                self.equal += have[0]
            else:
                self.bad += 1
                self.alien |= have[0] >= first[0]
            return
        self.moved += 1
        low, high = sorted((first[0], last[0]))
        if not low <= have[0] <= high:
            self.bad += 1
            self.alien |= have[0] > high

    @property
    def wrong(self) -> str:
        if not self.bad:
            return ""
        there = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        if self.held == self.first == self.last:
            return f"{self.name}: {self.held} documents in both, not the same content"
        return f"{self.name}: {there} documents in the database, {self.held} in the dump"

    @property
    def change(self) -> str:
        if not self.moved:
            return ""
        return f"{self.name} ({self.moved} of {self.parts} parts)"
