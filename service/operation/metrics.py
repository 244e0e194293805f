"""Prometheus metrics of a worker: those of Temporal's SDK, and those of upgrades.

Every worker reports all running fleets, so a query over several workers takes the maximum: `max by (fleet, gate) (…)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from model.errors import UpgradeError
from model.status import FleetProgress, ServerState
from model.steps import CoreStarted, Proof, Switched
from service.client import Upgrade
from service.upgrades import Run, running

log = logging.getLogger("komodo_upgrade.worker")

EVERY = timedelta(seconds=30)
STEP = "komodo_upgrade_step_duration"
UNMANAGED = "komodo_upgrade_server_unmanaged"
PORT_DOWNTIME = "komodo_upgrade_port_downtime"
CORE_DOWNTIME = "komodo_upgrade_core_downtime"
_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
_BUCKETS = dict.fromkeys((STEP, UNMANAGED, PORT_DOWNTIME, CORE_DOWNTIME), _SECONDS)
LOOPBACK = "127.0.0.1"


def runtime(where: str) -> Runtime:
    """A runtime whose clients and workers are measured. `where`: PORT on loopback, or ADDRESS:PORT.

    Raises UpgradeError when nothing can listen there.
    """
    address = where if ":" in where else f"{LOOPBACK}:{where}"
    config = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=_BUCKETS,
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=config))
    except (RuntimeError, ValueError) as error:
        hint = "--metrics takes a port, or an address and a port, such as 9464 or 127.0.0.1:9464"
        raise UpgradeError(f"metrics cannot be served at {address}: {error}", hint=hint) from None


class StepMetrics(Interceptor):
    """Measures steps: how long each took from its first attempt on, and the downtimes that it reports."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Wrap one activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        result = await self.next.execute_activity(input)
        _record(STEP, "Duration of a step, from when it was first scheduled.", _since(activity.info().scheduled_time))
        if isinstance(result, Proof) and result.unmanaged:
            _record(UNMANAGED, "Core did not see a server for this long.", result.unmanaged)
        if isinstance(result, Switched):
            _record(PORT_DOWNTIME, "An agent's port did not answer for this long.", result.port_downtime)
        if isinstance(result, CoreStarted) and result.downtime:
            _record(CORE_DOWNTIME, "Core did not answer for this long.", result.downtime)
        return result


def _record(name: str, description: str, duration: timedelta) -> None:
    activity.metric_meter().create_histogram_timedelta(name, description, "duration").record(duration)


def _since(moment: datetime) -> timedelta:
    return max(timedelta(), datetime.now(UTC) - moment)


class Fleets:
    """Gauges of all running fleets: gates and their age, servers by state."""

    def __init__(self, client: Client, meter: MetricMeter) -> None:
        self._client = client
        self._runs = meter.create_gauge("komodo_upgrade_running", "1 while an upgrade or a rollback runs.")
        self._gates = meter.create_gauge("komodo_upgrade_gate_open", "1 while a gate waits for an answer.")
        self._ages = meter.create_gauge_float("komodo_upgrade_gate_age_seconds", "How long a gate is open; 0: closed.")
        self._servers = meter.create_gauge("komodo_upgrade_servers", "Servers of a running fleet by their state.")
        self._shown_runs: set[tuple[str, str]] = set()
        self._shown_gates: set[tuple[str, str]] = set()

    async def update(self) -> None:
        """Query every running fleet. One whose workflow does not answer keeps its last values. Raises RPCError."""
        runs = await running(self._client)
        progress = await asyncio.gather(*(self._progress(run) for run in runs))
        found = {(run.fleet, run.kind) for run in runs}
        for fleet, kind in found | self._shown_runs:
            self._runs.set(int((fleet, kind) in found), {"fleet": fleet, "kind": kind})
        for fleet in {fleet for fleet, _ in self._shown_runs} - {fleet for fleet, _ in found}:
            self._show_servers(fleet, Counter())
        self._shown_runs = found
        answered = [one for one in progress if one is not None]
        for one in answered:
            self._show_servers(one.fleet, Counter(server.state for server in one.servers))
        self._show_gates(answered)

    async def _progress(self, run: Run) -> FleetProgress | None:
        try:
            return await Upgrade(self._client, run.fleet).progress()
        except UpgradeError:
            return None

    def _show_servers(self, fleet: str, states: Counter[ServerState]) -> None:
        for state in ServerState:
            self._servers.set(states[state], {"fleet": fleet, "state": state.value})

    def _show_gates(self, progress: list[FleetProgress]) -> None:
        ages = {(one.fleet, one.gate.id): _since(one.gate.opened_at) for one in progress if one.gate}
        for fleet, gate in {*ages, *self._shown_gates}:
            labels = {"fleet": fleet, "gate": gate}
            self._gates.set(int((fleet, gate) in ages), labels)
            self._ages.set(ages.get((fleet, gate), timedelta()).total_seconds(), labels)
        self._shown_gates = set(ages)


@contextlib.asynccontextmanager
async def reported(client: Client, measured: Runtime | None) -> AsyncIterator[None]:
    """Update the gauges every 30 s, until the end of the block; nothing without a runtime."""
    if measured is None:
        yield
        return
    task = asyncio.create_task(_repeat(Fleets(client, measured.metric_meter)))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _repeat(fleets: Fleets) -> None:
    while True:
        try:
            await fleets.update()
        except RPCError as error:
            log.warning("the metrics of fleets are not updated: %s", error.message)
        await asyncio.sleep(EVERY.total_seconds())
