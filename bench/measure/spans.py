"""When the activities of all workflows began and ended, from Temporal's histories."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio.client import Client


@dataclass(frozen=True)
class Span:
    """One activity: seconds since 1970."""

    workflow: str
    name: str
    scheduled: float
    started: float
    ended: float


async def spans(client: Client) -> list[Span]:
    """The activities of all workflows, ordered by their beginning."""
    found = []
    async for run in client.list_workflows():
        waiting: dict[int, tuple[str, float]] = {}
        begun: dict[int, float] = {}
        async for event in client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history_events():
            at = event.event_time.ToNanoseconds() / 1e9
            if event.HasField("activity_task_scheduled_event_attributes"):
                waiting[event.event_id] = (event.activity_task_scheduled_event_attributes.activity_type.name, at)
            elif event.HasField("activity_task_started_event_attributes"):
                begun[event.activity_task_started_event_attributes.scheduled_event_id] = at
            elif event.HasField("activity_task_completed_event_attributes"):
                number = event.activity_task_completed_event_attributes.scheduled_event_id
                found.append(Span(run.id, *waiting[number], begun[number], at))
    return sorted(found, key=lambda span: span.scheduled)
