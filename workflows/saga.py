"""What undoes a step, in which order, for how long; and why a step failed, in words for people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    RetryState,
    TimeoutError,  # noqa: A004 - Temporal's, never asyncio's, in this file
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from model.fleet import Clocks
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import options

_T = TypeVar("_T")


@dataclass(frozen=True)
class Trouble:
    """Why a step failed: the name of the error's class, and its message."""

    type: str
    text: str
    undone: str = ""
    """The message without what was left behind: true again once the step was undone. Empty where nothing was said."""

    @property
    def after_undo(self) -> str:
        """Why it failed, for somebody who reads it when all is as before."""
        return self.undone or self.text


def trouble(error: BaseException) -> Trouble:
    """The innermost words of a failure: those the activity chose, or what a timeout means."""
    inner: BaseException = error
    while isinstance(inner, FailureError) and inner.cause is not None:
        inner = inner.cause
    if isinstance(inner, ApplicationError):
        return Trouble(type=inner.type or "ApplicationError", text=inner.message, undone=_without_left(inner))
    if isinstance(inner, TimeoutError):
        kind = inner.type.name.lower().replace("_", " ") if inner.type else "time"
        return Trouble(type="Timeout", text=f"the step did not end in its time ({kind}); is a worker running?")
    if is_cancelled_exception(error):
        return Trouble(type="Cancelled", text="cancelled from Temporal")
    return Trouble(type=type(inner).__name__, text=str(inner))


def _without_left(error: ApplicationError) -> str:
    """What activities/boundary.py keeps beside the message: what, host, left, cure."""
    facts = error.details[0] if error.details else None
    if not isinstance(facts, dict) or not facts.get("left"):
        return ""
    where = f"{facts['host']}: " if facts.get("host") else ""
    cure = f"\n  next: {facts['cure']}" if facts.get("cure") else ""
    return f"{where}{facts.get('what', '')}{cure}"


def needs_a_person(error: FailureError) -> bool:
    """Its own error says that nothing but a change on the host helps. An undo tells people at once, and goes on."""
    return isinstance(error, ActivityError) and error.retry_state is RetryState.NON_RETRYABLE_FAILURE


class Rounds:
    """How often an undo was tried."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.number = 0
        """Of rounds that failed."""
        self.attempts = 0

    def failed(self, error: FailureError) -> timedelta:
        """One more. Returns how long to wait before the next: Temporal's retries have waited already, our own not."""
        self.number += 1
        alone = needs_a_person(error)
        self.attempts += 1 if alone else options.UNDO_ROUND
        return options.between_undos(self._clocks, self.number) if alone else timedelta()


async def persist(
    clocks: Clocks,
    undo: Callable[[int], Awaitable[_T]],
    report: Callable[[int, Trouble], None],
    give_up: Callable[[], bool] = lambda: False,
) -> _T:
    """Try until it works, telling people after every round.

    `undo` gets the number of rounds so far; `report` the number of attempts so far and why the last one failed;
    `give_up` is asked between rounds: then the last failure is raised.
    """
    rounds = Rounds(clocks)
    while True:
        try:
            return await undo(rounds.number)
        except FailureError as error:
            if is_cancelled_exception(error) or give_up():
                raise
            pause = rounds.failed(error)
            report(rounds.attempts, trouble(error))
        if pause:
            await workflow.sleep(pause, summary="the undo again")


async def finish(work: Coroutine[Any, Any, _T], heard: Callable[[], None] = lambda: None) -> _T:
    """Run to the end, also when this workflow is cancelled meanwhile: half an undo is worse than none.

    `heard` is told of such a cancel.
    """
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            heard()
        except FailureError:
            break
    return task.result()


async def each(
    names: Iterable[str], work: Callable[[str], Awaitable[None]], window: int = options.WINDOW
) -> dict[str, FailureError]:
    """The same work for all, a window of them at a time; who failed, in the order given. Cancellation goes through."""
    order = tuple(names)
    free = asyncio.Semaphore(window)
    failed: dict[str, FailureError] = {}

    async def one(name: str) -> None:
        async with free:
            try:
                await work(name)
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                failed[name] = error

    # With return_exceptions a cancelled gather ends when all of its steps have ended, not with the first of them.
    ends = await asyncio.gather(*(one(name) for name in order), return_exceptions=True)
    for end in ends:
        if end is not None:
            raise end
    return {name: failed[name] for name in order if name in failed}


class Saga:
    """Undos, last first. Each rests on the one after it, so one that fails for good stops those before it.

    (Starting Core while its new compose file is still in place would start v2 on the v1 database.)
    """

    def __init__(self, insist: Callable[[str, Callable[[int], Awaitable[object]]], Awaitable[object]]) -> None:
        """`insist` runs one undo, named for people, until it works; it raises what no further attempt can cure."""
        self._insist = insist
        self._undos: list[tuple[str, Callable[[int], Awaitable[object]]]] = []

    def add(self, name: str, undo: Callable[[int], Awaitable[object]]) -> None:
        """Register before the step begins: a step may end half done, and an undo of nothing does nothing."""
        self._undos.append((name, undo))

    async def compensate(self) -> tuple[str, Trouble] | None:
        """Run all undos. Returns the one that was given up, with the reason; None when all is as before."""
        while self._undos:
            name, undo = self._undos.pop()
            try:
                await self._insist(name, undo)
            except FailureError as error:
                workflow.logger.error("an undo failed for good", extra={"step": name})
                return name, trouble(error)
        return None
