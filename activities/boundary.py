"""Where the project's errors become Temporal's, where every step gives signs of life, and where a worker that is told
to stop lets go of its activities.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.signs import beating
from model.errors import UpgradeError

MESSAGE_LIMIT = 8_000
"""Characters of a message that go into the history; a failure's size counts against the workflow's history."""
SHUTDOWN_GRACE = timedelta(seconds=5)
"""How long an activity may go on after its worker was told to stop. Longer steps live in a detached job on the host;
the next worker attaches to it."""
_EXTRA = ("code", "tail", "fingerprint", "snippet", "status")


class Boundary(Interceptor):
    """Given to the worker once; wraps every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Wrap one activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        try:
            async with beating(activity.info().heartbeat_timeout):
                return await _until_shutdown(self.next.execute_activity(input))
        except ApplicationError:
            raise
        except UpgradeError as error:
            # The cause stays here: a failure's whole chain would be written into the history.
            raise translate(error) from None


def translate(error: UpgradeError) -> ApplicationError:
    """One of our errors as Temporal keeps it: our words, our class name, retried only where that can help."""
    extra = {name: getattr(error, name) for name in _EXTRA if getattr(error, name, None)}
    facts = {"what": error.what, "host": error.host, "left": error.left, "cure": error.cure} | extra
    clipped = {
        key: _clip(value, MESSAGE_LIMIT // 2) if isinstance(value, str) else value for key, value in facts.items()
    }
    return ApplicationError(
        _clip(str(error), MESSAGE_LIMIT),
        clipped,
        type=type(error).__name__,
        non_retryable=not error.transient,
        next_retry_delay=getattr(error, "retry_after", None),
    )


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


async def _until_shutdown(body: Any) -> Any:
    """The activity's result; or, soon after the worker was told to stop, a failure that is retried at once."""
    work = asyncio.ensure_future(body)
    shutdown = asyncio.ensure_future(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait({work, shutdown}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await asyncio.wait({work}, timeout=SHUTDOWN_GRACE.total_seconds())
        if work.done():
            return await work
    except asyncio.CancelledError:
        await _cancel(work)
        if work.done() and not work.cancelled() and work.exception() is None:
            return work.result()
        raise
    finally:
        shutdown.cancel()
    await _cancel(work)
    if work.done() and not work.cancelled():
        return work.result()
    raise ApplicationError(
        "this worker is shutting down; another one goes on with the step",
        type="WorkerShutdown",
        next_retry_delay=timedelta(milliseconds=200),
    )


async def _cancel(work: asyncio.Future[Any]) -> None:
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await work
