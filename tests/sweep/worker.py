"""A worker that asks at each interesting moment whether it has to die: the production worker with one more interceptor.

`python -m tests.sweep.worker SOCKET ADDRESS` imports everything once and forks. A killed worker is replaced at once, as
by a supervisor, without importing again. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

import worker as production
from hosts.exec.jobs import job_place
from hosts.host import Completed, Host
from service import logs
from service.payloads import data_converter

_T = TypeVar("_T")
GLANCE = 0.002
"""Seconds between two checks of a job's folder, which is on this machine."""


@dataclass
class Call:
    """One attempt of one activity call, as reported to the director."""

    facts: dict[str, Any]
    socket: str
    operations: int = field(default=0)

    async def asks(self, moment: str, **more: Any) -> None:
        """Report to the director where this call is. It may answer that the worker dies."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(json.dumps({**self.facts, "moment": moment, **more}).encode() + b"\n")
        answer = (await reader.readline()).decode().strip()
        if answer == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        writer.close()


_call: ContextVar[Call | None] = ContextVar("call", default=None)


class Asking(ClientInterceptor, Interceptor):
    """Given to the client, from which the worker takes it, so it is outside of the worker's own interceptors."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Inbound(next, self.socket)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, socket: str) -> None:  # noqa: A002
        super().__init__(next)
        self.socket = socket

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        call = Call(_facts(input.args[0] if input.args else None), self.socket)
        _call.set(call)
        await call.asks("before")
        try:
            result = await self.next.execute_activity(input)
        except BaseException as error:
            await call.asks("after", raised=type(error).__name__, text=str(error)[:300])
            raise
        await call.asks("after")
        return result


def _facts(argument: Any) -> dict[str, Any]:
    """What identifies a call, the same in every run of the same upgrade."""
    info = activity.info()
    op = getattr(argument, "op", None)
    server = getattr(argument, "server", None)
    target = getattr(server, "name", "") or getattr(op, "target", "")
    dump = getattr(argument, "dump", None) if info.activity_type in {"prove_dump", "restore_database"} else None
    return {
        "activity": info.activity_type,
        "workflow": info.workflow_type,
        "run": info.workflow_run_id,
        "id": info.activity_id,
        "try": info.attempt,
        "target": target or "core",
        "round": getattr(op, "attempt", 1),
        "label": getattr(argument, "label", "") or getattr(dump, "label", ""),
        "pid": os.getpid(),
    }


# --- operations on hosts ------------------------------------------------------------------------------------------


def watch_hosts() -> None:
    """Ask the director around every operation on a host."""
    whole_job, whole_run, whole_push, whole_forward = Host.job, Host.run, Host.push, Host.forward

    async def job(self: Host, op: str, folder: str, script: Any, **rest: Any) -> Completed:
        call = _call.get()
        work = asyncio.ensure_future(whole_job(self, op, folder, script, **rest))
        if call is None:
            plain: Completed = await work
            return plain
        place = Path(job_place(op, folder, rest["change"]).path)
        return await _accompanied(work, _observe_job(call, work, place, script.name))

    async def run(self: Host, script: Any, **rest: Any) -> Completed:
        return await _in_flight(asyncio.ensure_future(whole_run(self, script, **rest)), "run", script.name)

    async def push(self: Host, local: Path, remote: str, **rest: Any) -> None:
        await _in_flight(asyncio.ensure_future(whole_push(self, local, remote, **rest)), "push", Path(remote).name)

    @contextlib.asynccontextmanager
    async def forward(self: Host, host: str, port: int) -> Any:
        async with whole_forward(self, host, port) as local:
            if call := _call.get():
                await _ask(call, "forward", "")
            yield local

    Host.job, Host.run, Host.push, Host.forward = job, run, push, forward  # type: ignore[method-assign]


async def _ask(call: Call, kind: str, name: str, **more: Any) -> None:
    call.operations += 1
    await call.asks("during", kind=kind, name=name, number=call.operations, **more)


async def _in_flight(work: asyncio.Future[_T], kind: str, name: str) -> _T:
    """A read or a transfer: the director is asked a moment after it was sent."""
    call = _call.get()
    if call is None:
        return await work

    async def watch() -> None:
        await asyncio.wait({work}, timeout=0.01)
        await _ask(call, kind, name, late=work.done())

    return await _accompanied(work, watch())


async def _observe_job(call: Call, work: asyncio.Future[Completed], place: Path, name: str) -> None:
    """Ask once its script has begun, and again when it has ended and its result is being sent."""
    asked = False
    while True:
        ended = _has_ended(place)
        if not asked and (ended or (place / "fed").exists()):
            asked = True
            await _ask(call, "job", name, place=str(place), late=ended)
        elif ended or work.done():
            if ended:
                await call.asks("ended", kind="job", name=name, place=str(place), late=work.done())
            return
        await asyncio.wait({work}, timeout=GLANCE)


def _has_ended(job: Path) -> bool:
    return any(job.glob("rc.*"))


async def _accompanied(work: asyncio.Future[_T], watch: Coroutine[Any, Any, None]) -> _T:
    """Await `work` while `watch` observes it; when cancelled, both end."""
    both: tuple[asyncio.Future[Any], ...] = (work, asyncio.ensure_future(watch))
    try:
        await asyncio.wait(both)
        return await work
    finally:
        for one in both:
            if not one.done():
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one


# --- one worker after another ---------------------------------------------------------------------------------------


async def serve(socket: str, address: str) -> None:
    """The production worker, on a client with our interceptor."""
    client = await Client.connect(
        address, data_converter=data_converter, interceptors=[Asking(socket)], connect_timeout=timedelta(seconds=30)
    )
    # The sticky queue of a dead worker is abandoned after 0.5 s: a sweep would wait mostly for that.
    vars(production)["Worker"] = functools.partial(_Quick, sticky=timedelta(seconds=0.5))
    async with production.serving(client):
        logging.getLogger("sweep").info("worker %d polls", os.getpid())
        await asyncio.Event().wait()


class _Quick(Worker):
    def __init__(self, *args: Any, sticky: timedelta, **rest: Any) -> None:
        super().__init__(*args, **{**rest, "sticky_queue_schedule_to_start_timeout": sticky})


def child(socket: str, address: str) -> None:
    """In the forked process; never returns."""
    try:
        watch_hosts()
        asyncio.run(serve(socket, address))
    finally:
        os._exit(1)


def main() -> None:
    """Keep one worker alive until standard input ends."""
    socket, address = sys.argv[1:3]
    logs.set_up(logs.PLAIN, level="info")
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = 0
    while True:
        if not pid:
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                child(socket, address)
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                logging.getLogger("sweep").info("worker %d ended: %s", pid, status)
                pid = 0
                if status != signal.SIGKILL:
                    time.sleep(0.3)  # it did not start, most likely because its server does not run yet
        if 0 in ready and not os.read(0, 4096):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os._exit(0)


if __name__ == "__main__":
    main()
