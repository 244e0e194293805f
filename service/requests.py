"""Short workflows that a command starts and waits for: check a fleet, read or remove its run folders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError

from model.errors import NoWorker, TimeIsOver, UpgradeError
from model.fleet.discovery import AgentOnHost, AgentsOnHosts, CoreServers, FindAgents, ListServers
from model.fleet.spec import TASK_QUEUE, FleetSpec
from model.gates import QUERY_PLAN_PAGE
from model.pages.results import joined_plan
from model.plan import Plan
from model.run_folders import CORE, Cleaned, CleanRequest, CleanResult, FleetFolders, HostFolders, ScanRequest, Unwanted
from model.status import CheckResult, PlanPage, UpgradeRequest
from model.steps import Done, Notice
from service.connection import actor
from service.operation.pending import lines, pending
from service.operation.pollers import GONE_AFTER, not_taken

T = TypeVar("T")

PAGE = 50
"""Servers in one answer, so that it stays below the size limit of a message to Temporal."""
PATIENCE = timedelta(minutes=15)
_ANSWER = timedelta(seconds=10)
POLL_EVERY = timedelta(seconds=3)
"""Between two questions to Temporal, while a command waits, whether its workflow makes progress."""


def new_change() -> str:
    """The id of a change: UTC, to the second. It is also the run folder's name on every host."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _unheard(_: str) -> None:
    """For callers with nobody to read a message."""


async def check(
    client: Client, fleet: FleetSpec, *, timeout: timedelta, say: Callable[[str], None] = _unheard
) -> CheckResult:
    """Findings and plan. Raises NoWorker, UpgradeError when the check itself failed.

    `say` gets a message when no worker takes the check, or when a step is tried again.
    """
    request = UpgradeRequest(fleet=fleet, change=new_change(), requested_by=actor())
    result, handle = await _ask(client, "CheckFleet", request, CheckResult, fleet, timeout, say)
    if result.plan.servers or not fleet.servers:
        return result
    return replace(result, plan=await whole_plan(handle) or result.plan)


async def send_notice(client: Client, notice: Notice, fleet: FleetSpec, *, say: Callable[[str], None]) -> Done:
    """A notice as the worker sends it; the result says why it did not arrive. Raises NoWorker, UpgradeError."""
    sent, _ = await _ask(client, "SendNotice", notice, Done, fleet, PATIENCE, say)
    return sent


async def list_servers(
    client: Client, request: ListServers, *, timeout: timedelta, say: Callable[[str], None]
) -> CoreServers:
    """What Core knows, as the worker reads it. Raises NoWorker, UpgradeError."""
    found, _ = await _ask(client, "ListFleet", request, CoreServers, request.fleet, timeout, say)
    return found


async def find_agents(
    client: Client, fleet: FleetSpec, names: tuple[str, ...], *, timeout: timedelta, say: Callable[[str], None]
) -> tuple[AgentOnHost, ...]:
    """The agents of these servers, as the worker finds them on their hosts. Raises NoWorker, UpgradeError."""
    found: list[AgentOnHost] = []
    for start in range(0, len(names), PAGE):
        page = names[start : start + PAGE]
        part = replace(fleet, servers=tuple(s for s in fleet.servers if s.name in page))
        request = FindAgents(fleet=part)
        agents, _ = await _ask(client, "FindFleetAgents", request, AgentsOnHosts, fleet, timeout, say)
        found += agents.agents
    return tuple(found)


async def whole_plan(handle: WorkflowHandle[Any, Any]) -> Plan | None:
    """The plan of a check or of a run with all its servers; None while it is being made. Raises RPCError."""
    pages: list[PlanPage] = []
    while not pages or len(pages) < pages[0].pages:
        number = len(pages) + 1
        pages.append(await handle.query(QUERY_PLAN_PAGE, number, result_type=PlanPage, rpc_timeout=_ANSWER))
    plans = [page.plan for page in pages if page.plan is not None]
    return joined_plan(plans) if plans else None


