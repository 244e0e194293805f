"""komodo-upgrade-worker: runs the workflows and the activities. Stateless; start as many as you like.

Which Temporal it serves is told by Temporal's own settings: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, … or temporal.toml.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities import registry
from activities.boundary import Boundary
from hosts.pool import Hosts
from model.errors import TemporalUnavailable, UpgradeError
from model.fleet import TASK_QUEUE
from service import logs
from service.connection import configured, connect
from service.leaving import leave
from workflows.check_fleet import CheckFleet
from workflows.look_back import CleanFleet, LookBack
from workflows.rollback_fleet import RollbackFleet
from workflows.upgrade_fleet import UpgradeFleet
from workflows.upgrade_server import UpgradeServer
from workflows.watch_fleet import WatchFleet

log = logging.getLogger("komodo_upgrade.worker")

WORKFLOWS: tuple[type, ...] = (CheckFleet, UpgradeFleet, UpgradeServer, RollbackFleet, LookBack, CleanFleet, WatchFleet)

GRACE = timedelta(seconds=30)
"""From SIGTERM until activities are cancelled; whoever stops the worker waits longer (deploy/: 45 s)."""
_CONNECT_ATTEMPTS = 5


@asynccontextmanager
async def serving(client: Client, *, task_queue: str = TASK_QUEUE) -> AsyncIterator[Worker]:
    """A running worker; leaving the block drains it. Raises UpgradeError when an activity is missing."""
    hosts = Hosts()
    methods = registry.build(hosts)
    missing = registry.missing(methods)
    if missing:
        # Temporal would retry an unknown activity for ever, without a word.
        raise UpgradeError(f"this installation lacks activities: {', '.join(missing)}", cure="install it anew")
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=methods,
        interceptors=[Boundary()],
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_modules("model")
        ),
        max_concurrent_activities=50,  # SSH sessions of one worker
        max_heartbeat_throttle_interval=timedelta(seconds=1),  # fresh progress, and a cancel arrives within a second
        default_heartbeat_throttle_interval=timedelta(seconds=1),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),  # workflow code fails over in 3 s, not in 10
        graceful_shutdown_timeout=GRACE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    try:
        async with worker:
            yield worker
    finally:
        await hosts.close()


async def run(*, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises TemporalUnavailable when Temporal does not answer at the start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await _connect(stop)
    if client is None:
        return
    async with serving(client):
        address = client.service_client.config.target_host
        log.info("polling %s at %s, namespace %s", TASK_QUEUE, address, client.namespace)
        if ready_file:
            await asyncio.to_thread(ready_file.write_text, f"{os.getpid()}\n")
        await stop.wait()
        log.info("draining: steps in progress are handed over, what runs on hosts runs on")
    log.info("stopped")


async def _connect(stop: asyncio.Event) -> Client | None:
    """A worker often starts beside its server: a few attempts before giving up."""
    for attempt in range(1, _CONNECT_ATTEMPTS + 1):
        try:
            return await connect(configured())
        except TemporalUnavailable as error:
            if attempt == _CONNECT_ATTEMPTS:
                raise
            log.warning("%s (attempt %d of %d)", error.what, attempt, _CONNECT_ATTEMPTS)
            try:
                await asyncio.wait_for(stop.wait(), timeout=attempt)
            except TimeoutError:
                continue
            return None
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `komodo-upgrade-worker`."""
    parser = argparse.ArgumentParser(
        prog="komodo-upgrade-worker",
        description="Runs Komodo upgrades. Stateless: start several, stop one with SIGTERM, lose one without loss.",
        epilog="Connection: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*, TEMPORAL_PROFILE, "
        "or temporal.toml, as for Temporal's own tools. Secrets of a fleet are resolved here: its variables, files and "
        "commands must exist where the worker runs. Exit codes: 0 stopped on request, 1 unexpected, 10 no Temporal.",
    )
    parser.add_argument("--log-format", choices=[logs.PLAIN, logs.JSON], default=logs.PLAIN)
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written once the worker polls")
    options = parser.parse_args(arguments)
    logs.set_up(options.log_format, level=options.log_level)
    # The context goes into fields of its own (service/logs.py), not into the text.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    try:
        asyncio.run(run(ready_file=options.ready_file))
    except UpgradeError as error:
        log.error("%s", error)  # noqa: TRY400 - an expected end: words, no traceback
        leave(error.exit_code)
    leave(0)


if __name__ == "__main__":
    main()
