"""Secrets by value: what this worker read as a secret is replaced wherever it appears in text for people.

Values are learned from what hosts print (env files, the environment in `docker inspect` and compose files, TOML) under
a name that sounds like a secret, from credentials in URLs, and from the references of fleet files. They stay in memory.
What one host prints cannot displace the values of another host or of a reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote

from model.facts import Finding
from model.text.outside import CUT

T = TypeVar("T")
MASK = "•••"
PER_HOST = 200
"""Values of one host that are kept, and learned from one output at most; those not seen for longest are forgotten."""
MOST = 5_000
"""Values of all hosts together. Beyond that, the host with the most values loses one."""
SHORTEST = 4
LEARNED = 256 << 10
"""Bytes of one output that are searched."""
_EXAMINED = 2 * LEARNED
"""Characters of values that are examined: the rest of a line can hold many. Learning runs on the event loop."""
_LONGEST_VALUE = 8192
_KEY = re.compile(r"(?<![\w.-])([\w.-]{2,80})[\"']?[ \t]{0,8}[:=][ \t]{0,8}")
_SOUNDS_SECRET = re.compile(r"(?i)pass(?!ive)|secret|token|api_?key|private_?key|credential|jwt|pwd|authorization")
_NAMES_A_FILE = re.compile(r"(?i)(_file|_path|_command|_env)$")
_QUOTED = re.compile(r"\"((?:[^\"\\\n]|\\.){0,8192})\"|'([^'\n]{0,8192})'")
_BARE = re.compile(r"(?:[^\"\\\n]|\\[^\n])*")
_IN_URL = re.compile(r"://[^\s/@:\"']{0,256}:([^\s/@\"']{1,1024})@")
_EVERYDAY = re.compile(r"(?i)(true|false|none|null|yes|no|[a-z]{1,7}|\d{1,5}|\$\{?\w+.*)")
"""Words that are no secrets, whatever their name: replacing them would make messages unreadable."""

_of_references: dict[str, str] = {}
_of_hosts: dict[str, dict[str, None]] = {}
"""Per host, the value that was seen last at the end."""
_ordered: list[str] = []
"""All forms of all values, the longest first; empty: to be sorted again."""


def learn(output: bytes, host: str) -> None:
    """Remember the secrets in what a host printed."""
    text = output[:LEARNED].decode(errors="replace")
    found: dict[str, None] = {}
    left = _EXAMINED
    for value in _apparent(text):
        if SHORTEST <= len(value) <= _LONGEST_VALUE and not _EVERYDAY.fullmatch(value):
            found[value] = None
        left -= len(value) + 64
        if left < 0 or len(found) == PER_HOST:
            break
    for value in found:
        _remember(host, value)


def learn_reference(reference: str, value: str) -> None:
    """Remember the value of a fleet's reference, whatever it looks like, until the reference has another value."""
    before = _of_references.get(reference)
    if before == value:
        return
    if before is not None:
        _remember("", before)
    _of_references[reference] = value
    _ordered.clear()


def forget_all() -> None:
    """For tests."""
    for kept in (_of_references, _of_hosts, _ordered):
        kept.clear()


def mask(text: str) -> str:
    """The text without the secrets that are known, also without the beginning of one at its end if it was cut there."""
    known = _sorted()
    for value in known:
        if value in text:
            text = text.replace(value, MASK)
    if text.endswith(CUT):
        body = text.removesuffix(CUT)
        start = min((_begins_at_end(body, value) for value in known), default=len(body))
        text = text if start == len(body) else f"{body[:start]}{MASK}{CUT}"
    return text


def _begins_at_end(text: str, value: str) -> int:
    """Where the beginning of the value is at the end of the text; the text's length: nowhere."""
    start = text.find(value[:SHORTEST], max(0, len(text) - len(value)))
    while start >= 0 and not value.startswith(text[start:]):
        start = text.find(value[:SHORTEST], start + 1)
    return start if start >= 0 else len(text)


def mask_findings(value: T) -> T:
    """The same value with secrets masked in its findings; facts that steps work with stay as they are."""
    if isinstance(value, Finding):
        return replace(value, text=mask(value.text), hint=mask(value.hint))
    if isinstance(value, tuple):
        return tuple(mask_findings(item) for item in value)  # type: ignore[return-value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed: dict[str, Any] = {}
    for part in fields(value):
        before = getattr(value, part.name)
        after = mask_findings(before)
        if after != before:
            changed[part.name] = after
    return replace(value, **changed) if changed else value


def _remember(host: str, value: str) -> None:
    values = _of_hosts.setdefault(host, {})
    if value in values:
        values[value] = values.pop(value)
        return
    values[value] = None
    if len(values) > PER_HOST:
        _forget_oldest(values)
    elif sum(map(len, _of_hosts.values())) > MOST:
        _forget_oldest(max(_of_hosts.values(), key=len))
    _ordered.clear()


def _forget_oldest(values: dict[str, None]) -> None:
    values.pop(next(iter(values)))


def _sorted() -> list[str]:
    if not _ordered:
        values = {*_of_references.values(), *chain.from_iterable(_of_hosts.values())}
        _ordered[:] = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
    return _ordered


def _forms(value: str) -> Iterator[str]:
    """The value and its long lines, as they are and as errors quote them."""
    for part in (value, *(line for line in value.splitlines() if len(line) >= 16)):
        if len(part) >= SHORTEST:
            yield from (part, quote(part, safe=""), json.dumps(part)[1:-1], part.replace("$$", "$"))


def _apparent(text: str) -> Iterator[str]:
    """Values under a name that sounds like a secret, and passwords in URLs."""
    end = 0
    for found in _KEY.finditer(text):
        if found.start() < end:
            continue
        if _SOUNDS_SECRET.search(found.group(1)) and not _NAMES_A_FILE.search(found.group(1)):
            end = _end_of_list(text, found.end())
            values = _quoted(text, found.end(), end) if end else _values(text, found.end())
            yield from (value.strip() for value in values)
    for found in _IN_URL.finditer(text):
        yield found.group(1)


def _end_of_list(text: str, start: int) -> int:
    """Where a list that begins at `start` ends; 0: none begins there."""
    if text[start : start + 1] != "[":
        return 0
    end = text.find("]", start, start + _LONGEST_VALUE)
    return end if end >= 0 else min(start + _LONGEST_VALUE, len(text))


def _quoted(text: str, start: int, end: int) -> Iterator[str]:
    for item in _QUOTED.finditer(text, start, end):
        yield _unescaped(item)


def _values(text: str, start: int) -> Iterator[str]:
    """The value of `key = value`: quoted, or the rest of the line."""
    quoted = _QUOTED.match(text, start)
    if quoted:
        yield _unescaped(quoted)
        return
    found = _BARE.match(text, start, start + _LONGEST_VALUE)
    rest = found.group() if found else ""
    yield _unquoted(rest)
    yield re.split(r"[ \t]#", rest, maxsplit=1)[0].rstrip(",; \t\r")


def _unescaped(found: re.Match[str]) -> str:
    return _unquoted(found.group(1)) if found.group(1) is not None else str(found.group(2))


def _unquoted(text: str) -> str:
    """As JSON and TOML mean a basic string; unchanged where it is none."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
