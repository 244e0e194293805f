"""What an edit returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A file's text after an edit; equal to what was given when there was nothing to do."""

    text: str
    reasons: tuple[str, ...] = ()
    """One sentence for each change, for people. Empty when nothing changed."""
    notes: tuple[str, ...] = ()
    """What was seen and left alone, for people. Never part of what is approved."""
