"""A failed undo is retried until it works. Its gate shows the host, error and command, and lets a person skip it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from model.fleet.spec import slug
from model.gates import Gate, GateKind, Recorded, Verdict
from model.pages.servers import Failure
from workflows.runtime.failures import FailureKind, Rounds, describe_failure
from workflows.runtime.gates import GateKeeper

_T = TypeVar("_T")


@dataclass(frozen=True)
class Undo:
    """The subject of an undo, for gates and progress."""

    subject: str
    """The server, or "core"."""
    what: str
    """"restore web-3"."""
    manual_command: str
    """"by hand on 10.0.0.3: sudo sh …/restore.sh"; empty where there is no backup."""


def describe_attempts(undo: Undo, attempts: int, why: Failure) -> str:
    """One line of progress while the undo does not work."""
    manual_command = f"; {undo.manual_command}" if undo.manual_command else ""
    times = "once" if attempts == 1 else f"{attempts} times"
    return " ".join(f"{undo.what}: tried {times}, still trying: {why.text}{manual_command}".split())


async def retry_undo_with_gate(
    gatekeeper: GateKeeper,
    undo: Undo,
    work: Callable[[int], Awaitable[_T]],
    report: Callable[[int, Failure], None],
    give_up: Callable[[], bool] = lambda: False,
) -> _T:
    """Retry until it works. After the first failed round a gate is open during the retries; its only verdict is `skip`.

    `work` gets the number of failed rounds; `report` the number of attempts and why the last one failed. Raises a
    failure of kind ABANDONED after a skip, or once `give_up` returns True. No error ends the retries: after a person
    frees space or mounts a disk, the undo works.
    """
    rounds, offer = Rounds(gatekeeper.timing), None
    why = Failure(type=FailureKind.ABANDONED, text="")
    try:
        while True:
            attempt = asyncio.create_task(_attempt(work, rounds.number))
            await _wait_for_first(attempt, offer)
            try:
                return attempt.result()
            except (asyncio.CancelledError, FailureError) as error:
                if offer is not None and offer.done():
                    raise _abandoned(offer.result(), why) from None
                if isinstance(error, asyncio.CancelledError) or is_cancelled_exception(error):
                    raise
                why = describe_failure(error)
                pause = rounds.failed(error)
            report(rounds.attempts, why)
            offer = offer or asyncio.create_task(gatekeeper.ask_meanwhile(_gate(gatekeeper, undo, why), give_up))
            if pause and await _answered_within(offer, pause):
                raise _abandoned(offer.result(), why)
    finally:
        if offer is not None:
            offer.cancel()


async def _attempt(work: Callable[[int], Awaitable[_T]], rounds: int) -> _T:
    return await work(rounds)


async def _wait_for_first(attempt: asyncio.Task[_T], offer: asyncio.Task[Recorded | None] | None) -> None:
    """Wait until the attempt has ended, or cancel it once the gate is answered (or the workflow is cancelled)."""
    try:
        await workflow.wait_condition(lambda: attempt.done() or (offer is not None and offer.done()))
    finally:
        if not attempt.done():
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError, FailureError):
                await attempt


async def _answered_within(offer: asyncio.Task[Recorded | None], pause: timedelta) -> bool:
    with contextlib.suppress(TimeoutError):
        await workflow.wait_condition(offer.done, timeout=pause, timeout_summary="retry the undo")
    return offer.done()


def _abandoned(answer: Recorded | None, why: Failure) -> ApplicationError:
    who = f"given up by {answer.decision.actor}" if answer else "given up, because it was stopped"
    return ApplicationError(f"{who}; the last attempt: {why.text}", type=FailureKind.ABANDONED, non_retryable=True)


def _gate(gatekeeper: GateKeeper, undo: Undo, why: Failure) -> Gate:
    return Gate(
        id=gatekeeper.new_gate_id(f"undo/{slug(undo.subject)}"),
        kind=GateKind.FAILURE,
        question=f"{undo.what}: this does not work yet; skip it?",
        facts=(
            why.text,
            "it is retried every few minutes; once it works, this gate closes",
            *((undo.manual_command,) if undo.manual_command else ()),
            "skip: leave it as it is; the report names the host, its folder and the command to type",
        ),
        verdicts=(Verdict.SKIP,),
        opened_at=workflow.now(),
        subject=undo.subject,
    )
