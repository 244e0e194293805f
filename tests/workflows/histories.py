"""Sizes of histories: events, and the bytes of each payload as Temporal stores it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client


@dataclass(frozen=True)
class Size:
    """Of one workflow."""

    workflow: str
    events: int
    bytes: int
    largest: int
    """Bytes of the largest input or result."""
    in_event: str
    """The event that has it."""
    payloads: dict[str, int]
    """The same for each kind of event."""


async def sizes(client: Client) -> list[Size]:
    """Of all workflows that the server knows, the largest first."""
    found = []
    async for execution in client.list_workflows():
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        events = [event async for event in handle.fetch_history_events()]
        names = {event.event_id: _name(event) for event in events}
        largest: dict[str, int] = {}
        for event in events:
            name = f"{execution.workflow_type}: {_name(event, names)}"
            for size in _payloads(event):
                largest[name] = max(size, largest.get(name, 0))
        name = max(largest, key=lambda one: largest[one], default="")
        found.append(
            Size(
                workflow=execution.id,
                events=len(events),
                bytes=sum(event.ByteSize() for event in events),
                largest=largest.get(name, 0),
                in_event=name,
                payloads=largest,
            )
        )
    return sorted(found, key=lambda one: -one.bytes)


def _name(event: HistoryEvent, names: dict[int, str] | None = None) -> str:
    """What it is, and of which activity or child workflow."""
    attribute = event.WhichOneof("attributes") or ""
    kind = attribute.removesuffix("_event_attributes").replace("_", " ")
    attributes: Any = getattr(event, attribute)
    for field in ("activity_type", "workflow_type"):
        if hasattr(attributes, field):
            return f"{kind} {getattr(attributes, field).name}"
    if names and hasattr(attributes, "scheduled_event_id"):
        return f"{kind} {names.get(attributes.scheduled_event_id, '').rpartition(' ')[2]}".rstrip()
    return kind


def _payloads(message: Message) -> Iterator[int]:
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Payloads):
                yield one.ByteSize()
            else:
                yield from _payloads(one)
