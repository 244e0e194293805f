"""All checks, and how one is found."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from komodo.checks.core import CORE
from komodo.checks.registry import Check
from komodo.checks.servers import FLEET, SERVERS
from model.errors import FleetFileError
from model.facts import Severity

GROUPS = (
    ("Core and its database", CORE),
    ("Servers and agents", SERVERS),
    ("The fleet file and Core's Servers", FLEET),
)
CHECKS = tuple(check for _, checks in GROUPS for check in checks)


def find(name: str) -> Check | None:
    """A check by its id or code, in upper or lower case."""
    return _by_name().get(name.lower())


def known_codes(names: Iterable[str]) -> tuple[str, ...]:
    """Codes of these checks. Raises FleetFileError for one that does not exist, or that never warns."""
    found = []
    for name in names:
        check = find(name)
        if check is None or check.severity is Severity.REFUSE:
            why = "there is no such check" if check is None else f"{check.code} refuses, and is never ignored"
            hint = "docs/checks.md lists those that warn"
            raise FleetFileError(f"[checks] ignore names {name!r}: {why}", hint=hint)
        found.append(check.code)
    return tuple(found)


@cache
def _by_name() -> dict[str, Check]:
    return {name: check for check in CHECKS for name in (check.id.lower(), check.code)}
