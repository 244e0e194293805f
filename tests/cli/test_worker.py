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
from click.testing import CliRunner
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import worker
from activities import registry
from activities.interceptor import MESSAGE_LIMIT, Boundary, translate
from cli.app import cli
from hosts.ssh.pool import Hosts
from model.errors import CommandFailed, CoreBusy, DiskFull, HostKeyUnknown, Unreachable, UpgradeError
from service import logs
from service.connection import connect
from service.embedded.state import Running
from service.version import describe, release

ROOT = Path(__file__).parent.parent.parent


# --- wiring -----------------------------------------------------------------------------------------------------------


def test_the_worker_compares_its_activities_with_the_contracts() -> None:
    methods = registry.build(Hosts())
    assert registry.mismatches(methods) == []

    @activity.defn(name="stop_core")
    async def other(message: str) -> str:
        return message

    others = [m for m in methods if m.__name__ not in ("stop_core", "notify")]
    assert registry.mismatches([*others, other]) == [
        "activity notify is missing",
        "activity stop_core takes and returns other types than its contract",
    ]


def test_all_workflows_of_the_package_are_served() -> None:
    defined = set()
    for file in (ROOT / "workflows").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and any("defn" in ast.unparse(d) for d in node.decorator_list):
                defined.add(node.name)
    assert {kind.__name__ for kind in (*worker.WORKFLOWS, *worker.VERSIONED)} == defined
    assert len(worker.WORKFLOWS) == len(worker.VERSIONED) == len(defined) - 1


@pytest.mark.usefixtures("root_logger")
def test_without_temporal_the_worker_ends_with_10_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(worker, "_CONNECT_ATTEMPTS", 1)
    monkeypatch.setattr(worker, "leave", sys.exit)
    with pytest.raises(SystemExit) as ended:
        worker.main(["--log-format", "json"])
    assert ended.value.code == 10
    entry = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert "no Temporal server answers at 127.0.0.1:1" in entry["message"]
    assert "exception" not in entry


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_transient_is_retried_and_what_is_not_is_not() -> None:
    assert translate(Unreachable("no route", host="web-1")).non_retryable is False
    full = translate(DiskFull("no space in /var", host="web-1", residue="nothing", hint="free 300 MB"))
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
    assert b"web-1: no space" not in stored, "words of failures are encrypted"
    assert b"hunter2" not in stored


async def test_a_transient_error_is_tried_again(client: Client) -> None:
    async with _worker(client, _Steps(), "boundary-2"):
        answer = await client.execute_workflow(_Story.run, "flaky", id="boundary-flaky", task_queue="boundary-2")
    assert answer == "attempt 3"


async def test_a_worker_that_is_stopped_hands_a_long_step_over(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the 30 s of its grace, but as soon as it was asked to."""
    monkeypatch.setattr("activities.interceptor.SHUTDOWN_GRACE", timedelta(milliseconds=200))
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


@pytest.mark.parametrize("bug", [KeyError("hunter2"), ValueError("hunter2"), RecursionError("hunter2")])
async def test_a_bug_is_reported_once_without_its_text(bug: Exception) -> None:
    """Retrying it would hide it for as long as the retries last, and its text may repeat a secret."""
    from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

    class Next(ActivityInboundInterceptor):
        def __init__(self) -> None: ...

        async def execute_activity(self, input: ExecuteActivityInput) -> None:  # noqa: A002 - the SDK's name
            raise bug

    @activity.defn
    async def body() -> None:
        inbound = Boundary().intercept_activity(Next())
        await inbound.execute_activity(ExecuteActivityInput(fn=body, args=[], executor=None, headers={}))

    with pytest.raises(ApplicationError, match="bug in komodo-upgrade: report it") as caught:
        await ActivityEnvironment().run(body)
    assert (caught.value.type, caught.value.non_retryable) == ("InternalError", True)
    assert f"{type(bug).__name__} in tests/cli/test_worker.py:" in caught.value.message
    assert "hunter2" not in str(caught.value)


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
@pytest.mark.parametrize("kind", [logs.JSON, logs.PLAIN])
def test_fields_of_a_call_are_written_and_bounded(kind: str) -> None:
    stream = io.StringIO()
    logs.set_up(kind, stream=stream)
    extra = {"step": "restore web-1", "attempt": 3, "time": "never", "tail": "x" * 10_000}
    logging.getLogger("x").error("an undo failed for good", extra=extra)
    line = stream.getvalue()
    assert len(line) < 2_500
    if kind == logs.JSON:
        entry = json.loads(line)
        assert (entry["step"], entry["attempt"], entry["message"]) == ("restore web-1", 3, "an undo failed for good")
        assert entry["time"] != "never"
    else:
        assert "an undo failed for good  [step=restore web-1, attempt=3, time=never, tail=xxx" in line


def test_each_worker_process_has_an_identity_of_its_own() -> None:
    show = "from service.connection import worker_identity; print(worker_identity())"
    one, two = (subprocess.check_output([sys.executable, "-c", show], cwd=ROOT, text=True) for _ in range(2))
    assert one != two
    assert one.startswith("komodo-upgrade-worker:")


def test_both_commands_print_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    worker.main(["--version"])
    assert capsys.readouterr().out == f"{describe('komodo-upgrade-worker')}\n"
    assert CliRunner().invoke(cli, ["--version"]).output == f"{describe('komodo-upgrade')}\n"
    assert release() in describe("komodo-upgrade")


@pytest.mark.usefixtures("root_logger")
def test_plain_lines_end_with_the_context() -> None:
    stream = io.StringIO()
    logs.set_up(logs.PLAIN, stream=stream)
    logging.getLogger("x").warning("slow", extra={"temporal_workflow": {"workflow_id": "komodo-upgrade/prod"}})
    assert stream.getvalue().rstrip().endswith("WARNING slow  [workflow_id=komodo-upgrade/prod]")


@pytest.mark.usefixtures("root_logger")
def test_a_steps_own_error_is_logged_as_text_any_other_with_its_traceback() -> None:
    stream = io.StringIO()
    logs.set_up(logs.PLAIN, stream=stream)
    for error in (Unreachable("no route to host", host="nas", hint="ssh ops@nas"), ZeroDivisionError("oops")):
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
    monkeypatch.setattr(registry, "SUBJECTS", ())

    async def serve() -> None:
        async with worker.serving(None):  # type: ignore[arg-type]
            pass

    with pytest.raises(UpgradeError, match="activity survey_core is missing; activity survey_server is missing"):
        asyncio.run(serve())
