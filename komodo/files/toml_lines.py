"""Which key is on which line of a TOML file. Works on files that do not load, too, to name the line to correct."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_PATH = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_PAIR = re.compile(rf"[ \t]*({_PATH})[ \t]*=[ \t]*")
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_PATH})[ \t]*\]")
_LONGEST_VALUE = 200
"""Lines. A value that is longer counts as one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A table header or an assignment."""

    kind: str
    """table | array | pair"""
    table: tuple[str, ...]
    """The table it belongs to (of a header: itself); () is the top."""
    instance: int
    """Counts headers, to distinguish two [[git_provider]]."""
    path: tuple[str, ...]
    line: int
    loads: bool = True
    """Whether the assignment is TOML."""


def statements(text: str) -> Iterator[Statement]:
    """Every header and assignment, in order."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    table: tuple[str, ...] = ()
    instance = at = 0
    while at < len(lines):
        header, pair = _HEADER.match(lines[at]), _PAIR.match(lines[at])
        end = at + 1
        if header is not None:
            table, instance = _parts(header[2]), instance + 1
            kind = "table" if header[1] == "[" else "array"
            yield Statement(kind=kind, table=table, instance=instance, path=table, line=at + 1)
        elif pair is not None:
            last = _last_line(lines, at)
            yield Statement(
                kind="pair", table=table, instance=instance, path=_parts(pair[1]), line=at + 1, loads=last is not None
            )
            end = (at if last is None else last) + 1
        at = end


def _last_line(lines: Sequence[str], first: int) -> int | None:
    """The last line of an assignment: the first one up to which it is TOML. None: it is not."""
    for last in range(first, min(len(lines), first + _LONGEST_VALUE)):
        try:
            tomllib.loads("\n".join(lines[first : last + 1]))
        except tomllib.TOMLDecodeError:
            continue
        return last
    return None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(p[1:-1] if p[0] in "\"'" else p for p in re.findall(_KEY, dotted))


def duplicates(text: str) -> tuple[tuple[str, int, int], ...]:
    """Keys and tables that are there twice: (name, first line, second line)."""
    seen: dict[tuple[object, ...], int] = {}
    found: list[tuple[str, int, int]] = []
    arrays: dict[tuple[str, ...], int] = {}
    for s in statements(text):
        where: tuple[object, ...]
        if s.kind == "array":
            arrays[s.path] = s.instance
            continue
        if s.kind == "pair":
            where, name = ("pair", s.instance, s.path), ".".join(s.path)
        else:  # tables below a [[list]] may come again with each of its items
            item = max((i for path, i in arrays.items() if path == s.path[: len(path)]), default=0)
            where, name = ("table", s.path, item), f"[{'.'.join(s.path)}]"
        if where in seen:
            found.append((name, seen[where], s.line))
        else:
            seen[where] = s.line
    return tuple(found)
