"""komodo-upgrade-worker: runs the workflows and the activities. Stateless; start as many as you like.

Temporal is configured by its own settings: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, … or temporal.toml.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.runtime import Runtime
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities import registry
from activities.interceptor import Boundary
from hosts.policy import install
from hosts.ssh.pool import Hosts
from model.errors import TemporalUnavailable, UpgradeError
from model.fleet.spec import TASK_QUEUE
from service import logs, policy, version
from service.codec.binding import BoundRunner, OneRun, is_encrypting
from service.connection import configured, connect, worker_identity
from service.operation import health, metrics, search_attributes, versioning
from service.operation.metrics import StepMetrics
from service.process_exit import leave
from workflows.check_fleet import CheckFleet
from workflows.discover_fleet import FindFleetAgents, ListFleet
from workflows.find_returned import FindReturned
from workflows.rollback_fleet import RollbackFleet
from workflows.runtime.sandbox import sandboxed_runner
from workflows.scan_run_folders import CleanFleet, ScanRunFolders
from workflows.send_notice import SendNotice
from workflows.server_page import ServerPage
from workflows.upgrade_fleet import UpgradeFleet
from workflows.upgrade_server import UpgradeServer
from workflows.watch_fleet import MovingWatchFleet, WatchFleet

log = logging.getLogger("komodo_upgrade.worker")

WORKFLOWS: tuple[type, ...] = (
    CheckFleet,
    UpgradeFleet,
    UpgradeServer,
    ServerPage,
    FindReturned,
    RollbackFleet,
    ScanRunFolders,
    CleanFleet,
    ListFleet,
    FindFleetAgents,
    SendNotice,
    WatchFleet,
)
VERSIONED: tuple[type, ...] = (*WORKFLOWS[:-1], MovingWatchFleet)
"""Of workers with Worker Versioning."""

GRACE = timedelta(seconds=30)
"""From SIGTERM until activities are cancelled; whoever stops the worker waits longer (deploy/: 45 s)."""
LONGEST_TASK_SECONDS = 8
"""Of the 10 s after which Temporal gives a workflow task to another worker."""
_CONNECT_ATTEMPTS = 5


@asynccontextmanager
async def serving(
    client: Client, *, task_queue: str = TASK_QUEUE, version: WorkerDeploymentVersion | None = None
) -> AsyncIterator[Worker]:
    """A running worker; leaving the block drains it. Raises UpgradeError when an activity breaks its contract."""
    hosts = Hosts()
    activities = registry.build(hosts)
    encrypting = is_encrypting(client)
    runner = sandboxed_runner()
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=VERSIONED if version else WORKFLOWS,
        activities=activities,
        interceptors=[StepMetrics(), Boundary(), *([OneRun()] if encrypting else [])],
        workflow_runner=BoundRunner(restrictions=runner.restrictions) if encrypting else runner,
        max_concurrent_activities=50,  # SSH sessions of one worker
        max_heartbeat_throttle_interval=timedelta(seconds=1),  # fresh progress, and a cancel arrives within a second
        default_heartbeat_throttle_interval=timedelta(seconds=1),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),  # workflow code fails over in 3 s, not in 10
        graceful_shutdown_timeout=GRACE,
        deployment_config=versioning.config(version),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    _allow_slow_tasks(worker)
    try:
        async with worker:
            yield worker
    finally:
        await hosts.close()


def _allow_slow_tasks(worker: Worker) -> None:
    """Raise the time after which a workflow task counts as a deadlock from the SDK's 2 s of wall time.

    On a busy machine, reading the results of a page took longer, and each such failure replays the whole run. The SDK
    has no setting for it; without the attribute the worker does not start, so a new SDK is noticed.
    """
    inner = worker._workflow_worker
    if inner is not None and inner._deadlock_timeout_seconds is not None:
        inner._deadlock_timeout_seconds = LONGEST_TASK_SECONDS


async def run(*, ready_file: Path | None = None, make_current: bool = False, metrics_at: str = "") -> None:
    """Serve until SIGTERM or SIGINT. Raises TemporalUnavailable when Temporal does not answer at the start."""
    version = versioning.from_environment()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    measured = metrics.runtime(metrics_at) if metrics_at else None
    client = await _connect(stop, measured)
    if client is None:
        return
    encrypting = is_encrypting(client)
    install(policy.of_worker(encrypting=encrypting))
    if warning := policy.warning(encrypting=encrypting):
        log.warning("%s", warning)
    async with serving(client, version=version):
        address = client.service_client.config.target_host
        log.info("polling %s at %s, namespace %s", TASK_QUEUE, address, client.namespace)
        if version:
            log.info("as build %s of deployment %s", version.build_id, version.deployment_name)
        if version and make_current:
            await versioning.make_current(client, version)
            log.info("new runs use this build")
        async with health.reported(client, ready_file), metrics.reported(client, measured):
            await stop.wait()
        log.info("draining: steps in progress are handed over, what runs on hosts runs on")
    log.info("stopped")


async def set_up() -> None:
    """Register search attributes in the namespace. Raises UpgradeError."""
    client = await connect(configured())
    new = await search_attributes.register(client)
    log.info("namespace %s: search attributes %s", client.namespace, ", ".join(new) if new else "are all registered")


async def _connect(stop: asyncio.Event, measured: Runtime | None) -> Client | None:
    """A worker often starts together with its server: a few attempts before giving up."""
    for attempt in range(1, _CONNECT_ATTEMPTS + 1):
        try:
            return await connect({"identity": worker_identity(), "runtime": measured, **configured()})
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


def parser() -> argparse.ArgumentParser:
    """The options of `komodo-upgrade-worker`."""
    parser = argparse.ArgumentParser(
        prog="komodo-upgrade-worker",
        description="Runs Komodo upgrades. Stateless: start several, stop one with SIGTERM, lose one without loss.",
        epilog="Connection: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*, TEMPORAL_PROFILE, "
        "or temporal.toml, as for Temporal's own tools. Secrets of a fleet are resolved here: its variables, files and "
        "commands must exist where the worker runs. Exit codes: 0 stopped on request, 1 unexpected, 10 no Temporal.",
    )
    parser.add_argument("--log-format", choices=[logs.PLAIN, logs.JSON], default=logs.PLAIN)
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="PATH",
        help="written every 10 s while the worker runs: its pid, and whether Temporal answers; removed at the end",
    )
    parser.add_argument(
        "--metrics",
        metavar="[ADDRESS:]PORT",
        default="",
        help="serve Prometheus metrics there (/metrics); without an address on 127.0.0.1",
    )
    parser.add_argument(
        "--setup",
        action="store_true",
        help="register the search attributes that `komodo-upgrade list` shows, and exit; safe to repeat",
    )
    parser.add_argument(
        "--make-current",
        action="store_true",
        help=f"once it polls, let new runs use this build; with {versioning.DEPLOYMENT} and {versioning.BUILD}",
    )
    parser.add_argument("--version", action="store_true", help="show the release and exit")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `komodo-upgrade-worker`."""
    options = parser().parse_args(arguments)
    if options.version:
        print(version.describe("komodo-upgrade-worker"))
        return
    logs.set_up(options.log_format, level=options.log_level)
    # The context goes into fields of its own (service/logs.py), not into the text.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    try:
        if options.setup:
            asyncio.run(set_up())
            leave(0)
        asyncio.run(run(ready_file=options.ready_file, make_current=options.make_current, metrics_at=options.metrics))
    except UpgradeError as error:
        log.error("%s", error)  # noqa: TRY400 - an expected end: words, no traceback
        leave(error.exit_code)
    leave(0)


if __name__ == "__main__":
    main()
