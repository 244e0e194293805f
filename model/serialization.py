"""Any of our dataclasses as what JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from model.text.outside import multi_line


def plain(value: Any) -> Any:
    """Dataclasses become objects, times ISO 8601, durations seconds, enums their words."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def to_json(value: Any) -> str:
    """Indented, keys in the order of the fields; characters that a terminal would obey are escaped."""
    return multi_line(json.dumps(plain(value), indent=2, ensure_ascii=False))


def span(duration: timedelta) -> str:
    """A readable duration: "8 s", "3 min 20 s", "2 h 05 min", "3 days"."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if whole < 2 * 86400:
        hours, rest = divmod(whole, 3600)
        return f"{hours} h {rest // 60:02d} min"
    return f"{whole // 86400} days"


def moment(when: datetime) -> str:
    """A readable time with its zone: "2026-11-23 22:15:04 UTC"."""
    zone = "UTC" if when.utcoffset() in (None, timedelta()) else when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M:%S} {zone}"
