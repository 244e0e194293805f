"""An undo that does not work goes on by itself; people see where, why and what to type, and may give it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Recorded, Verdict
    from model.fleet import slug
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows.gates import Desk
    from workflows.saga import Rounds, Trouble, trouble

_T = TypeVar("_T")
GIVEN_UP = "GivenUp"
"""Type of the failure with which an undo ends that a person gave up."""


@dataclass(frozen=True)
class Undo:
    """What is undone, in words for people."""

    subject: str
    """A server's name, or "core": what `skip` takes."""
    what: str
    """"put web-3 back"."""
    by_hand: str
    """"by hand on 10.0.0.3: sudo sh …/restore.sh"; empty where there is no backup."""


def still(undo: Undo, attempts: int, why: Trouble) -> str:
    """The step of a line while it does not work, all of it on one line."""
    by_hand = f"; {undo.by_hand}" if undo.by_hand else ""
    times = "once" if attempts == 1 else f"{attempts} times"
    return " ".join(f"{undo.what}: tried {times}, still trying: {why.text}{by_hand}".split())


async def insist(
    desk: Desk,
    undo: Undo,
    work: Callable[[int], Awaitable[_T]],
    report: Callable[[int, Trouble], None],
    give_up: Callable[[], bool] = lambda: False,
) -> _T:
    """Try until it works. After the first round that failed a gate is open beside it, which takes `skip`.

    `work` gets the number of rounds so far; `report` the number of attempts so far and why the last one failed.
    Raises a failure of type GIVEN_UP after a skip, or once `give_up` says so. No error ends it by itself: a person can
    make room, or mount a disk again, and then it works.
    """
    rounds, offer = Rounds(desk.clocks), None
    why = Trouble(type=GIVEN_UP, text="")
    try:
        while True:
            attempt = asyncio.create_task(_one(work, rounds.number))
            await _first_of(attempt, offer)
            try:
                return attempt.result()
            except (asyncio.CancelledError, FailureError) as error:
                if offer is not None and offer.done():
                    raise _given_up(offer.result(), why) from None
                if isinstance(error, asyncio.CancelledError) or is_cancelled_exception(error):
                    raise
                why = trouble(error)
                pause = rounds.failed(error)
            report(rounds.attempts, why)
            offer = offer or asyncio.create_task(desk.offer(_gate(desk, undo, why), give_up))
            if pause and await _answered_within(offer, pause):
                raise _given_up(offer.result(), why)
    finally:
        if offer is not None:
            offer.cancel()


async def _one(work: Callable[[int], Awaitable[_T]], rounds: int) -> _T:
    return await work(rounds)


async def _first_of(attempt: asyncio.Task[_T], offer: asyncio.Task[Recorded | None] | None) -> None:
    """Until the attempt has ended by itself, or was let go because of the offer (or of a cancel)."""
    try:
        await workflow.wait_condition(lambda: attempt.done() or (offer is not None and offer.done()))
    finally:
        if not attempt.done():
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError, FailureError):
                await attempt


async def _answered_within(offer: asyncio.Task[Recorded | None], pause: timedelta) -> bool:
    with contextlib.suppress(TimeoutError):
        await workflow.wait_condition(offer.done, timeout=pause, timeout_summary="the undo again")
    return offer.done()


def _given_up(answer: Recorded | None, why: Trouble) -> ApplicationError:
    said = f"given up by {answer.decision.actor}" if answer else "given up, because it was stopped"
    return ApplicationError(f"{said}; the last attempt: {why.text}", type=GIVEN_UP, non_retryable=True)


def _gate(desk: Desk, undo: Undo, why: Trouble) -> Gate:
    return Gate(
        id=desk.fresh(f"undo/{slug(undo.subject)}"),
        kind=GateKind.FAILURE,
        question=f"{undo.what} does not work yet: go on trying, or give it up?",
        facts=(
            why.text,
            "it goes on trying every few minutes; once it works, this question goes away by itself",
            *((undo.by_hand,) if undo.by_hand else ()),
            "skip: leave it as it is; the report names the host, its folder and the line to type",
        ),
        verdicts=(Verdict.SKIP,),
        opened_at=workflow.now(),
        subject=undo.subject,
    )
