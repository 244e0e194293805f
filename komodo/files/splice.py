"""Edits as replacements at places of a text. Every other byte stays the same, which is checked again afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A file's text after an edit; equal to what was given when there was nothing to do."""

    text: str
    reasons: tuple[str, ...] = ()
    """One sentence for each change. Empty when nothing changed."""
    notes: tuple[str, ...] = ()
    """What was found and left as it is. Never part of what is approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Replace text[start:end]; start == end inserts."""

    start: int
    end: int
    text: str


def apply(text: str, splices: Sequence[Splice]) -> str:
    """The edited text. Insertions at one place keep their order. Raises ValueError when splices overlap."""
    out: list[str] = []
    at = 0
    for s in sorted(splices, key=lambda s: (s.start, s.end)):
        if s.start < at:
            raise ValueError("edits overlap")
        out += [text[at : s.start], s.text]
        at = s.end
    return "".join([*out, text[at:]])


def untouched_equal(before: str, after: str, splices: Sequence[Splice]) -> bool:
    """Whether both texts hold the same characters outside of the splices."""
    i = j = 0
    for s in sorted(splices, key=lambda s: (s.start, s.end)):
        kept = s.start - i
        if before[i : s.start] != after[j : j + kept] or not after.startswith(s.text, j + kept):
            return False
        i, j = s.end, j + kept + len(s.text)
    return before[i:] == after[j:]


def line_start(text: str, at: int) -> int:
    """Offset of the first character of the line that holds `at`."""
    return text.rfind("\n", 0, at) + 1


def line_end(text: str, at: int) -> int:
    """Offset behind the line that holds `at`, its line break included."""
    found = text.find("\n", at)
    return len(text) if found == -1 else found + 1


def line_number(text: str, at: int) -> int:
    """Of the line that holds `at`, from 1."""
    return text.count("\n", 0, at) + 1


def newline_of(text: str, at: int = 0) -> str:
    """The line break in use around `at`: that of its line, else of the line before, else of the text's first line."""
    for end in (text.find("\n", at), text.rfind("\n", 0, at), text.find("\n")):
        if end != -1:
            return "\r\n" if text[end - 1 : end] == "\r" else "\n"
    return "\n"


def lines_after(text: str, at: int, lines: Sequence[str]) -> Splice:
    """Insert whole lines behind the line that holds `at`; a missing line break at the end of the file stays missing."""
    newline = newline_of(text, at)
    end = line_end(text, at)
    if end and text[end - 1] == "\n":
        return Splice(start=end, end=end, text="".join(line + newline for line in lines))
    return Splice(start=end, end=end, text="".join(newline + line for line in lines))
