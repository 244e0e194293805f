"""Messages of operators as they arrive: any number of payloads, of any encoding, size and content.

They are read here and nowhere else. What cannot be read, is too long, was sent before, or was meant for another run is
refused with the reason; no message makes a workflow task fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from model.gates import FOR_RUN, MADE_AT, MADE_BY_RUN, MESSAGE_ID, REFUSED, Control, Decision

Message = TypeVar("Message", Decision, Control)

LARGEST = 16 * 1024
"""Bytes of one message."""
LONGEST = {"gate": 300, "verdict": 20, "verb": 20, "actor": 200, "reason": 2_000, "plan_digest": 100}
"""Characters of each field."""
LONGEST_REASON_SHOWN = 300
_JSON = b"json/plain"


class Inbox:
    """Remembers which authenticated messages arrived."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def read(self, args: Sequence[RawValue], kind: type[Message]) -> Message:
        """The message. Raises ApplicationError (`MessageRefused`) with the reason."""
        if len(args) != 1:
            raise _refused(f"it has {len(args)} inputs instead of one")
        payload = args[0].payload
        _check_form(payload)
        self._check_origin(payload)
        return _decode(payload, kind)

    def keep(self, args: Sequence[RawValue]) -> None:
        """Remember the message, also one that was refused: it could be sent again when it would be accepted."""
        for arg in args:
            if MESSAGE_ID in arg.payload.metadata:
                self._seen[arg.payload.metadata[MESSAGE_ID].decode(errors="replace")] = None

    def _check_origin(self, payload: Payload) -> None:
        """An authenticated message counts once, and only in the run that it was made for."""
        metadata, info = payload.metadata, workflow.info()
        run = metadata[FOR_RUN].decode(errors="replace") if FOR_RUN in metadata else ""
        if run and run not in (info.run_id, info.original_execution_run_id):  # a reset run repeats the original's
            raise _refused("it was made for another run")
        if MESSAGE_ID not in metadata:
            return
        if metadata[MESSAGE_ID].decode(errors="replace") in self._seen:
            raise _refused("it was received before")
        if run:
            return
        if MADE_BY_RUN in metadata:
            parent = info.parent.run_id if info.parent else ""
            if metadata[MADE_BY_RUN] != parent.encode():
                raise _refused("another run made it")
        elif _seconds(metadata.get(MADE_AT, b"")) < int(info.workflow_start_time.timestamp()):
            raise _refused("it was made before this run began")


def _seconds(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 15 else 0


def _check_form(payload: Payload) -> None:
    encoding = payload.metadata.get("encoding", b"")
    if encoding == REFUSED.encode():
        raise _refused(f"it is not authentic: {payload.data[:200].decode(errors='replace')}")
    if encoding != _JSON:
        raise _refused(f"its encoding is {encoding[:50].decode(errors='replace') or 'not given'} instead of json/plain")
    if len(payload.data) > LARGEST:
        raise _refused(f"it has {len(payload.data)} bytes, {LARGEST} are allowed")


def _decode(payload: Payload, kind: type[Message]) -> Message:
    try:
        message = workflow.payload_converter().from_payload(payload, kind)
    except Exception as error:  # noqa: BLE001 - anything that a stranger's bytes can raise
        raise _refused(f"it is no {kind.__name__.lower()}: {_explain(error)}") from None
    for part in fields(message):
        if len(str(getattr(message, part.name))) > LONGEST[part.name]:
            raise _refused(f"{part.name} is longer than {LONGEST[part.name]} characters")
    return message


def _explain(error: Exception) -> str:
    """The first error of pydantic in one line; the class of any other error."""
    listed = getattr(error, "errors", None)
    found = listed(include_url=False, include_context=False) if callable(listed) else []
    if not found:
        return type(error).__name__
    place = ".".join(str(part) for part in found[0]["loc"]) or "the message"
    given = found[0].get("input")
    shown = f" (given: {given[:50]!r})" if isinstance(given, str) else ""
    return f"{place}: {found[0]['msg'][:200]}{shown}"


def _refused(why: str) -> ApplicationError:
    return ApplicationError(why[:LONGEST_REASON_SHOWN], type="MessageRefused", non_retryable=True)
