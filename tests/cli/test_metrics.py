"""Prometheus metrics on a loopback port, as a scraper reads them."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from model.errors import UpgradeError
from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, workflow_id
from model.status import UpgradeRequest
from model.steps import Proof
from service.connection import connect
from service.embedded.state import Running
from service.operation import metrics
from service.requests import new_change


@activity.defn(name="verify_server")
async def verify() -> Proof:
    return Proof(by_core=True, line="login", confirmed_at=datetime.now(UTC), unmanaged=timedelta(seconds=7))


@workflow.defn(name="Verifying")
class Verifying:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("verify_server", start_to_close_timeout=timedelta(minutes=1))


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def scrape(at: int) -> list[str]:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{at}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return (await asyncio.to_thread(read)).splitlines()


def value(lines: list[str], name: str, *labels: str) -> float:
    [found] = [line for line in lines if line.split("{")[0] == name and all(label in line for label in labels)]
    return float(found.rsplit(" ", 1)[1])


async def test_gates_servers_and_durations_are_measured(
    service: Running, fleet: Callable[..., Path], fleet_name: str
) -> None:
    at = port()
    client = await connect({"target_host": service.address, "runtime": metrics.runtime(str(at))})
    request = UpgradeRequest(fleet=load(str(fleet("web-1", "web-2"))), change=new_change(), requested_by="ann")
    name = workflow_id(fleet_name)
    run = await client.start_workflow("UpgradeFleet", request, id=name, task_queue=TASK_QUEUE)
    fleets = metrics.Fleets(client, client.service_client.config.runtime.metric_meter)  # type: ignore[union-attr]
    here, gate = f'fleet="{fleet_name}"', 'gate="core"'
    async with asyncio.timeout(60):
        while True:
            await fleets.update()
            lines = await scrape(at)
            if any(line.startswith("komodo_upgrade_gate_open") and here in line for line in lines):
                break
            await asyncio.sleep(0.2)
    assert value(lines, "komodo_upgrade_gate_open", here, gate) == 1
    assert value(lines, "komodo_upgrade_gate_age_seconds", here, gate) > 0
    assert value(lines, "komodo_upgrade_servers", here, 'state="pending"') == 2
    assert value(lines, "komodo_upgrade_running", here, 'kind="upgrade"') == 1

    await run.terminate()
    async with asyncio.timeout(60):
        while True:
            await fleets.update()
            lines = await scrape(at)
            if value(lines, "komodo_upgrade_running", here) == 0:
                break
            await asyncio.sleep(0.2)
    assert value(lines, "komodo_upgrade_gate_open", here, gate) == 0
    assert value(lines, "komodo_upgrade_servers", here, 'state="pending"') == 0

    queue = f"metrics-{uuid.uuid4()}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Verifying],
        activities=[verify],
        interceptors=[metrics.StepMetrics()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await client.execute_workflow("Verifying", id=queue, task_queue=queue)
    lines = await scrape(at)
    step = 'activity_type="verify_server"'
    assert value(lines, "komodo_upgrade_step_duration_seconds_count", step) == 1
    assert value(lines, "komodo_upgrade_server_unmanaged_seconds_sum", step) == 7
    assert value(lines, "komodo_upgrade_server_unmanaged_seconds_bucket", step, 'le="5"') == 0
    assert value(lines, "komodo_upgrade_server_unmanaged_seconds_bucket", step, 'le="10"') == 1
    assert any(line.startswith("temporal_workflow_endtoend_latency_seconds") for line in lines)


def test_a_port_that_is_taken_is_an_error_with_a_hint() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UpgradeError, match="metrics cannot be served at 127"):
            metrics.runtime(str(taken.getsockname()[1]))
