"""Run `CheckFleet` on the worker and bring its result back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError

from model.errors import NoWorker, UpgradeError
from model.fleet import TASK_QUEUE, FleetSpec
from model.progress import CheckResult, UpgradeRequest
from service.connection import actor


def stamp() -> str:
    """The change id: UTC, to the second; also the run folder's name on every host."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


async def check(client: Client, fleet: FleetSpec, *, timeout: timedelta) -> CheckResult:
    """Findings and plan. Raises NoWorker when time is over, UpgradeError when the check itself failed."""
    change = stamp()
    request = UpgradeRequest(fleet=fleet, change=change, requested_by=actor())
    handle = await client.start_workflow(
        "CheckFleet",
        request,
        id=f"komodo-upgrade-check/{fleet.name}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
        task_queue=TASK_QUEUE,
        result_type=CheckResult,
        memo={"fleet": fleet.name, "requested_by": request.requested_by, "target": fleet.target},
        static_summary=f"check {fleet.name}",
        # Read-only and asked for by somebody who waits: nothing is worth going on after that.
        execution_timeout=timeout + timedelta(minutes=1),
    )
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            result: CheckResult = await handle.result()
    except TimeoutError:
        await handle.cancel()
        raise NoWorker(
            f"the check did not end within {timeout}",
            cure="look at the worker's log; a host that hangs is waited for up to its connect_timeout, three times",
        ) from None
    except WorkflowFailureError as error:
        cause: BaseException | None = error.cause
        if isinstance(cause, ActivityError):
            cause = cause.cause
        raise UpgradeError(f"the check failed: {cause or error}", cure="look at the worker's log") from None
    except asyncio.CancelledError:
        await asyncio.shield(handle.cancel())
        raise
    return result
