"""Which workers poll the task queue, and which of them Temporal only remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from model.errors import NoWorker
from model.fleet.spec import TASK_QUEUE
from model.serialization import span

GONE_AFTER = timedelta(seconds=75)
"""An idle worker polls once a minute, and Temporal lists a worker for five minutes after its last poll."""
_START = "start `komodo-upgrade-worker` where the hosts can be reached (embedded: `komodo-upgrade up`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """A worker, and when it last asked for work."""

    identity: str
    last_seen: datetime
    deployment: str = ""
    """With Worker Versioning, its deployment and build."""
    build: str = ""

    def is_gone(self, now: datetime) -> bool:
        """It was killed, or has lost its connection."""
        return now - self.last_seen > GONE_AFTER


async def pollers(client: Client, *, task_queue: str = TASK_QUEUE) -> list[Poller]:
    """Workers that ask for workflow tasks, the one seen last first; also those that are gone since a few minutes."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    found = await client.workflow_service.describe_task_queue(request, timeout=timedelta(seconds=10))
    known = [
        Poller(
            identity=p.identity,
            last_seen=p.last_access_time.ToDatetime(UTC),
            deployment=p.deployment_options.deployment_name if _versioned(p) else "",
            build=p.deployment_options.build_id if _versioned(p) else "",
        )
        for p in found.pollers
    ]
    return sorted(known, key=lambda one: one.last_seen, reverse=True)


def _versioned(poller: PollerInfo) -> bool:
    mode = poller.deployment_options.worker_versioning_mode
    return mode == WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED


def set_current(deployment: str, build: str) -> str:
    """The command that makes a version of Worker Versioning current."""
    return f"temporal worker deployment set-current-version --deployment-name {deployment} --build-id {build}"


def advice(known: Sequence[Poller], now: datetime) -> str:
    """What to do about a task that no worker takes."""
    living = [one for one in known if not one.is_gone(now)]
    versioned = [one for one in living if one.deployment]
    if living and len(versioned) == len(living):
        one = versioned[0]
        return (
            f"workers poll, such as build {one.build} of deployment {one.deployment}, but the task is for another "
            f"version, or no version is current: {set_current(one.deployment, one.build)}"
        )
    return _START


async def require(client: Client, *, task_queue: str = TASK_QUEUE) -> None:
    """Raises NoWorker if no worker polls the task queue, or none has for longer than a living one pauses."""
    known = await pollers(client, task_queue=task_queue)
    now = datetime.now(UTC)
    if any(not one.is_gone(now) for one in known):
        return
    address = client.service_client.config.target_host
    where = f"{task_queue} at {address}, namespace {client.namespace}"
    last = f"; the last one was {describe(known[0], now)}" if known else ""
    raise NoWorker(f"no worker serves {where}{last}", residue="nothing was started", hint=_START)


async def not_taken(client: Client, waited: timedelta, *, task_queue: str = TASK_QUEUE) -> NoWorker:
    """The error for a task that no worker has taken for `waited`."""
    known = await pollers(client, task_queue=task_queue)
    now = datetime.now(UTC)
    last = f"; the last worker was {describe(known[0], now)}" if known else "; no worker is known"
    return NoWorker(f"no worker has taken the task for {span(waited)}{last}", hint=advice(known, now))


def describe(poller: Poller, now: datetime) -> str:
    """Its name, and how long ago it was seen."""
    return f"{poller.identity}, seen {span(max(timedelta(), now - poller.last_seen))} ago"
