"""Does the worker know the same secrets as this shell? Compared by salted fingerprint; values stay where they are."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from model.fleet import FleetSpec, SecretRef

ALWAYS = ("SSH_AUTH_SOCK",)
"""The SSH agent of this session: a new login has a new one."""


def fingerprint(value: str | None, salt: str) -> str:
    """Empty for a variable that is not set."""
    if value is None:
        return ""
    return hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()[:16]


def referenced(fleet: FleetSpec) -> tuple[str, ...]:
    """Names of the environment variables that the fleet's secrets come from, and of the SSH agent."""
    names = [ref.env for ref in _references(fleet) if ref.env]
    return tuple(dict.fromkeys([*ALWAYS, *names]))


def _references(value: Any) -> Iterator[SecretRef]:
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _references(item)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _references(getattr(value, part.name))
