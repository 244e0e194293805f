"""What a fleet file may be at all: a regular file of UTF-8 text, small, shallow, without invisible characters.

Checked before anything else reads it, so that a hostile file is refused at once and cannot forge a message.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.errors import FleetFileError

LARGEST = 512 * 1024
"""Bytes. 2,000 servers with five keys each are about 300 KiB."""
DEEPEST = 10
"""Tables and lists inside each other, or parts of a dotted key; a valid file has at most three."""
MOST_SERVERS = 5000

# Every alternative also matches a string that does not end: otherwise, each of its quotation marks would start a scan.
_STRINGS = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\\?\Z)'
    r"|'''.*?(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'[^'\n]*'?|#[^\n]*",
    re.DOTALL,
)
_DOTTED = re.compile(rf"\.(?:[\w \t-]*\.){{{DEEPEST}}}")


def read_text(path: Path, shown: Path | str) -> str:
    """The text of the file. Raises FleetFileError; never waits for a pipe or a device."""
    try:
        return read_bounded(path, LARGEST).decode()
    except FileNotFoundError:
        hint = f"write one with `komodo-upgrade init {shown}`, or name another file after the command"
        raise FleetFileError(f"{shown}: no such file", hint=hint) from None
    except OSError as error:
        raise FleetFileError(f"{shown}: {error.strerror}", hint="name a file that you may read") from None
    except UnicodeDecodeError:
        raise FleetFileError(f"{shown}: the file is not UTF-8 text", hint="save it as UTF-8") from None
    except ValueError as error:
        hint = "name the fleet file itself; one of 2,000 servers takes about 300 KiB"
        raise FleetFileError(f"{shown} {error}", hint=hint) from None


def read_bounded(path: Path, largest: int) -> bytes:
    """The content of a regular file. Raises OSError, and ValueError for what it is; never waits for a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ValueError(f"is {kind}, not a file")
    with os.fdopen(handle, "rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"is larger than {largest // 1024} KiB")
    return data


def too_deep(text: str) -> int:
    """The first line that nests deeper than a fleet file ever does; 0: none."""
    bare = _STRINGS.sub(lambda found: "\n" * found.group().count("\n"), text)
    depth = 0
    for found in re.finditer(r"[\[{\]}]", bare):
        depth = depth + 1 if found.group() in "[{" else max(depth - 1, 0)
        if depth > DEEPEST:
            return bare.count("\n", 0, found.start()) + 1
    dotted = _DOTTED.search(bare)
    return bare.count("\n", 0, dotted.start()) + 1 if dotted else 0


def invisible(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where a key or a text holds a control, line break, bidirectional or zero-width character, and which."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from invisible(key, (*at, key))
            yield from invisible(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from invisible(inner, (*at, index))
    elif isinstance(value, str):
        found = next((c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), "")
        if found:
            yield at, f"U+{ord(found):04X}"


def printable(value: object, most: int = 100) -> str:
    """A value for a message: on one line, without characters that a terminal would act on, at most so long."""
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
