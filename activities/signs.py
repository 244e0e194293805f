"""Signs of life: what a step tells Temporal while it runs, so that a dead worker, and a hung job, are seen early.

While a step connects, reads or thinks, its worker is the evidence, for QUIET at most. While a job runs on a host, the
job's own signs are: silence there is a dead line or a dead host, and the next attempt attaches to the job anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import timedelta

from temporalio import activity

from hosts.host import Completed, Host
from hosts.script import Script

QUIET = timedelta(minutes=11)
"""Longest honest silence outside of jobs: every connect, read and question has a shorter time of its own (ten minutes
where a whole dump is read through for its digest)."""


class _Pulse:
    """Of one running step."""

    def __init__(self, silence: float) -> None:
        self.jobs = 0
        """That have given a sign themselves."""
        self.since = time.monotonic()
        self.first = self.since + silence
        """No sign is needed before: the start was one. Most steps end by then, and each sign costs Temporal a
        transaction."""

    def on_its_own(self) -> bool:
        """The worker may vouch for the step."""
        return self.jobs == 0 and time.monotonic() - self.since < QUIET.total_seconds()


_pulse: ContextVar[_Pulse | None] = ContextVar("pulse", default=None)


def beat() -> None:
    """Tell Temporal that the step lives; nothing outside of an activity."""
    if pulse := _pulse.get():
        pulse.since = time.monotonic()
        if pulse.since < pulse.first:
            return
    if activity.in_activity():
        activity.heartbeat()


@contextlib.asynccontextmanager
async def beating(limit: timedelta | None) -> AsyncIterator[None]:
    """Around every activity (see boundary.py). `limit`: its heartbeat time-out; None: nobody listens.

    Without it a host that needs 15 s to refuse a connection would be reported as a dead worker after 10 s.
    """
    if not limit:
        yield
        return
    pulse = _Pulse(limit.total_seconds() / 4)
    token = _pulse.set(pulse)
    task = asyncio.create_task(_vouch(pulse, limit / 4))
    try:
        yield
    finally:
        _pulse.reset(token)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _vouch(pulse: _Pulse, pause: timedelta) -> None:
    while True:
        await asyncio.sleep(pause.total_seconds())
        if pulse.on_its_own():
            activity.heartbeat()


@contextlib.contextmanager
def _of_job() -> Iterator[Callable[[], None]]:
    """From a job's first sign on only its own signs count, until it has ended."""
    pulse, begun = _pulse.get(), False

    def sign() -> None:
        nonlocal begun
        if pulse and not begun:
            begun = True
            pulse.jobs += 1
        beat()

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
    *args: str,
    data: bytes = b"",
    change: str,
    timeout: timedelta,
    then: tuple[Script, Sequence[str]] | None = None,
) -> Completed:
    """`host.job`: start it or attach to it, its signs of life being the step's."""
    with _of_job() as sign:
        return await host.job(
            op, folder, script, *args, data=data, change=change, timeout=timeout, on_progress=sign, then=then
        )


async def void(host: Host, folder: str, *ops: str, change: str, patience: timedelta = timedelta(minutes=2)) -> None:
    """`host.void`: wait for these jobs, or stop them, and forget that they were done."""
    with _of_job() as sign:
        await host.void(folder, *ops, change=change, patience=patience, on_progress=sign)


def given_up() -> bool:
    """Cancelled for good: nobody wants the step any more. False where only this try is over.

    A try that Temporal has given up (no heartbeat arrived: its server or the line to it was down) may have a successor
    at work beside it, and one of a worker that stops gets one.
    """
    if not activity.in_activity():
        return True
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested


async def lock(held: asyncio.Lock) -> None:
    """Acquire it, however long another step of this worker needs it: that one has limits of its own."""
    while True:
        beat()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.acquire(), 5)
            return
