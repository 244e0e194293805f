"""What Core's API answers, as data: entries of lists, and how its values are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreInfo:
    """`GetCoreInfo`. `public_key` is empty on v1."""

    title: str
    monitoring_interval: timedelta
    public_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOptions:
    """`GetLoginOptions`: which ways of logging in Core offers."""

    local: bool
    oidc: bool
    github: bool
    google: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The user whose API key is used."""

    username: str
    admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One entry of `ListServers`. `err` is "" when Core has no complaint and before v2.1.0, which lacks the field."""

    id: str
    name: str
    address: str
    state: str
    """Ok | NotOk | Disabled"""
    version: str
    """Without v; "" when unknown."""
    err: str = ""
    public_key: str = ""
    has_err_field: bool = False

    @property
    def enabled(self) -> bool:
        """Core watches it."""
        return self.state != "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownConnection:
    """Of `GetServer`: how Core reaches a Server, and which agent it accepts as that Server."""

    id: str
    address: str
    """Empty: the agent connects to Core."""
    external_address: str
    public_key: str
    """Empty: any agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One piece of work of Core. `success` means nothing before `status` is "Complete"."""

    id: str
    operation: str
    status: str
    success: bool
    target: str

    def __str__(self) -> str:
        return f"{self.operation} {self.target}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One entry of `ListSchedules`."""

    name: str
    kind: str
    enabled: bool
    next_run: datetime | None
    id: str = ""
    """Of the Procedure or Action."""
    last_run: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionText:
    """An Action's script."""

    id: str
    name: str
    text: str


def parse_interval(text: str) -> timedelta:
    """Komodo's timelength, "15-sec" or "1-min", as a duration; 15 s (Komodo's default) for anything else."""
    found = re.fullmatch(r"([0-9]{1,6})-(sec|min|hr|day)", text.strip().strip("\"'"))
    if not found:
        return timedelta(seconds=15)
    seconds = {"sec": 1, "min": 60, "hr": 3600, "day": 86400}[found.group(2)]
    return timedelta(seconds=int(found.group(1)) * seconds)


def join_error(value: Any) -> str:
    """Komodo's `{error, trace}` as one line, outermost first; "" for null."""
    if not isinstance(value, Mapping):
        return str(value) if value else ""
    trace = value.get("trace")
    parts = [value.get("error"), *(trace if isinstance(trace, Sequence) and not isinstance(trace, str) else ())]
    return " <- ".join(str(p) for p in parts if p)


def server_view(item: Mapping[str, Any]) -> ServerView:
    """One entry of `ListServers`."""
    info = mapping(item.get("info"))
    version = str(info.get("version") or "").lstrip("v")
    return ServerView(
        id=str(item.get("id", "")),
        name=str(item.get("name", "")),
        address=str(info.get("address") or ""),
        state=str(info.get("state") or ""),
        version="" if version.lower() == "unknown" else version,
        err=join_error(info.get("err")),
        public_key=str(info.get("public_key") or ""),
        has_err_field="err" in info,
    )


def update_view(item: Mapping[str, Any]) -> Update:
    """One entry of `ListUpdates`, or the answer of `GetUpdate`."""
    target = mapping(item.get("target"))
    return Update(
        id=str(item.get("id") or object_id(item.get("_id"))),
        operation=str(item.get("operation", "")),
        status=str(item.get("status", "")),
        success=bool(item.get("success")),
        target=" ".join(str(target[k]) for k in ("type", "id") if target.get(k)),
    )


def object_id(value: Any) -> str:
    """An id as text, with or without `{"$oid": …}`."""
    return str(value.get("$oid", "")) if isinstance(value, Mapping) else str(value or "")


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def list_of(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; empty for anything else."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def from_milliseconds(value: Any) -> datetime | None:
    """A time from Core; None for anything that is none."""
    try:
        return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int | float) and value > 0 else None
    except (OverflowError, ValueError, OSError):  # beyond the year 9999
        return None
