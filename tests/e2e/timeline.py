"""When each activity began and ended, out of Temporal's histories: where an upgrade's seconds go.

`python -m tests.e2e.timeline ADDRESS [ZERO]` prints a table; second 0 is the end of the first activity named ZERO.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass

from temporalio.client import Client

from service.payloads import data_converter


@dataclass(frozen=True)
class Span:
    """One activity: seconds since 1970."""

    workflow: str
    name: str
    scheduled: float
    started: float
    ended: float


async def spans(address: str) -> list[Span]:
    """Of all workflows, by their beginning."""
    client = await Client.connect(address, data_converter=data_converter)
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


def table(found: list[Span], zero: str = "stop_core") -> list[str]:
    """A line each: scheduled, begun, ended, in seconds after `zero` has ended."""
    at = next((span.ended for span in found if span.name == zero), found[0].scheduled if found else 0.0)
    return [
        f"{s.scheduled - at:8.2f} {s.started - at:8.2f} {s.ended - at:8.2f} {s.ended - s.started:6.2f}  "
        f"{s.name:22} {s.workflow.rpartition('/')[0][-20:]}"
        for s in found
    ]


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("zero", nargs="?", default="stop_core")
    options = parser.parse_args()
    sys.stdout.write("\n".join(table(asyncio.run(spans(options.address)), options.zero)) + "\n")


if __name__ == "__main__":
    main()
