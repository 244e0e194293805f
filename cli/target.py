"""The fleet of a command: a fleet file, or the name of a fleet whose upgrade Temporal knows."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import click

from model.fleet.spec import FleetSpec

ENV = "KOMODO_UPGRADE_FLEET"
DEFAULT = "fleet.toml"


@dataclass(frozen=True, slots=True)
class Target:
    """A fleet by name; `fleet` is set if a file was read. `servers` are the other arguments."""

    name: str
    fleet: FleetSpec | None = None
    servers: tuple[str, ...] = ()

    @property
    def argument(self) -> str:
        """The argument that means this fleet in another command."""
        if self.fleet is None:
            return self.name
        path = Path(self.fleet.source)
        if path == (Path.cwd() / DEFAULT):
            return ""
        try:
            return str(path.relative_to(Path.cwd()))
        except ValueError:
            return str(path)


def load_file(given: str | None) -> FleetSpec:
    """The fleet of the given or the default file. Raises FleetFileError."""
    from model.fleet.file import load

    fleet = load(given or os.environ.get(ENV) or DEFAULT)
    if not fleet.ignored_checks:
        return fleet
    from komodo.checks.all import known_codes

    return replace(fleet, ignored_checks=known_codes(fleet.ignored_checks))


def limited(fleet: FleetSpec, patterns: tuple[str, ...]) -> FleetSpec:
    """The fleet for a run with the servers that fit a pattern of `--limit`; the others are covered by name.

    A name fits itself, also with characters that mean something in a pattern. Raises UsageError for a pattern that no
    server fits.
    """
    chosen: list[str] = []
    for pattern in patterns:
        fits = [s.name for s in fleet.servers if s.name == pattern or fnmatchcase(s.name, pattern)]
        if not fits:
            known = ", ".join(server.name for server in fleet.servers)
            raise click.UsageError(f"--limit {pattern} fits no server of {fleet.name}: {known}")
        chosen += fits
    if not patterns:
        return fleet
    return replace(fleet, not_in_run=tuple(s.name for s in fleet.servers if s.name not in chosen))


def resolve(arguments: tuple[str, ...], *, servers: bool = False) -> Target:
    """Read `[FLEET] [SERVER…]`. FLEET is a file or a name, and optional.

    A first argument that looks like a file is one. Otherwise, if the default fleet file exists, it is that fleet's name
    or one of its servers. Otherwise it is the name of another fleet.
    """
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", ())
    if first and _looks_like_file(first):
        return _checked(load_file(first), rest, servers=servers)
    default = os.environ.get(ENV) or DEFAULT
    if not first or Path(default).expanduser().exists():
        fleet = load_file(None)
        if not first or first == fleet.name:
            return _checked(fleet, rest, servers=servers)
        if servers and first in _names(fleet):
            return _checked(fleet, arguments, servers=servers)
    return _bare(first, rest, servers=servers)


def _looks_like_file(text: str) -> bool:
    return text.endswith(".toml") or "/" in text or Path(text).is_file()


def _names(fleet: FleetSpec) -> tuple[str, ...]:
    return ("core", *(server.name for server in fleet.servers))


def _checked(fleet: FleetSpec, rest: tuple[str, ...], *, servers: bool) -> Target:
    unknown = [name for name in rest if name not in _names(fleet)] if servers else list(rest)
    if unknown:
        known = f"; servers of {fleet.name}: {', '.join(_names(fleet)[1:])}" if servers else ""
        raise click.UsageError(f"{unknown[0]} is unknown{known}")
    return Target(fleet.name, fleet, rest)


def _bare(name: str, rest: tuple[str, ...], *, servers: bool) -> Target:
    if rest and not servers:
        raise click.UsageError(f"{rest[0]} is one argument too many")
    return Target(name, None, rest)
