"""Unit files and drop-ins as systemd reads them: sections, continued lines, lists that an empty value resets."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

LISTS = frozenset({"ExecStart", "ExecStartPre", "Environment", "EnvironmentFile", "After", "Wants"})


@dataclass(slots=True)
class UnitFile:
    """A loaded unit: the fragment with its drop-ins applied."""

    name: str
    fragment: Path
    drop_ins: list[Path]
    values: dict[str, list[str]] = field(default_factory=dict)
    stamp: tuple[tuple[str, int, int], ...] = ()
    """Of the files it was read from: to see that they changed on disk."""

    def get(self, key: str, default: str = "") -> str:
        """The last value of a key."""
        found = self.values.get(key)
        return found[-1] if found else default

    def all(self, key: str) -> list[str]:
        """Every value of a list-like key."""
        return self.values.get(key, [])

    def environment(self) -> dict[str, str]:
        """`Environment=` assignments, quotes resolved."""
        words = [w for line in self.all("Environment") for w in shlex.split(line)]
        return dict(w.split("=", 1) for w in words if "=" in w)

    def command(self) -> list[str]:
        """The words of ExecStart, without systemd's prefixes."""
        line = self.get("ExecStart")
        return shlex.split(line.lstrip("-@:+!"))


def files(folder: Path, name: str) -> tuple[Path | None, list[Path]]:
    """The fragment of a unit and its drop-ins, in the order systemd applies them."""
    fragment = folder / name
    drop_ins = sorted((folder / f"{name}.d").glob("*.conf"))
    return (fragment if fragment.is_file() else None), drop_ins


def stamp(folder: Path, name: str) -> tuple[tuple[str, int, int], ...]:
    """What `NeedDaemonReload` compares."""
    fragment, drop_ins = files(folder, name)
    found = [p for p in (fragment, *drop_ins) if p is not None]
    return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in found)


def load(folder: Path, name: str) -> UnitFile | None:
    """Read a unit; None when there is no such file."""
    fragment, drop_ins = files(folder, name)
    if fragment is None:
        return None
    unit = UnitFile(name, fragment, drop_ins, stamp=stamp(folder, name))
    for path in (fragment, *drop_ins):
        _apply(path.read_text(encoding="utf-8"), unit.values)
    return unit


def _apply(text: str, values: dict[str, list[str]]) -> None:
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if not line or line[0] in "#;[" or "=" not in line:
            continue
        key, _, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if key in LISTS:
            if value:
                values.setdefault(key, []).append(value)
            else:
                values[key] = []
        else:
            values[key] = [value]
