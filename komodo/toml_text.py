"""A TOML file as lines with places: which key stands where, in which table. Works on files that do not parse, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from komodo.splice import line_end, line_number

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_DOTTED = re.compile(rf"[ \t]*({_KEY}(?:[ \t]*\.[ \t]*{_KEY})*)[ \t]*=[ \t]*")
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_KEY}(?:[ \t]*\.[ \t]*{_KEY})*)[ \t]*\]")
_PART = re.compile(_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A header, an assignment or a comment line."""

    kind: str
    """table | array | pair | comment | unknown"""
    table: tuple[str, ...]
    """The table it stands in (of a header: itself); () is the top."""
    instance: int
    """Counts headers, so that two [[git_provider]] are two."""
    path: tuple[str, ...]
    start: int
    value_start: int
    value_end: int
    end: int
    """Behind its last line."""
    line: int
    raw: str
    """The value as written; a comment's text."""


def statements(text: str) -> Iterator[Statement]:
    """Every line that says something, in order; values over several lines are one statement."""
    table: tuple[str, ...] = ()
    instance, at = 0, 1 if text.startswith("\ufeff") else 0
    while at < len(text):
        end = line_end(text, at)
        kind, value_start, value_end = "unknown", at, at
        path: tuple[str, ...] = ()
        if not text[at:end].strip():
            at = end
            continue
        header, pair = _HEADER.match(text, at), _DOTTED.match(text, at)
        if text[at:end].lstrip().startswith("#"):
            kind, value_end = "comment", end
        elif header is not None:
            kind, path = "table" if header[1] == "[" else "array", _parts(header[2])
            table, instance = path, instance + 1
        elif pair is not None:
            kind, path, value_start = "pair", _parts(pair[1]), pair.end()
            value_end = _value_end(text, value_start)
            end = line_end(text, max(value_end - 1, value_start) if value_end > value_start else value_start)
        yield Statement(
            kind=kind, table=table, instance=instance, path=path, start=at, value_start=value_start,
            value_end=value_end, end=end, line=line_number(text, at), raw=text[value_start:value_end],
        )  # fmt: skip
        at = end


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(p[1:-1] if p[0] in "\"'" else p for p in _PART.findall(dotted))


def _value_end(text: str, at: int) -> int:
    """Behind the value that begins here: strings and brackets are followed over lines, a comment ends it."""
    depth, last = 0, at
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = last = _string_end(text, at)
            continue
        if char == "#":
            at = text.find("\n", at)
            if depth <= 0 or at == -1:
                break
            continue
        if char == "\n" and depth <= 0:
            break
        depth += (char in "[{") - (char in "]}")
        at += 1
        if not char.isspace():
            last = at
    return last


def _string_end(text: str, at: int) -> int:
    quote = text[at]
    if text.startswith(quote * 3, at):
        end = at + 3
        while (end := text.find(quote * 3, end)) != -1:
            if quote == "'" or not _escaped(text, end):
                while text.startswith(quote, end + 3):
                    end += 1
                return end + 3
            end += 1
        return len(text)
    end = at + 1
    while end < len(text) and text[end] != "\n":
        if text[end] == quote and (quote == "'" or not _escaped(text, end)):
            return end + 1
        end += 1
    return end


def _escaped(text: str, at: int) -> bool:
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def duplicates(text: str) -> tuple[tuple[str, int, int], ...]:
    """Keys and tables that are there twice: (name, first line, second line)."""
    seen: dict[tuple[object, ...], int] = {}
    found: list[tuple[str, int, int]] = []
    for s in statements(text):
        where: tuple[object, ...]
        if s.kind == "pair":
            where, name = ("pair", s.instance, s.path), ".".join(s.path)
        elif s.kind == "table":
            where, name = ("table", s.path, _enclosing(text, s)), f"[{'.'.join(s.path)}]"
        else:
            continue
        if where in seen:
            found.append((name, seen[where], s.line))
        else:
            seen[where] = s.line
    return tuple(found)


def _enclosing(text: str, table: Statement) -> int:
    """Tables below a [[list]] may come again with each of its items."""
    last = 0
    for s in statements(text[: table.start]):
        if s.kind == "array" and s.path == table.path[: len(s.path)]:
            last = s.instance
    return last
