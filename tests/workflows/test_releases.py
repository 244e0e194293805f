"""An upgrade that another release began: refused in words without Worker Versioning, finished by that release with it.

The other release is a copy of this project in which the workflow does one more thing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from model.errors import UpgradeError
from model.fleet.spec import workflow_id
from model.status import FleetResult, FleetState, UpgradeRequest
from service.connection import connect
from service.operation import versioning
from service.operation.pending import lines, pending
from service.upgrades import to_run
from tests.workflows.doubles import CHANGE, Doubles, fleet
from tests.workflows.driver import Talk
from worker import VERSIONED, WORKFLOWS

ROOT = Path(__file__).parent.parent.parent
COPIED = ("workflows", "service")
LINKED = ("activities", "hosts", "komodo", "model", "tests", "worker.py")
ADDED = "    async def _upgrade(self) -> None:\n"
Other = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture
def other(tmp_path: Path, real: WorkflowEnvironment) -> Other:
    """A worker of release 0.0.9; `format_`: of its histories."""
    address = real.client.service_client.config.target_host

    def replace(path: str, old: str, new: str) -> None:
        file = tmp_path / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "komodo_upgrade-0.0.9.dist-info").mkdir()
    (tmp_path / "komodo_upgrade-0.0.9.dist-info" / "METADATA").write_text("Name: komodo-upgrade\nVersion: 0.0.9\n")
    replace("workflows/upgrade_fleet.py", ADDED, f"{ADDED}        await workflow.sleep(0.01)\n")

    @contextlib.contextmanager
    def run(queue: str, begins: str = "", *, format_: int = 1, **environ: str) -> Iterator[None]:
        replace("service/operation/release.py", "HISTORY_FORMAT = 1\n", f"HISTORY_FORMAT = {format_}\n")
        replace("service/operation/release.py", "REPLAYED = (1,)", f"REPLAYED = ({format_},)")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workflows.release_worker", address, queue, begins],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), **environ},
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()
            replace("service/operation/release.py", f"HISTORY_FORMAT = {format_}\n", "HISTORY_FORMAT = 1\n")
            replace("service/operation/release.py", f"REPLAYED = ({format_},)", "REPLAYED = (1,)")

    return run


@pytest.fixture
async def client(real: WorkflowEnvironment) -> Client:
    return await connect({"target_host": real.client.service_client.config.target_host})


@asynccontextmanager
async def this_release(
    client: Client, queue: str, version: WorkerDeploymentVersion | None = None
) -> AsyncIterator[None]:
    async with Worker(
        client,
        task_queue=queue,
        workflows=VERSIONED if version else WORKFLOWS,
        activities=Doubles().activities(),
        workflow_runner=UnsandboxedWorkflowRunner(),
        deployment_config=versioning.config(version),
    ):
        yield


async def begun(client: Client, name: str) -> Talk:
    """The run that the other release begins, at its first gate."""
    handle = client.get_workflow_handle(workflow_id(name), result_type=FleetResult)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Exception):
                progress = await Talk(handle).progress()
                if progress.gate and progress.gate.id == "core":
                    return Talk(handle)
            await asyncio.sleep(0.2)


async def test_a_worker_of_another_release_refuses_the_run_and_status_names_the_right_one(
    client: Client, other: Other
) -> None:
    name = queue = f"release-{uuid.uuid4()}"
    with other(queue, name, format_=7):
        run = await begun(client, name)
        gate = await run.gate("core")
    async with this_release(client, queue):
        await run.decide("core", plan_digest=gate.plan_digest)
        async with asyncio.timeout(60):
            while True:
                found = await pending(client, workflow_id(name))
                if any(task.cause for task in found.tasks):
                    break
                await asyncio.sleep(0.2)
        release = (await to_run(await run.handle.describe())).release
    shown = "\n".join(lines(found, release))
    assert "release 0.0.9 began this run (history format 7); this worker is of release" in shown
    assert "start a worker of release 0.0.9, which began this run" in shown

    with other(queue, format_=7):
        assert (await run.result()).state is FleetState.UPGRADED


async def test_with_worker_versioning_the_release_that_began_a_run_finishes_it(client: Client, other: Other) -> None:
    name = queue = deployment = f"release-{uuid.uuid4()}"
    old = {versioning.DEPLOYMENT: deployment, versioning.BUILD: "old"}
    new = WorkerDeploymentVersion(deployment_name=deployment, build_id="new")
    with other(queue, name, format_=7, **old):
        run = await begun(client, name)
        async with this_release(client, queue, new):
            await versioning.make_current(client, new)
            request = UpgradeRequest(fleet=fleet(1), change=CHANGE, requested_by="ann")
            second = Talk(
                await client.start_workflow(
                    "UpgradeFleet",
                    request,
                    id=workflow_id(f"{name}-2"),
                    task_queue=queue,
                    result_type=FleetResult,
                )
            )
            for one, build in ((run, "old"), (second, "new")):
                await one.answer("core")
                assert (await one.result()).state is FleetState.UPGRADED
                info = (await one.handle.describe()).raw_description.workflow_execution_info
                assert info.versioning_info.deployment_version.build_id == build


def test_half_of_the_settings_for_worker_versioning_is_an_error() -> None:
    with pytest.raises(UpgradeError, match="TEMPORAL_WORKER_BUILD_ID is not set"):
        versioning.from_environment({versioning.DEPLOYMENT: "komodo-upgrade"})
    assert versioning.from_environment({}) is None
