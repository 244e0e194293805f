"""One command's way to Temporal: the configured server, or the embedded one, started when needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from cli.output import say
from model.errors import NoSuchUpgrade, NoWorker
from model.fleet import TASK_QUEUE, FleetSpec
from service import embedded
from service.connection import configured, connect
from service.state import Running, StateDir


@dataclass(frozen=True, slots=True)
class Session:
    """A connected client; `embedded` is set where the server is ours."""

    client: Client
    state: StateDir | None = None
    embedded: Running | None = None

    async def require_worker(self) -> None:
        """Raises NoWorker when nobody would run what is about to be started."""
        if self.embedded is not None:
            return
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        found = await self.client.workflow_service.describe_task_queue(request, timeout=timedelta(seconds=10))
        if not found.pollers:
            address = self.client.service_client.config.target_host
            raise NoWorker(
                f"no worker serves {TASK_QUEUE} at {address}, namespace {self.client.namespace}",
                cure="start one where the hosts can be reached: komodo-upgrade-worker",
            )

    async def share_secrets(self, fleet: FleetSpec) -> None:
        """The embedded worker gets this shell's variables that the fleet file names."""
        if self.state is not None and self.embedded is not None:
            await embedded.share_environment(self.embedded, fleet, say)
            await embedded.wait_for_worker(self.state)


async def open_session(
    *, state: StateDir | None = None, options: embedded.Options | None = None, only_existing: bool = False
) -> Session:
    """Connect. `only_existing`: a command that looks back starts no server where none was ever started."""
    if state is None:
        settings = configured()
        if settings:
            return Session(await connect(settings))
    state = state or StateDir()
    if only_existing and not state.database.exists():
        raise NoSuchUpgrade(
            "no upgrade was ever started on this machine",
            cure="komodo-upgrade start, or set TEMPORAL_ADDRESS where your Temporal runs elsewhere",
        )
    if not state.supervised():
        say("starting the embedded Temporal server and its worker …")
    now = await embedded.ensure(state, say, options or embedded.Options())
    return Session(await embedded.client(state, now), state, now)