async def folders(client: Client, fleet: FleetSpec, *, only: tuple[str, ...] = (), brief: bool = False) -> FleetFolders:
    """The run folders on the hosts, as the worker reads them. Raises NoWorker, UpgradeError."""
    names = only or tuple(server.name for server in fleet.servers)
    core: HostFolders | None = None
    servers: list[HostFolders] = []
    for start in range(0, max(len(names), 1), PAGE):
        page = names[start : start + PAGE]
        part = replace(fleet, servers=tuple(s for s in fleet.servers if s.name in page))
        request = ScanRequest(fleet=part, servers=page, brief=brief)
        found, _ = await _ask(client, "ScanRunFolders", request, FleetFolders, fleet)
        core = core or found.core
        servers += found.servers
    return FleetFolders(core=core or HostFolders(name=CORE), servers=tuple(servers))


async def remove_folders(client: Client, fleet: FleetSpec, unwanted: tuple[Unwanted, ...]) -> CleanResult:
    """Remove run folders from the hosts. Raises NoWorker, UpgradeError."""
    change, hosts = new_change(), list[Cleaned]()
    for start in range(0, len(unwanted), PAGE):
        page = unwanted[start : start + PAGE]
        names = [one.name for one in page]
        part = replace(fleet, servers=tuple(s for s in fleet.servers if s.name in names))
        request = CleanRequest(fleet=part, change=change, unwanted=page, requested_by=actor())
        cleaned, _ = await _ask(client, "CleanFleet", request, CleanResult, fleet)
        hosts += cleaned.hosts
    return CleanResult(hosts=tuple(hosts))


async def _ask(
    client: Client,
    workflow: str,
    request: object,
    result: type[T],
    fleet: FleetSpec,
    timeout: timedelta = PATIENCE,
    say: Callable[[str], None] = _unheard,
) -> tuple[T, WorkflowHandle[Any, Any]]:
    """The workflow's result, and its handle for queries."""
    handle = await client.start_workflow(
        workflow,
        request,
        id=f"komodo-upgrade-check/{fleet.name}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
        task_queue=TASK_QUEUE,
        result_type=result,
        memo={"fleet": fleet.name, "requested_by": actor(), "target": fleet.target},
        static_summary=f"{workflow} {fleet.name}",
        # When the command has stopped waiting, its answer is not needed.
        execution_timeout=timeout + timedelta(minutes=1),
    )
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            answer: T = await _result(client, handle, say)
    except TimeoutError:
        await handle.cancel()
        raise TimeIsOver(
            f"the worker did not answer within {timeout}",
            hint="read the worker's log; a host that does not answer takes three times its connect_timeout",
        ) from None
    except WorkflowFailureError as error:
        cause: BaseException | None = error.cause
        if isinstance(cause, ActivityError):
            cause = cause.cause
        raise UpgradeError(f"{workflow} failed: {cause or error}", hint="read the worker's log") from None
    except (asyncio.CancelledError, NoWorker):
        await asyncio.shield(handle.cancel())
        raise
    return answer, handle


async def _result(client: Client, handle: WorkflowHandle[Any, T], say: Callable[[str], None]) -> T:
    """The result. What Temporal knows about the wait is said once. Raises NoWorker if no worker takes the workflow."""
    result = asyncio.create_task(handle.result())
    said: tuple[str, ...] = ()
    try:
        while not (await asyncio.wait({result}, timeout=POLL_EVERY.total_seconds()))[0]:
            found = await pending(client, handle.id)
            untaken = [found.at - task.since for task in found.tasks if task.is_untaken(found.at)]
            if untaken and max(untaken) > GONE_AFTER:
                raise await not_taken(client, max(untaken))
            known = tuple(lines(found))
            if len(known) > len(said):
                for line in known:
                    say(line)
                said = known
        return await result
    finally:
        result.cancel()
