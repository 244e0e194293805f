"""The runs that Temporal knows, running and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from model.fleet.spec import workflow_id
from service.operation.search_attributes import Indexed, read

TYPES = ("UpgradeFleet", "RollbackFleet")
CHECK_TYPE = "CheckFleet"
WATCH_TYPE = "WatchFleet"
_PREFIX = "komodo-upgrade/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of an upgrade or of a rollback."""

    fleet: str
    kind: str
    """upgrade | rollback"""
    workflow_id: str
    run_id: str
    status: str
    """running | completed | failed | canceled | terminated | timed_out"""
    started_at: datetime
    ended_at: datetime | None
    requested_by: str = ""
    target: str = ""
    release: str = ""
    """Of this project, which began it; empty if it is not known."""
    partial: str = ""
    """Of a rollback: the only servers that it restores; empty: all."""
    indexed: Indexed = Indexed()

    @property
    def is_running(self) -> bool:
        """Not closed."""
        return self.status == "running"


async def running(client: Client) -> list[Run]:
    """What runs right now, of all fleets."""
    return [run async for run in runs(client, "ExecutionStatus = 'Running'")]


async def runs(client: Client, condition: str = "") -> AsyncIterator[Run]:
    """Newest first."""
    types = ", ".join(f"'{name}'" for name in TYPES)
    query = f"WorkflowType IN ({types})" + (f" AND {condition}" if condition else "")
    async for execution in client.list_workflows(query, rpc_timeout=timedelta(seconds=10)):
        yield await to_run(execution)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """A watch over an upgrade that is over. It counts as no upgrade: nothing has to wait for it."""

    fleet: str
    workflow_id: str


async def watches(client: Client) -> list[Watching]:
    """Those that run right now, of all fleets."""
    query = f"WorkflowType = '{WATCH_TYPE}' AND ExecutionStatus = 'Running'"
    found = []
    async for execution in client.list_workflows(query, rpc_timeout=timedelta(seconds=10)):
        fleet = execution.id.removeprefix(_PREFIX).split("/", 1)[0]
        found.append(Watching(fleet=fleet, workflow_id=execution.id))
    return found


async def to_run(execution: WorkflowExecution) -> Run:
    """A run from Temporal's record and the memo that the command wrote."""
    memo = await execution.memo()
    status = execution.status or WorkflowExecutionStatus.RUNNING
    return Run(
        fleet=str(memo.get("fleet") or execution.id.removeprefix(_PREFIX)),
        kind="rollback" if execution.workflow_type == "RollbackFleet" else "upgrade",
        workflow_id=execution.id,
        run_id=execution.run_id,
        status=status.name.lower(),
        started_at=execution.start_time,
        ended_at=execution.close_time,
        requested_by=str(memo.get("requested_by", "")),
        target=str(memo.get("target", "")),
        release=str(memo.get("release", "")),
        partial=str(memo.get("servers", "")),
        indexed=read(execution),
    )


async def servers_at_work(client: Client, fleet: str) -> AsyncIterator[str]:
    """Servers whose own workflow runs; without a running upgrade they are those of a terminated one, undoing."""
    prefix = f"{workflow_id(fleet)}/"
    query = "WorkflowType = 'UpgradeServer' AND ExecutionStatus = 'Running'"
    async for execution in client.list_workflows(query, rpc_timeout=timedelta(seconds=10)):
        if execution.id.startswith(prefix):
            yield execution.id.removeprefix(prefix).split("/")[0]


async def abandoned_rollback(client: Client, fleet: str) -> Run | None:
    """The rollback that an upgrade began as its child: it continues when the upgrade is terminated."""
    prefix = f"{workflow_id(fleet)}/rollback/"
    async for run in runs(client, "ExecutionStatus = 'Running'"):
        if run.workflow_id.startswith(prefix):
            return replace(run, fleet=fleet)
    return None
