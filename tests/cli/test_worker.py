"""The worker's wiring, the boundary for errors, and what a drain does to a step in progress."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxRestrictions

from activities import registry
from activities.boundary import MESSAGE_LIMIT, Boundary, translate
from hosts.pool import Hosts
from model.errors import CommandFailed, CoreBusy, DiskFull, HostKeyUnknown, Unreachable, UpgradeError
from service import logs
from service.connection import connect
from service.state import Running
from worker import WORKFLOWS

ROOT = Path(__file__).parent.parent.parent


# --- wiring -----------------------------------------------------------------------------------------------------------


def test_every_activity_that_a_workflow_names_is_registered_once() -> None:
    names = sorted(registry.name_of(method) for method in registry.build(Hosts()))
    assert names == sorted(registry.NAMES)
    assert registry.missing([]) == list(registry.NAMES)


def test_workflows_call_no_activity_beside_the_registry() -> None:
    called = {
        node.value
        for node in ast.walk(ast.parse((ROOT / "workflows" / "steps.py").read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in registry.NAMES
    }
    assert called == set(registry.NAMES)


def test_all_workflows_of_the_room_are_served() -> None:
    defined = set()
    for file in (ROOT / "workflows").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and any("defn" in ast.unparse(d) for d in node.decorator_list):
                defined.add(node.name)
    assert {kind.__name__ for kind in WORKFLOWS} == defined


async def test_the_sandbox_lets_nothing_through_by_accident(service: Running) -> None:
    """Construction fails when a workflow imports a module that it should have named as passed through."""
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

    raising = SandboxRestrictions.default.with_passthrough_modules("model").with_import_notification_policy(
        workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
    )
    client = await connect({"target_host": service.address})
    Worker(
        client,
        task_queue="never-polled",
        workflows=WORKFLOWS,
        workflow_runner=SandboxedWorkflowRunner(restrictions=raising),
    )


def test_without_temporal_the_worker_ends_with_10_and_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import worker, asyncio\nworker._CONNECT_ATTEMPTS = 1\nworker.main(['--log-format', 'json'])"
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 10
    entry = json.loads(done.stderr.splitlines()[-1])
    assert "no Temporal server answers at 127.0.0.1:1" in entry["message"]
    assert "exception" not in entry


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_transient_is_retried_and_what_is_not_is_not() -> None:
    assert translate(Unreachable("no route", host="web-1")).non_retryable is False
    full = translate(DiskFull("no space in /var", host="web-1", left="nothing", cure="free 300 MB"))
    assert full.non_retryable is True
    assert full.type == "DiskFull"
    assert full.message == "web-1: no space in /var\n  left behind: nothing\n  next: free 300 MB"


def test_cores_own_delay_is_the_next_retry() -> None:
    assert translate(CoreBusy("slow down", retry_after=timedelta(seconds=17))).next_retry_delay == timedelta(seconds=17)


def test_details_carry_what_commands_show_and_are_clipped() -> None:
    failed = translate(CommandFailed("x" * 50_000, code=3, tail="y" * 50_000, host="h"))
    assert len(failed.message) == MESSAGE_LIMIT
    details = failed.details[0]
    assert details["code"] == 3
    assert len(details["tail"]) == MESSAGE_LIMIT // 2
    assert translate(HostKeyUnknown("new", fingerprint="SHA256:abc")).details[0]["fingerprint"] == "SHA256:abc"


class _Steps:
    """Activities that end in every way there is."""

    def __init__(self) -> None:
        self.attempts = 0
        self.cancelled = asyncio.Event()
        self.running = asyncio.Event()

    @activity.defn
    async def refused(self) -> None:
        try:
            raise ValueError("password=hunter2")
        except ValueError as cause:
            raise DiskFull("no space", host="web-1") from cause

    @activity.defn
    async def flaky(self) -> str:
        self.attempts += 1
        if self.attempts < 3:
            raise Unreachable("link lost", host="web-1")
        return f"attempt {self.attempts}"

    @activity.defn
    async def long(self) -> str:
        self.attempts += 1
        self.running.set()
        if self.attempts > 1:
            return f"attempt {self.attempts}"
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@workflow.defn
class _Story:
    @workflow.run
    async def run(self, name: str) -> str | None:
        answer: str | None = await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=5),
        )
        return answer


@pytest.fixture
async def client(service: Running) -> Client:
    return await connect({"target_host": service.address})


def _worker(client: Client, steps: _Steps, queue: str) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[_Story],
        activities=[steps.refused, steps.flaky, steps.long],
        interceptors=[Boundary()],
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=timedelta(seconds=30),
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    )


async def test_a_permanent_error_arrives_once_with_our_words_and_no_cause(client: Client) -> None:
    async with _worker(client, _Steps(), "boundary-1"):
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow(_Story.run, "refused", id="boundary-refused", task_queue="boundary-1")
    error = caught.value.cause
    assert isinstance(error, ActivityError)
    assert isinstance(error.cause, ApplicationError)
    assert (error.cause.type, error.cause.message) == ("DiskFull", "web-1: no space")
    history = await client.get_workflow_handle("boundary-refused").fetch_history()
    stored = b"".join(event.SerializeToString() for event in history.events)
    assert b"web-1: no space" in stored
    assert b"hunter2" not in stored


async def test_a_transient_error_is_tried_again(client: Client) -> None:
    async with _worker(client, _Steps(), "boundary-2"):
        answer = await client.execute_workflow(_Story.run, "flaky", id="boundary-flaky", task_queue="boundary-2")
    assert answer == "attempt 3"


async def test_a_worker_that_is_stopped_hands_a_long_step_over(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the 30 s of its grace, but as soon as it was told."""
    monkeypatch.setattr("activities.boundary.SHUTDOWN_GRACE", timedelta(milliseconds=200))
    steps = _Steps()
    began = time.monotonic()
    async with _worker(client, steps, "boundary-3"):
        handle = await client.start_workflow(_Story.run, "long", id="boundary-long", task_queue="boundary-3")
        await asyncio.wait_for(steps.running.wait(), 20)
    assert steps.cancelled.is_set()
    assert time.monotonic() - began < 20
    other = await connect({"target_host": client.service_client.config.target_host})
    async with _worker(other, steps, "boundary-3"):
        assert await handle.result() == "attempt 2"


