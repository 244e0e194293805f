"""The line of each key of a TOML text, so that an error can name it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

_MOST_JOINED = 2_000_000
"""Characters parsed in search of the end of values over several lines; beyond, only single lines are read."""
_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")


def find_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every table header and key, by path: `("server", 1, "host")`.

    Statements that the TOML parser would refuse are skipped.
    """
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, statement in _statements(text):
        header = _HEADER.match(statement)
        if header:
            table = _enter(header, counts)
            found.setdefault(table, number)
            if header.group(1) == "[[":
                found.setdefault(table[:-1], number)
            continue
        for path in _paths(_parse(statement)):
            found.setdefault(table + path, number)
    return found


def repeated_keys(text: str) -> list[tuple[str, int, int]]:
    """Keys set twice in one table: (dotted path, first line, second line). The TOML parser itself names only one."""
    counts: dict[Path, int] = {}
    seen: dict[Path, int] = {}
    twice: list[tuple[str, int, int]] = []
    table: Path = ()
    for number, statement in _statements(text):
        header = _HEADER.match(statement)
        if header:
            table = _enter(header, counts)
            paths: list[Path] = [] if header.group(1) == "[[" else [()]
        else:
            paths = [path for path in _paths(_parse(statement)) if path][-1:]
        for path in paths:
            full = table + path
            if full in seen:
                twice.append((dotted(full), seen[full], number))
            else:
                seen[full] = number
    return twice


def dotted(path: Path) -> str:
    """`("server", 1, "host")` → `server[2].host`: people count from one."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _enter(header: re.Match[str], counts: dict[Path, int]) -> Path:
    parsed = _parse(f"{header.group(2)} = 0")
    names = max(_paths(parsed), key=len, default=())
    path: Path = ()
    for name in names[:-1]:
        path += (name,)
        if path in counts:
            path += (counts[path] - 1,)
    path += names[-1:]
    if header.group(1) == "[[":
        counts[path] = counts.get(path, 0) + 1
        path += (counts[path] - 1,)
    return path


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Table headers and `key = value` statements; a value over several lines is one statement."""
    lines = text.splitlines()
    index = joined = 0
    while index < len(lines):
        start = index
        index += 1
        line = lines[start].strip()
        if not line or line.startswith("#"):
            continue
        statement = lines[start]
        if not _HEADER.match(statement) and _parse(statement) is None:
            # A value that continues: add lines until the statement parses. A broken statement stays one line.
            for end in range(start + 2, min(len(lines), start + 500) + 1):
                longer = "\n".join(lines[start:end])
                joined += len(longer)
                if joined > _MOST_JOINED:
                    break
                if _parse(longer) is not None:
                    statement, index = longer, end
                    break
        yield start + 1, statement


def _parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except ValueError:
        return None


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))
