"""The watch over an upgrade as the commands talk to it: what it found, waiting for its end, ending it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError

from cli.upgrade import ANSWER
from model.fleet import workflow_id
from model.progress import FleetResult
from model.watch import EXIT_FOUND, QUERY_WATCH, WatchReport, watch_id
from service.upgrades import watches


async def watch_of(client: Client, fleet: str, change: str) -> WatchReport | None:
    """What the watch over this upgrade says; None: there is none, or nobody can tell (gone, no worker)."""
    handle = client.get_workflow_handle(watch_id(workflow_id(fleet), change), result_type=WatchReport)
    try:
        found = await handle.describe(rpc_timeout=ANSWER)
        if found.status is WorkflowExecutionStatus.COMPLETED:
            over: WatchReport = await handle.result(rpc_timeout=ANSWER)
            return over
        now: WatchReport = await handle.query(QUERY_WATCH, result_type=WatchReport, rpc_timeout=ANSWER)
    except (RPCError, WorkflowFailureError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
        return None
    return now


async def until_over(client: Client, fleet: str, change: str, timeout: timedelta | None) -> bool:
    """Wait for its end. False: the time is over. An end that is no result counts as one."""
    handle = client.get_workflow_handle(watch_id(workflow_id(fleet), change), result_type=WatchReport)
    try:
        async with asyncio.timeout(timeout.total_seconds() if timeout else None):
            with contextlib.suppress(RPCError, WorkflowFailureError):
                await handle.result()
    except TimeoutError:
        return False
    return True


def exit_code(result: FleetResult, watch: WatchReport | None) -> int:
    """The upgrade's own; where that is 0, the watch may have found something since."""
    return EXIT_FOUND if watch and watch.open and not result.state.exit_code else result.state.exit_code


async def end_watches(client: Client, fleet: str) -> None:
    """What begins now changes what they look at. One that cannot be ended sees that by itself at its next look."""
    with contextlib.suppress(RPCError):
        for found in await watches(client):
            if found.fleet == fleet:
                await client.get_workflow_handle(found.workflow_id).cancel(rpc_timeout=ANSWER)
