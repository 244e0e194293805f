"""What Temporal knows about a run, in the words of `status` and `check`: on a real server, encrypted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.interceptor import Boundary
from model.errors import NoWorker, Unreachable
from model.fleet.file import load
from service import requests
from service.connection import connect
from service.embedded.state import Running
from service.operation import pollers
from service.operation.pending import Pending, PendingStep, PendingTask, lines, pending

SECRET = "web-1: no space in /var"


@activity.defn(name="flaky")
async def flaky() -> None:
    raise Unreachable("no space in /var", host="web-1", hint="free 300 MB")


@workflow.defn(name="Failing")
class Failing:
    broken = False

    @workflow.run
    async def run(self, depth: int) -> None:
        if Failing.broken:
            raise RuntimeError("a bug in this release")
        if depth:
            await workflow.execute_child_workflow("Failing", 0, id=f"{workflow.info().workflow_id}/web-1")
            return
        long = timedelta(minutes=10)
        retry = RetryPolicy(initial_interval=long, maximum_attempts=5)
        await workflow.execute_activity("flaky", start_to_close_timeout=long, retry_policy=retry)


@pytest.fixture
async def client(service: Running) -> Client:
    return await connect({"target_host": service.address})


@asynccontextmanager
async def serving(client: Client, queue: str) -> AsyncIterator[None]:
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Failing],
        activities=[flaky],
        interceptors=[Boundary()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield


async def until(client: Client, workflow_id: str, holds: Callable[[Pending], bool]) -> Pending:
    async with asyncio.timeout(30):
        while True:
            found = await pending(client, workflow_id)
            if holds(found):
                return found
            await asyncio.sleep(0.1)


async def test_a_step_that_is_tried_again_is_shown_with_its_failure_and_hint(client: Client) -> None:
    queue = f"pending-{uuid.uuid4()}"
    handle = await client.start_workflow("Failing", 1, id=queue, task_queue=queue)
    async with serving(client, queue):
        found = await until(client, queue, lambda p: any(s.attempt == 2 for s in p.steps))
    step = found.steps[0]
    assert (step.name, step.state, step.attempt, step.attempts) == ("flaky", "waiting", 2, 5)
    assert step.workflow_id == f"{queue}/web-1"
    shown = list(lines(found))
    assert "flaky waiting, attempt 2 of 5, next in" in shown[0]
    assert SECRET in shown[0]
    assert shown[1] == "  next: free 300 MB"
    assert shown[2] == f"  to try again now: temporal activity reset -w {queue}/web-1 --activity-id {step.activity_id}"
    raw = (await client.get_workflow_handle(f"{queue}/web-1").describe()).raw_description
    assert SECRET.encode() not in raw.SerializeToString()
    await handle.terminate()


async def test_a_workflow_whose_code_fails_is_shown_with_the_release_that_began_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "broken", True)
    queue = f"pending-{uuid.uuid4()}"
    handle = await client.start_workflow("Failing", 0, id=queue, task_queue=queue)
    async with serving(client, queue):
        found = await until(client, queue, lambda p: any(t.attempt > 1 and t.cause for t in p.tasks))
    shown = "\n".join(lines(found, "0.1.0"))
    assert "the workflow's code fails since" in shown
    assert "a bug in this release" in shown
    assert "start a worker of release 0.1.0, which began this run" in shown
    await handle.terminate()


async def test_a_task_that_no_worker_takes_is_shown(client: Client) -> None:
    queue = f"pending-{uuid.uuid4()}"
    handle = await client.start_workflow("Failing", 0, id=queue, task_queue=queue)
    found = await pending(client, queue)
    assert not list(lines(found))  # not yet
    later = Pending(at=found.at + timedelta(seconds=6), tasks=found.tasks)
    assert any("no worker has taken the workflow's task for" in line for line in lines(later))
    with pytest.raises(NoWorker, match=f"no worker serves {queue} at"):
        await pollers.require(client, task_queue=queue)
    await handle.terminate()


async def test_a_worker_that_has_not_polled_for_over_a_minute_does_not_count(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = f"pending-{uuid.uuid4()}"
    async with serving(client, queue):
        async with asyncio.timeout(20):
            while True:
                if await pollers.pollers(client, task_queue=queue):
                    break
                await asyncio.sleep(0.05)
        await pollers.require(client, task_queue=queue)
    # Temporal still lists it.
    monkeypatch.setattr(pollers, "GONE_AFTER", timedelta(milliseconds=1))
    with pytest.raises(NoWorker, match=r"the last one was komodo-upgrade:.*, seen .* ago"):
        await pollers.require(client, task_queue=queue)


async def test_a_check_that_no_worker_takes_says_so_and_ends(
    client: Client, monkeypatch: pytest.MonkeyPatch, fleet: Callable[..., Path]
) -> None:
    """As after kill -9 of the last worker, which Temporal lists for minutes."""
    monkeypatch.setattr(requests, "TASK_QUEUE", f"nobody-{uuid.uuid4()}")
    monkeypatch.setattr(requests, "POLL_EVERY", timedelta(milliseconds=200))
    monkeypatch.setattr(requests, "GONE_AFTER", timedelta(seconds=7))
    said: list[str] = []
    with pytest.raises(NoWorker, match=r"no worker has taken the task for 7.* s; the last worker was .*, seen .* ago"):
        await requests.check(client, load(str(fleet("web-1"))), timeout=timedelta(minutes=1), say=said.append)
    assert "no worker has taken the workflow's task for 5" in said[0]
    assert len(said) == 2  # once


@pytest.mark.parametrize("state", ["paused", "paused after this attempt"])
def test_a_paused_step_is_shown_with_the_command_that_ends_the_pause(state: str) -> None:
    now = datetime.now(UTC)
    step = PendingStep(
        workflow_id="komodo-upgrade/prod",
        activity_id="7",
        name="stage_core",
        state=state,
        attempt=1,
        attempts=5,
        since=now,
        worker="",
        failure="",
    )
    shown = list(lines(Pending(at=now, steps=(step,))))
    assert shown[0] == f"komodo-upgrade/prod: stage_core is {state} (attempt 1 of 5)"
    assert shown[1] == "  next: temporal activity unpause -w komodo-upgrade/prod --activity-id 7"


def test_work_that_goes_well_is_not_mentioned() -> None:
    now = datetime.now(UTC)
    step = PendingStep(
        workflow_id="w",
        activity_id="1",
        name="x",
        state="running",
        attempt=1,
        attempts=5,
        since=now - timedelta(hours=1),
        worker="",
        failure="",
    )
    task = PendingTask(workflow_id="w", run_id="r", attempt=1, since=now, taken=True)
    assert not list(lines(Pending(at=now, steps=(step,), tasks=(task,))))
