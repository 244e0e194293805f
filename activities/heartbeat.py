"""Heartbeats of a step, so that a dead worker and a hung job are detected early.

While a step connects, reads or computes, the worker sends heartbeats for it, for QUIET at most. While a job runs on a
host, only the job's own heartbeats count: if they stop, the connection or the host is dead, and the next attempt
attaches to the job again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta

from temporalio import activity

from hosts.exec.script import Script
from hosts.host import Completed, Host

QUIET = timedelta(minutes=11)
"""Longest permitted time without a heartbeat outside of jobs. Every connect, read and request has a shorter limit of
its own (ten minutes where a whole dump is read for its digest).
"""


class _Pulse:
    """Heartbeats of one running step."""

    def __init__(self, quiet: float) -> None:
        self.jobs = 0
        """Jobs that have already sent a heartbeat themselves."""
        self.since = time.monotonic()
        self.first = self.since + quiet
        """No heartbeat is necessary before: the start was one. Most steps end by then, and each heartbeat costs
        Temporal a transaction.
        """

    def on_its_own(self) -> bool:
        """Whether the worker may send heartbeats for the step."""
        return self.jobs == 0 and time.monotonic() - self.since < QUIET.total_seconds()


_pulse: ContextVar[_Pulse | None] = ContextVar("pulse", default=None)


def send_heartbeat() -> None:
    """Send a heartbeat to Temporal; does nothing outside of an activity."""
    if pulse := _pulse.get():
        pulse.since = time.monotonic()
        if pulse.since < pulse.first:
            return
    if activity.in_activity():
        activity.heartbeat()


@contextlib.asynccontextmanager
async def beating(limit: timedelta | None) -> AsyncIterator[None]:
    """Wraps every activity (see interceptor.py). `limit`: its heartbeat timeout; None: it has none.

    Without this a host that takes 15 s to refuse a connection would be reported as a dead worker after 10 s.
    """
    if not limit:
        yield
        return
    pulse = _Pulse(limit.total_seconds() / 4)
    token = _pulse.set(pulse)
    task = asyncio.create_task(_send_while_own(pulse, limit / 4))
    try:
        yield
    finally:
        _pulse.reset(token)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _send_while_own(pulse: _Pulse, pause: timedelta) -> None:
    while True:
        await asyncio.sleep(pause.total_seconds())
        if pulse.on_its_own():
            activity.heartbeat()


@contextlib.contextmanager
def _of_job() -> Iterator[Callable[[], None]]:
    """From a job's first heartbeat on only its own heartbeats count, until it has ended."""
    pulse, begun = _pulse.get(), False

    def sign() -> None:
        nonlocal begun
        if pulse and not begun:
            begun = True
            pulse.jobs += 1
        send_heartbeat()

    try:
        yield sign
    finally:
        if pulse and begun:
            pulse.jobs -= 1
            pulse.since = time.monotonic()


async def attach(
    host: Host,
    op: str,
    folder: str,
    script: Script,
    *,
    data: bytes = b"",
    change: str,
    timeout: timedelta,
    then: Script | None = None,
) -> Completed:
    """`host.job`: start it or attach to it; the job's heartbeats become the step's."""
    with _of_job() as sign:
        return await host.job(
            op, folder, script, data=data, change=change, timeout=timeout, on_progress=sign, then=then
        )


async def invalidate(
    host: Host, folder: str, *ops: str, change: str, patience: timedelta = timedelta(minutes=2)
) -> None:
    """`host.invalidate`: wait for these jobs, or stop them, and remove their results."""
    with _of_job() as sign:
        await host.invalidate(folder, *ops, change=change, patience=patience, on_progress=sign)


def cancelled_for_good() -> bool:
    """True if the step is cancelled for good; False if only this attempt is over.

    An attempt that Temporal has given up (no heartbeat arrived because its server or the connection was down) may
    already have a successor, and an attempt on a worker that stops gets one.
    """
    if not activity.in_activity():
        return True
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested


async def lock(held: asyncio.Lock) -> None:
    """Acquire the lock, however long another step of this worker holds it: that step has limits of its own."""
    while True:
        send_heartbeat()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.acquire(), 5)
            return
