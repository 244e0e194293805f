"""How a worker or the supervisor writes its log: plain lines, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from model.text.outside import multi_line

PLAIN = "plain"
JSON = "json"
_CONTEXT = ("temporal_workflow", "temporal_activity")
_KEPT = ("workflow_id", "workflow_type", "activity_type", "attempt", "update_name")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes that every record has; the others were given with `extra=`."""
_LONGEST = 2000
"""Characters of one extra field."""
_QUIET = ("asyncssh", "httpx", "httpx2", "httpcore", "pymongo", "motor", "asyncio")
"""Libraries whose own log is noise here, and may hold what our messages never hold."""


def set_up(kind: str = PLAIN, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """One handler for the whole process, on stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if kind == JSON else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _context(record: logging.LogRecord) -> dict[str, Any]:
    context: dict[str, Any] = {}
    for name in _CONTEXT:
        info = getattr(record, name, None)
        if isinstance(info, dict):
            context |= {key: info[key] for key in _KEPT if key in info}
    return context


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """What the call gave with `extra=`. Temporal's own context is reduced by `_context`."""
    given = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and not k.startswith(("temporal_", "_"))}
    return {key: _bounded(value) for key, value in given.items()}


def _bounded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _describe(record: logging.LogRecord) -> str:
    """The message of a step's expected failure (activities/interceptor.py), without the SDK's traceback."""
    from temporalio.exceptions import ApplicationError  # the supervisor has no other need of it

    error = record.exc_info[1] if record.exc_info else None
    return error.message if isinstance(error, ApplicationError) and error.__suppress_context__ else ""


class PlainLines(logging.Formatter):
    """`2026-11-23T22:00:00.000Z INFO  message  [activity switch_server, attempt 1, komodo-upgrade/prod]`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, its traceback on the lines below."""
        context = _extra(record) | _context(record)
        suffix = f"  [{', '.join(f'{key}={value}' for key, value in context.items())}]" if context else ""
        text = f"{_time(record)} {record.levelname:<7} {record.getMessage()}{suffix}"
        if record.exc_info:
            text = f"{text}\n{_describe(record) or self.formatException(record.exc_info)}"
        return multi_line(text)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context(record),
        }
        if record.exc_info:
            entry["exception"] = _describe(record) or self.formatException(record.exc_info)
        # A field of `extra=` never replaces one of the log's own.
        return json.dumps(_extra(record) | entry, default=str)
