"""What a worker lets a fleet use on the worker's machine: commands, variables, files, hosts. Written in worker.toml.

A missing list allows nothing, "*" allows everything. The tables under `fleets` are written by the commands for the
fleet files that the owner of an embedded worker names; their lists count together with the ones above them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import PolicyRefused
from model.fleet.spec import FleetSpec, HostSpec, SecretRef

ANYTHING = "*"


class Allowed(BaseModel):
    """Four lists."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    commands: list[str] = []
    """Exactly as the fleet file has them: `*_command` and `[notify] command`."""
    variables: list[str] = []
    """Environment variables that `*_env` may name."""
    files: list[str] = []
    """Secret files, key files, ssh configs and known_hosts files; shell patterns of absolute paths."""
    hosts: list[str] = []
    """Names, shell patterns of names, addresses, networks such as 10.0.0.0/8."""


class WorkerPolicy(Allowed):
    """The whole file."""

    fleets: dict[str, Allowed] = {}

    def allows_command(self, command: str) -> bool:
        """May this command run?"""
        return any(allowed in (command, ANYTHING) for allowed in self._all("commands"))

    def allows_variable(self, name: str) -> bool:
        """May this variable be read?"""
        return any(fnmatchcase(name, allowed) for allowed in self._all("variables"))

    def allows_file(self, name: str) -> bool:
        """May this file be read?"""
        path = absolute(name)
        return any(fnmatchcase(path, absolute(allowed)) or allowed == ANYTHING for allowed in self._all("files"))

    def allows_host(self, address: str) -> bool:
        """May this host be reached?"""
        name = address.lower()
        return name in self._host_names or _is_host(name, self._all("hosts"))

    @cached_property
    def _host_names(self) -> frozenset[str]:
        """For a fleet of many hosts. An entry with a bracket is a pattern that does not match itself."""
        return frozenset(allowed.lower() for allowed in self._all("hosts") if "[" not in allowed)

    def _all(self, name: str) -> Iterator[str]:
        for lists in (self, *self.fleets.values()):
            yield from getattr(lists, name)

    def with_fleet(self, fleet: FleetSpec) -> WorkerPolicy:
        """The same policy, with what this fleet file refers to; a run with an older file keeps what it needs."""
        source = fleet.source or fleet.name
        before, now = self.fleets.get(source, Allowed()), references(fleet)
        both = {name: _unique([*getattr(before, name), *getattr(now, name)]) for name in Allowed.model_fields}
        lists = {name: getattr(self, name) for name in Allowed.model_fields}
        return WorkerPolicy(**lists, fleets={**self.fleets, source: Allowed(**both)})


ANY = WorkerPolicy(commands=[ANYTHING], variables=[ANYTHING], files=[ANYTHING], hosts=[ANYTHING])
"""A worker without a policy, whose messages are authenticated."""
NO_COMMANDS = WorkerPolicy(variables=[ANYTHING], files=[ANYTHING], hosts=[ANYTHING])
"""A worker without a policy and without a key ring."""


def parse(text: str, source: str) -> WorkerPolicy:
    """The policy in a file. Raises PolicyRefused with the place of the first error."""
    try:
        return WorkerPolicy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PolicyRefused(f"{source} is not TOML: {error}", hint="correct the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        hint = f"lists of strings: {', '.join(Allowed.model_fields)}"
        raise PolicyRefused(f"{source}: {place}: {first['msg']}", hint=hint) from None


def render(policy: WorkerPolicy) -> str:
    """As TOML; `parse` reads it back."""
    lines = ["# What the worker lets fleets use on this machine. The tables below are written by the commands.", ""]
    lines += _lists(policy)
    for source, allowed in policy.fleets.items():
        lines += ["", f"[fleets.{_quoted(source)}]", *_lists(allowed)]
    return "\n".join(lines) + "\n"


def _lists(allowed: Allowed) -> list[str]:
    found = {name: getattr(allowed, name) for name in Allowed.model_fields}
    return [f"{name} = [{', '.join(map(_quoted, values))}]" for name, values in found.items() if values]


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, with DEL escaped too."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def references(fleet: FleetSpec) -> Allowed:
    """What a fleet file refers to on the worker's machine."""
    secrets = list(_found(fleet, SecretRef))
    hosts = list(_found(fleet, HostSpec))
    files = [ref.file for ref in secrets]
    for host in hosts:
        files += [*host.key_files, host.known_hosts, host.ssh_config if host.ssh_config != "none" else ""]
    addresses = [host.address for host in hosts]
    addresses += [hop for host in hosts for hop in hops(host.jump)]
    addresses.append(urlsplit(fleet.core.url).hostname or "")
    return Allowed(
        commands=_unique([*(ref.command for ref in secrets), fleet.notify.command]),
        variables=_unique([ref.env for ref in secrets]),
        files=_unique([absolute(name) for name in files if name]),
        hosts=_unique(addresses),
    )


def hops(jump: str) -> list[str]:
    """Host names of `[user@]host[:port],…`; of every part, also of one without a name."""
    return [] if jump.lower() in ("", "none") else [hop(part)[1] for part in jump.split(",")]


def hop(text: str) -> tuple[str, str, int]:
    """User, host and port (0: none given) of `[user@]host[:port]`. What is checked is what is connected to."""
    user, _, address = text.strip().removeprefix("ssh://").rpartition("@")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or (":" in host and not host.endswith("]")):
        host, port = address, "0"
    return user, host.strip("[]"), int(port)


def absolute(name: str) -> str:
    """An absolute path without `..`, its links unresolved."""
    return os.path.abspath(Path(name).expanduser())  # noqa: PTH100 - Path.absolute keeps `..`


def _unique(values: list[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


def _found(value: Any, kind: type[Any]) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    if isinstance(value, tuple):
        for item in value:
            yield from _found(item, kind)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _found(getattr(value, part.name), kind)


def _is_host(name: str, entries: Iterable[str]) -> bool:
    """Does an entry, as a pattern or as a network, match?"""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    return any(
        fnmatchcase(name, entry) or (address is not None and _is_in(address, entry))
        for entry in map(str.lower, entries)
    )


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network)
    except ValueError:
        return False
