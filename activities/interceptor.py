"""Wraps every activity: sends heartbeats, translates errors to Temporal's, and ends the activity with its worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from pathlib import Path
from traceback import extract_tb
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.heartbeat import beating
from hosts.known_secrets import mask, mask_findings
from model.errors import InternalError, UpgradeError

log = logging.getLogger("komodo_upgrade.activities")

MESSAGE_LIMIT = 8_000
"""Characters of a message that go into the history; a failure's size counts against the workflow's history."""
SHUTDOWN_GRACE = timedelta(seconds=5)
"""How long an activity may continue after its worker was asked to stop. Longer steps run as a detached job on the host;
the next worker attaches to it."""
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError, TypeError, ValueError)
"""Bugs in this project's code, independent of the input. Repeating the step would only delay the report."""
_ROOT = Path(__file__).parent.parent
_EXTRA = ("code", "tail", "fingerprint", "snippet", "status")


class Boundary(Interceptor):
    """The worker's interceptor; wraps every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Wrap one activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        try:
            async with beating(activity.info().heartbeat_timeout):
                return mask_findings(await _until_shutdown(self.next.execute_activity(input)))
        except ApplicationError:
            raise
        except UpgradeError as error:
            # Without the cause: otherwise a failure's whole chain would be written into the history.
            raise translate(error) from None
        except _BUGS as error:
            log.exception("internal error in step %s", activity.info().activity_type)
            raise translate(internal_error(activity.info().activity_type, error)) from None


def internal_error(step: str, error: Exception) -> InternalError:
    """A bug, by its class and place. The error's own text may repeat a secret; it is in the worker's log only."""
    ours = [f for f in extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(_ROOT)]
    place = f" in {Path(ours[-1].filename).relative_to(_ROOT)}:{ours[-1].lineno}" if ours else ""
    return InternalError(
        f"internal error in step {step}: {type(error).__name__}{place}",
        hint="this is a bug in komodo-upgrade: report it as CONTRIBUTING.md describes, with the output of "
        "`komodo-upgrade version` and the traceback from the worker's log",
    )


def translate(error: UpgradeError) -> ApplicationError:
    """One of this project's errors as Temporal stores it: its text and class name, retried only where that can help."""
    extra = {name: getattr(error, name) for name in _EXTRA if getattr(error, name, None)}
    facts = {"what": error.what, "host": error.host, "residue": error.residue, "hint": error.hint} | extra
    clipped = {
        key: _clip(mask(value), MESSAGE_LIMIT // 2) if isinstance(value, str) else value for key, value in facts.items()
    }
    return ApplicationError(
        _clip(mask(str(error)), MESSAGE_LIMIT),
        clipped,
        type=type(error).__name__,
        non_retryable=not error.transient,
        next_retry_delay=getattr(error, "retry_after", None),
    )


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


async def _until_shutdown(body: Any) -> Any:
    """The activity's result; or, if the worker is stopping, a failure that is retried at once."""
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
        "this worker is shutting down; another one continues the step",
        type="WorkerShutdown",
        next_retry_delay=timedelta(milliseconds=200),
    )


async def _cancel(work: asyncio.Future[Any]) -> None:
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await work
