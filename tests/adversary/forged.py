"""A workflow of the adversary's own worker: it schedules a step on another task queue with a recorded input."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy

QUEUE = "adversary"


@workflow.defn
class Forged:
    @workflow.run
    async def run(self, step: str, queue: str, recorded: RawValue) -> None:
        await workflow.execute_activity(
            step,
            recorded,
            task_queue=queue,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
