"""Does the worker know the same secrets as this shell? Compared by salted fingerprint; values stay where they are."""

from __future__ import annotations

import hashlib
import hmac

from model.fleet.spec import FleetSpec
from model.worker_policy import references

ALWAYS = ("SSH_AUTH_SOCK",)
"""The SSH agent of this session: a new login has a new one."""


def fingerprint(value: str | None, salt: str) -> str:
    """Empty for a variable that is not set."""
    if value is None:
        return ""
    return hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()[:16]


def referenced(fleet: FleetSpec) -> tuple[str, ...]:
    """Names of the environment variables that the fleet's secrets come from, and of the SSH agent."""
    return tuple(dict.fromkeys([*ALWAYS, *references(fleet).variables]))
