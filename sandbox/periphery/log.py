"""Log lines as Komodo's tracing writes them, with and without colours (as v1.19.5 and v2.3.2 did)."""

from __future__ import annotations

import json
import re
from typing import Any

from sandbox.world import now, stamp

_COLOUR = {"INFO": "32", "WARN": "33", "ERROR": "31", "DEBUG": "34"}
_SPAN = re.compile(r"([A-Za-z_0-9]+)(?:\{([^}]*)\})?")
HIDDEN = "##############"


def line(level: str, text: str, *, ansi: bool, span: str = "", target: str = "") -> str:
    """One line with the present time. `span` like `A{k="v"}:B`, `target` like `core::monitor`."""
    at = stamp(now())
    if not ansi:
        prefix = "".join(f"{part}: " for part in (span, target) if part)
        return f"{at} {level:>5} {prefix}{text}"
    prefix = ""
    if span:
        prefix += "\x1b[2m:\x1b[0m".join(_span(m) for m in _SPAN.finditer(span)) + "\x1b[2m:\x1b[0m "
    if target:
        prefix += f"\x1b[2m{target}\x1b[0m\x1b[2m:\x1b[0m "
    return f"\x1b[2m{at}\x1b[0m \x1b[{_COLOUR[level]}m{level:>5}\x1b[0m {prefix}{text}"


def _span(match: re.Match[str]) -> str:
    name, fields = match.group(1), match.group(2)
    text = f"\x1b[1m{name}\x1b[0m"
    if fields is not None:
        inner = " ".join(
            f"\x1b[3m{k}\x1b[0m\x1b[2m=\x1b[0m{v}" for k, _, v in (f.partition("=") for f in fields.split(" "))
        )
        text += f"\x1b[1m{{\x1b[0m{inner}\x1b[1m}}\x1b[0m"
    return text


def debug(value: Any) -> str:
    """Rust's `{:?}` of plain values: strings quoted, None and Some by the caller."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(debug(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{debug(k)}: {debug(v)}" for k, v in value.items()) + "}"
    if value is None:
        return "None"
    return str(value)


def panic(place: str, message: str, *, thread: int = 25172) -> list[str]:
    """What a panicking task prints, and what main prints after it."""
    return [
        "",
        f"thread 'tokio-rt-worker' ({thread}) panicked at {place}:",
        *message.split("\n"),
        "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
        f"Error: task 3 panicked with message {debug(message)}",
    ]


TIMES = {
    "1-sec": "OneSecond", "5-sec": "FiveSeconds", "10-sec": "TenSeconds", "15-sec": "FifteenSeconds",
    "30-sec": "ThirtySeconds", "1-min": "OneMinute", "2-min": "TwoMinutes", "5-min": "FiveMinutes",
    "10-min": "TenMinutes", "15-min": "FifteenMinutes", "30-min": "ThirtyMinutes", "1-hr": "OneHour",
    "2-hr": "TwoHours", "6-hr": "SixHours", "12-hr": "TwelveHours", "1-day": "OneDay", "3-day": "ThreeDay",
    "1-wk": "OneWeek", "2-wk": "TwoWeeks", "30-day": "ThirtyDays",
}  # fmt: skip
"""Komodo's Timelength: what is written, and how it is printed."""


def seconds(length: str) -> float:
    """Of a Timelength such as "15-sec"."""
    number, _, unit = length.partition("-")
    return float(number) * {"sec": 1, "min": 60, "hr": 3600, "day": 86400, "wk": 604800}.get(unit, 1)
