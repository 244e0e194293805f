"""Why a step failed, and what undoes the steps before it: retries of one undo, and the saga that orders them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from enum import StrEnum
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

from model.errors import AutoRolledBack, PlanChanged, Unreachable
from model.fleet.spec import Timing
from model.pages.servers import Failure
from workflows.runtime import steps

_T = TypeVar("_T")


class FailureKind(StrEnum):
    """Failures that a workflow handles in a way of their own. All others are only described."""

    UNREACHABLE = Unreachable.__name__
    PLAN_CHANGED = PlanChanged.__name__
    AUTO_ROLLED_BACK = AutoRolledBack.__name__
    REFUSED = "Refused"
    """A survey found something that forbids the upgrade."""
    CANCELLED = "Cancelled"
    ABANDONED = "Abandoned"
    """A person gave up an undo."""


def describe_failure(error: BaseException) -> Failure:
    """Describe the innermost cause: the message of the activity's error, or the meaning of a timeout."""
    inner: BaseException = error
    while isinstance(inner, FailureError) and inner.cause is not None:
        inner = inner.cause
    if isinstance(inner, ApplicationError):
        return Failure(
            type=inner.type or "ApplicationError", text=inner.message, text_without_residue=_drop_residue(inner)
        )
    if isinstance(inner, TimeoutError):
        kind = inner.type.name.lower().replace("_", " ") if inner.type else "time"
        return Failure(type="Timeout", text=f"the step did not end in its time ({kind}); is a worker running?")
    if is_cancelled_exception(error):
        return Failure(type=FailureKind.CANCELLED, text="cancelled from Temporal")
    return Failure(type=type(inner).__name__, text=str(inner))


async def failure_of(work: Awaitable[object]) -> Failure | None:
    """Why this work failed; None: it did not. A cancellation is raised."""
    try:
        await work
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        return describe_failure(error)
    return None


def _drop_residue(error: ApplicationError) -> str:
    """Build the text from the details that activities/interceptor.py adds to the error."""
    facts = error.details[0] if error.details else None
    if not isinstance(facts, dict) or not facts.get("residue"):
        return ""
    where = f"{facts['host']}: " if facts.get("host") else ""
    hint = f"\n  next: {facts['hint']}" if facts.get("hint") else ""
    return f"{where}{facts.get('what', '')}{hint}"


def needs_human(error: FailureError) -> bool:
    """Whether only a change on the host helps. The undo then notifies at once, and is retried all the same."""
    return isinstance(error, ActivityError) and error.retry_state is RetryState.NON_RETRYABLE_FAILURE


class Rounds:
    """Counts the rounds and attempts of an undo."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.number = 0
        """Failed rounds."""
        self.attempts = 0

    def failed(self, error: FailureError) -> timedelta:
        """Count a failed round and return the pause before the next: none if Temporal's retries have paused already."""
        self.number += 1
        without_retries = needs_human(error)
        self.attempts += 1 if without_retries else steps.UNDO_ROUND
        return steps.between_undos(self._timing, self.number) if without_retries else timedelta()


async def retry_undo(
    timing: Timing,
    undo: Callable[[int], Awaitable[_T]],
    report: Callable[[int, Failure], None],
    give_up: Callable[[], bool] = lambda: False,
) -> _T:
    """Retry until it works.

    `undo` gets the number of failed rounds; `report` the number of attempts and why the last one failed. If `give_up`
    returns True after a round, its failure is raised.
    """
    rounds = Rounds(timing)
    while True:
        try:
            return await undo(rounds.number)
        except FailureError as error:
            if is_cancelled_exception(error) or give_up():
                raise
            pause = rounds.failed(error)
            report(rounds.attempts, describe_failure(error))
        if pause:
            await workflow.sleep(pause, summary="retry the undo")


async def finish(work: Coroutine[Any, Any, _T], on_cancel: Callable[[], None] = lambda: None) -> _T:
    """Run to the end, also if the workflow is cancelled meanwhile: half an undo is worse than none.

    `on_cancel` is called for each cancel.
    """
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            on_cancel()
        except FailureError:
            break
    return task.result()


async def each(
    names: Iterable[str], work: Callable[[str], Awaitable[None]], window: int = steps.WINDOW
) -> dict[str, FailureError]:
    """Do the same work for all, a window of them at a time. Returns the failures in the given order."""
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

    await _to_the_end(*(one(name) for name in order))
    return {name: failed[name] for name in order if name in failed}


async def core_and_servers(
    core: Coroutine[Any, Any, Failure | None], servers: Coroutine[Any, Any, dict[str, Failure]]
) -> dict[str, Failure]:
    """Do work on Core's host and on servers at the same time. Returns the failures of both, Core's first."""
    of_core: Failure | None
    of_servers: dict[str, Failure]
    of_core, of_servers = await _to_the_end(core, servers)
    return ({"core": of_core} if of_core else {}) | of_servers


async def _to_the_end(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Like `asyncio.gather`, but a cancelled one ends after all of its works, not with the first of them."""
    ends = await asyncio.gather(*works, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return ends


class Saga:
    """Undos, run in reverse order. If one fails for good, the earlier ones are not run, because they rely on it.

    (Starting Core while its new compose file is still in place would start v2 on the v1 database.)
    """

    def __init__(self, retry_undo: Callable[[str, Callable[[int], Awaitable[object]]], Awaitable[object]]) -> None:
        """`retry_undo` runs one undo by its name until it works, and raises if it is abandoned."""
        self._retry_undo = retry_undo
        self._undos: list[tuple[str, Callable[[int], Awaitable[object]]]] = []

    def add(self, name: str, undo: Callable[[int], Awaitable[object]]) -> None:
        """Register the undo before the step begins: a step may fail half way, and undoing nothing does nothing."""
        self._undos.append((name, undo))

    async def compensate(self) -> tuple[str, Failure] | None:
        """Run all undos. Returns the one that was abandoned and why, or None."""
        while self._undos:
            name, undo = self._undos.pop()
            try:
                await self._retry_undo(name, undo)
            except FailureError as error:
                workflow.logger.error("an undo failed for good", extra={"step": name})
                return name, describe_failure(error)
        return None