async def test_a_cancel_reaches_the_step(client: Client) -> None:
    steps = _Steps()
    async with _worker(client, steps, "boundary-4"):
        handle = await client.start_workflow(_Story.run, "long", id="boundary-cancel", task_queue="boundary-4")
        await asyncio.wait_for(steps.running.wait(), 20)
        await handle.cancel()
        await asyncio.wait_for(steps.cancelled.wait(), 20)
        with pytest.raises(WorkflowFailureError):
            await handle.result()


async def test_a_bug_keeps_its_own_type() -> None:
    """A programming error is no message for people: it stays what it is, and Temporal retries it."""
    from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

    class Next(ActivityInboundInterceptor):
        def __init__(self) -> None: ...

        async def execute_activity(self, input: ExecuteActivityInput) -> None:  # noqa: A002 - the SDK's name
            raise KeyError("bug")

    @activity.defn
    async def body() -> None:
        inbound = Boundary().intercept_activity(Next())
        await inbound.execute_activity(ExecuteActivityInput(fn=body, args=[], executor=None, headers={}))

    with pytest.raises(KeyError):
        await ActivityEnvironment().run(body)


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("root_logger")
def test_json_lines_carry_the_context_as_fields() -> None:
    stream = io.StringIO()
    logs.set_up(logs.JSON, stream=stream)
    extra = {
        "temporal_activity": {"activity_type": "switch_server", "attempt": 2, "workflow_id": "w", "task_token": b"x"}
    }
    logging.getLogger("x").info("line\nwith a break", extra=extra)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert entry["message"] == "line\nwith a break"
    assert (entry["activity_type"], entry["attempt"], entry["workflow_id"]) == ("switch_server", 2, "w")
    assert "task_token" not in entry


@pytest.mark.usefixtures("root_logger")
def test_plain_lines_end_with_the_context() -> None:
    stream = io.StringIO()
    logs.set_up(logs.PLAIN, stream=stream)
    logging.getLogger("x").warning("slow", extra={"temporal_workflow": {"workflow_id": "komodo-upgrade/prod"}})
    assert stream.getvalue().rstrip().endswith("WARNING slow  [workflow_id=komodo-upgrade/prod]")


@pytest.mark.usefixtures("root_logger")
def test_a_steps_own_error_is_told_in_its_words_any_other_with_its_traceback() -> None:
    stream = io.StringIO()
    logs.set_up(logs.PLAIN, stream=stream)
    for error in (Unreachable("no route to host", host="nas", cure="ssh ops@nas"), ZeroDivisionError("oops")):
        try:
            if isinstance(error, UpgradeError):
                raise translate(error) from None
            raise error
        except Exception:
            logging.getLogger("x").warning("failed", exc_info=True)
    ours, other = stream.getvalue().split("WARNING failed\n")[1:]
    assert ours.startswith("nas: no route to host\n")
    assert "ssh ops@nas" in ours
    assert "Traceback" not in ours
    assert "Traceback" in other


def test_the_error_of_a_worker_that_lacks_activities_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import worker

    monkeypatch.setattr(registry, "build", lambda hosts: [])

    async def serve() -> None:
        async with worker.serving(None):  # type: ignore[arg-type]
            pass

    with pytest.raises(UpgradeError, match="lacks activities: survey_core, survey_server"):
        asyncio.run(serve())
