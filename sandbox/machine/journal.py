"""systemd's journal of one host: lines with time, unit and invocation, also kept as files that tests may read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sandbox.world import now


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line."""

    at: datetime
    unit: str
    text: str
    identifier: str
    """Name of the program, as `-o short` shows it."""
    pid: int
    invocation: str
    """Of the service's own lines; empty for what systemd itself says about the unit."""


class Journal:
    """All units of one host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[Entry] = []

    def add(self, unit: str, text: str, *, identifier: str, pid: int, invocation: str = "") -> None:
        """Append what a program printed: one entry a line, as journald does."""
        at = now()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{unit}.jsonl").open("a", encoding="utf-8") as file:
            for line in text.split("\n"):
                if not line:
                    continue  # journald drops empty lines
                self.entries.append(
                    Entry(at=at, unit=unit, text=line, identifier=identifier, pid=pid, invocation=invocation)
                )
                file.write(json.dumps({"at": at.isoformat(), "invocation": invocation, "text": line}) + "\n")

    def of(self, unit: str, *, invocation: str = "", since: float = 0.0) -> list[Entry]:
        """Lines of a unit: all, or those of one invocation, or those from a time on."""
        return [
            e
            for e in self.entries
            if e.unit == unit
            and (not invocation or e.invocation == invocation)
            and (not since or e.at.timestamp() >= since)
        ]
