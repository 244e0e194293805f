"""A command's connection to Temporal: the configured server, or the embedded one, started if necessary."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio.client import Client

from cli.output import say
from model.errors import NoSuchUpgrade
from model.fleet.spec import TASK_QUEUE, FleetSpec
from service.connection import configured, connect
from service.embedded import lifecycle
from service.embedded.state import Running, StateDir
from service.operation import pollers


@dataclass(frozen=True, slots=True)
class Session:
    """A connected client; `embedded` is set for the embedded server."""

    client: Client
    state: StateDir | None = None
    embedded: Running | None = None

    async def require_worker(self) -> None:
        """Raises NoWorker if no worker polls the task queue, or none has for over a minute."""
        if self.embedded is not None:
            return
        await pollers.require(self.client, task_queue=TASK_QUEUE)

    async def share_secrets(self, fleet: FleetSpec) -> None:
        """Give the embedded worker those of this shell's variables that the fleet file names."""
        if self.state is not None and self.embedded is not None:
            await lifecycle.serve_fleet(self.state, self.embedded, fleet, say)


async def open_session(
    *, state: StateDir | None = None, options: lifecycle.Options | None = None, only_existing: bool = False
) -> Session:
    """Connect. `only_existing`: raise NoSuchUpgrade rather than start an embedded server for the first time."""
    if state is None:
        settings = configured()
        if settings:
            return Session(await connect(settings))
    state = state or StateDir()
    if only_existing and not state.database.exists():
        raise NoSuchUpgrade(
            "no upgrade was ever started on this machine",
            hint="`komodo-upgrade start` starts one; if your Temporal runs elsewhere, set TEMPORAL_ADDRESS",
        )
    if not state.supervised():
        say("starting the embedded Temporal server and its worker …")
    now = await lifecycle.ensure(state, say, options or lifecycle.Options())
    return Session(await lifecycle.client(state, now), state, now)
