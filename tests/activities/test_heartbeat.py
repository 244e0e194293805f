"""What sends the heartbeats of a running step: its worker while it connects, then the job, and neither for ever."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities import heartbeat
from activities.interceptor import Boundary
from hosts.exec.script import Script
from hosts.host import Completed, Host

LIMIT = timedelta(milliseconds=40)
"""After so much silence Temporal would call the worker dead."""


class Line:
    """Counts heartbeats of a body that runs as every activity does."""

    def __init__(self) -> None:
        self.beats = 0

    async def run(self, body: Callable[[], Awaitable[Any]], *, limit: timedelta | None = LIMIT) -> Any:
        class Next(ActivityInboundInterceptor):
            def __init__(self) -> None: ...

            async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
                return await body()

        @activity.defn
        async def step() -> Any:
            inbound = Boundary().intercept_activity(Next())
            return await inbound.execute_activity(ExecuteActivityInput(fn=step, args=[], executor=None, headers={}))

        env = ActivityEnvironment()
        env.info = dataclasses.replace(env.info, heartbeat_timeout=limit)
        env.on_heartbeat = self._count
        return await env.run(step)

    def _count(self, *_: Any) -> None:
        self.beats += 1

    async def more(self, than: int) -> None:
        """Waits for a heartbeat."""
        async with asyncio.timeout(20):
            while self.beats <= than:  # noqa: ASYNC110 - it counts
                await asyncio.sleep(0.005)

    async def silent(self) -> None:
        """Until no heartbeat came for several limits."""
        async with asyncio.timeout(20):
            before = -1
            while before != self.beats:
                before = self.beats
                await asyncio.sleep(3 * LIMIT.total_seconds())


class Machine:
    """A host whose job gives one heartbeat, and then none until the test lets it end."""

    def __init__(self) -> None:
        self.connected, self.ran, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def job(self, *_: Any, on_progress: Callable[[], None], **__: Any) -> Completed:
        await self.connected.wait()
        on_progress()
        self.ran.set()
        await self.end.wait()
        return Completed(0, b"", "")


def attach(machine: Machine) -> Awaitable[Completed]:
    host = cast("Host", machine)
    return heartbeat.attach(host, "c/t/1/s", "/f", Script("s", ":"), change="c", timeout=timedelta(minutes=1))


async def test_connecting_sends_heartbeats_and_a_silent_job_does_not() -> None:
    line, machine = Line(), Machine()

    async def body() -> None:
        await attach(machine)
        await line.more(line.beats + 2)  # reads after the job: the worker vouches again

    step = asyncio.create_task(line.run(body))
    await line.more(5)
    machine.connected.set()
    await machine.ran.wait()
    await line.silent()
    machine.end.set()
    await step


async def test_heartbeats_for_a_call_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "QUIET", timedelta(milliseconds=200))
    line, go_on = Line(), asyncio.Event()

    async def body() -> None:
        await go_on.wait()
        heartbeat.send_heartbeat()
        await line.more(line.beats + 1)

    step = asyncio.create_task(line.run(body))
    await line.more(2)
    await line.silent()
    go_on.set()
    await step


async def test_two_jobs_at_once_both_have_to_end() -> None:
    line, first, second = Line(), Machine(), Machine()
    first.connected.set()
    second.connected.set()
    step = asyncio.create_task(line.run(lambda: asyncio.gather(attach(first), attach(second))))
    await first.ran.wait()
    await second.ran.wait()
    first.end.set()
    await line.silent()
    second.end.set()
    await step


async def test_without_a_timeout_no_heartbeat_is_sent() -> None:
    line = Line()
    await line.run(lambda: asyncio.sleep(0.1), limit=None)
    assert line.beats == 0


async def test_a_queue_for_a_download_ends_with_the_lock() -> None:
    held = asyncio.Lock()
    await held.acquire()
    waiting = asyncio.create_task(heartbeat.lock(held))
    await asyncio.sleep(0)
    held.release()
    await asyncio.wait_for(waiting, 5)
    assert held.locked()


@pytest.mark.parametrize(
    ("why", "over"), [({"cancel_requested": True}, True), ({"timed_out": True}, False), ({"not_found": True}, False)]
)
async def test_an_ended_try_does_not_end_the_step(why: dict[str, bool], over: bool) -> None:
    """Its successor may already run, and needs what the first one left."""
    begun = asyncio.Event()

    @activity.defn
    async def step() -> bool:
        try:
            begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return heartbeat.cancelled_for_good()
        return False

    environment = ActivityEnvironment()
    running = asyncio.ensure_future(environment.run(step))
    await begun.wait()
    environment.cancel(activity.ActivityCancellationDetails(**why))
    assert await running is over
    assert heartbeat.cancelled_for_good(), "outside of Temporal a cancel is a cancel"
