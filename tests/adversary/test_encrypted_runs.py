"""A whole upgrade with encrypted payloads, and one who records what Temporal holds and sends it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.worker import Replayer, Worker

from model.errors import NotAccepted
from model.gates import Control, ControlVerb, Decision, Verdict
from model.status import FleetState
from service.client import Upgrade
from service.codec import key_ring
from service.codec.binding import BoundRunner, OneRun, encrypted
from service.codec.server import CodecServer
from service.embedded.server import binary
from tests.adversary.forged import QUEUE as THEIRS
from tests.adversary.forged import Forged
from tests.workflows.doubles import Doubles, broken, fleet
from tests.workflows.driver import QUEUE, Driver, LocalServer, Talk
from worker import WORKFLOWS
from workflows.runtime.sandbox import sandboxed_runner

ROOT = Path(__file__).parent.parent.parent
PROD = "komodo-upgrade/prod"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    local = LocalServer()
    try:
        yield local
    finally:
        local.stop()


@pytest.fixture
def ring(tmp_path: Path) -> key_ring.KeyRing:
    tmp_path.chmod(0o700)
    return key_ring.create(tmp_path / "key-ring")


@asynccontextmanager
async def encrypting_worker(
    server: LocalServer, ring: key_ring.KeyRing, doubles: Doubles, *, cached: int = 100
) -> AsyncIterator[Driver]:
    async with server.connect() as env:
        address = env.client.service_client.config.target_host
        client = await Client.connect(address, data_converter=encrypted(ring))
        worker = Worker(
            client,
            task_queue=QUEUE,
            workflows=WORKFLOWS,
            activities=doubles.activities(),
            workflow_runner=BoundRunner(restrictions=sandboxed_runner().restrictions),
            interceptors=[OneRun()],
            max_cached_workflows=cached,
        )
        async with worker:
            driver = Driver(env, doubles)
            driver.client = client
            yield driver


@pytest.fixture
async def run(server: LocalServer, ring: key_ring.KeyRing) -> AsyncIterator[Driver]:
    async with encrypting_worker(server, ring, Doubles()) as driver:
        yield driver


@pytest.fixture
def adversary(run: Driver) -> Client:
    """Knows the address and the source, not the key."""
    return run.env.client


async def _events(client: Client, workflow_id: str) -> list[HistoryEvent]:
    return [event async for event in client.get_workflow_handle(workflow_id).fetch_history_events()]


async def _recorded_signal(client: Client) -> Payload:
    [first, *_] = [
        event.workflow_execution_signaled_event_attributes.input.payloads[0]
        for event in await _events(client, PROD)
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    return first


async def test_an_upgrade_runs_and_no_word_of_it_is_stored_in_the_clear(run: Driver, adversary: Client) -> None:
    talk = await run.upgrade(fleet(3))
    for gate in ("core", "wave/2", "wave/3"):
        await talk.answer(gate)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    for name in (PROD, f"{PROD}/web-1/1"):
        history = await adversary.get_workflow_handle(name).fetch_history()
        for payload in _payloads(history):
            assert payload.metadata["encoding"] == b"binary/encrypted", payload
    described = await adversary.get_workflow_handle(PROD).describe()
    assert "web-1" not in str(described.raw_description)


def _payloads(message: Any) -> Iterator[Payload]:
    """Every payload anywhere in a protobuf message."""
    if isinstance(message, Payload):
        yield message
        return
    if hasattr(message, "events"):
        for event in message.events:
            yield from _payloads(event)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [v for v in value.values() if hasattr(v, "ListFields")]
        else:
            values = list(value) if field.is_repeated else [value]
        for item in values:
            yield from _payloads(item)


async def test_an_encrypted_history_replays(run: Driver, ring: key_ring.KeyRing) -> None:
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    await talk.control(ControlVerb.PAUSE)
    await talk.control(ControlVerb.RESUME)
    await talk.answer("wave/2")
    await talk.result()
    replayer = Replayer(
        workflows=WORKFLOWS,
        namespace="default",  # payloads are bound to it
        data_converter=encrypted(ring),
        workflow_runner=BoundRunner(restrictions=sandboxed_runner().restrictions),
    )
    for name in (PROD, f"{PROD}/web-1/1"):
        await replayer.replay_workflow(await run.client.get_workflow_handle(name).fetch_history())


async def test_a_recorded_decision_counts_once_and_in_its_run_only(run: Driver, adversary: Client) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.control(ControlVerb.PAUSE, reason="first")
    await talk.until(lambda p: p.paused, "paused")
    recorded = RawValue(await _recorded_signal(adversary))
    await talk.control(ControlVerb.RESUME)
    await adversary.get_workflow_handle(PROD).signal("control", recorded)
    progress = await talk.until(lambda p: any("received before" in w for w in p.warnings), "refused")
    assert not progress.paused
    with pytest.raises(WorkflowUpdateFailedError):
        await adversary.get_workflow_handle(PROD).execute_update("control", recorded)
    gate = await talk.answer("core")
    approval = [RawValue(p) for p in await _signals(adversary)][-1]
    await talk.result()
    await asyncio.sleep(1.1)

    again = await run.upgrade(fleet(1), change="20261202T000000Z")
    opened = await again.gate("core")
    assert opened.plan_digest == gate.plan_digest, "the same plan: the digest alone would not tell the runs apart"
    await adversary.get_workflow_handle(PROD).signal("decide", approval)
    progress = await again.until(lambda p: any("before this run began" in w for w in p.warnings), "refused")
    assert progress.gate
    assert not progress.decisions


async def _signals(client: Client) -> list[Payload]:
    return [
        event.workflow_execution_signaled_event_attributes.input.payloads[0]
        for event in await _events(client, PROD)
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]


async def test_an_early_message_is_not_kept_for_its_gate(run: Driver, adversary: Client) -> None:
    """Refused when it came, recorded, and sent again when the gate is open."""
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    await talk.decide("wave/2")
    await talk.until(lambda p: any("is not open" in w for w in p.warnings), "refused")
    early = RawValue((await _signals(adversary))[-1])
    await talk.answer("core")
    await talk.gate("wave/2")
    await adversary.get_workflow_handle(PROD).signal("decide", early)
    await talk.until(lambda p: any("received before" in w for w in p.warnings), "refused")
    assert [r.decision.gate for r in (await talk.progress()).decisions] == ["core"]


async def test_messages_of_the_adversary_change_nothing(run: Driver, adversary: Client) -> None:
    talk = await run.upgrade(fleet(1))
    gate = await talk.gate("core")
    decision = Decision(gate="core", verdict=Verdict.APPROVE, actor="alice", plan_digest=gate.plan_digest)
    theirs = Talk(adversary.get_workflow_handle(PROD))
    await theirs.handle.signal("decide", decision)
    await theirs.handle.signal("control", Control(verb=ControlVerb.STOP, actor="alice"))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await theirs.handle.execute_update("decide", decision)
    assert "alice" not in str(refused.value.cause)
    progress = await talk.until(lambda p: len(p.warnings) >= 2, "refused")
    assert all("not authentic" in warning for warning in progress.warnings[-2:])
    with pytest.raises(Exception, match="encoding") as unread:
        await theirs.progress()
    assert "web-1" not in str(unread.value)
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_a_servers_upgrade_is_started_by_its_fleet_only(run: Driver, adversary: Client) -> None:
    """The recorded input of a child, started again by hand: it would switch a server that nobody approved."""
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.result()
    child = f"{PROD}/web-1/1"
    started = (await _events(adversary, child))[0].workflow_execution_started_event_attributes
    recorded = RawValue(started.input.payloads[0])
    before = run.doubles.count("switch_server")
    again = await adversary.start_workflow("UpgradeServer", recorded, id=child, task_queue=QUEUE)
    with pytest.raises(WorkflowFailureError) as failed:
        await run.client.get_workflow_handle(again.id).result()
    assert "another run made it" in str(failed.value.cause)
    assert run.doubles.count("switch_server") == before


async def test_a_step_with_the_input_of_another_run_is_not_run(run: Driver, adversary: Client) -> None:
    """A workflow of the adversary's own worker, with the fleet's id, schedules a recorded step."""
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.result()
    [recorded, *_] = [
        event.activity_task_scheduled_event_attributes.input.payloads[0]
        for event in await _events(adversary, PROD)
        if event.activity_task_scheduled_event_attributes.activity_type.name == "stop_core"
    ]
    before = run.doubles.count("stop_core")
    async with Worker(adversary, task_queue=THEIRS, workflows=[Forged], debug_mode=True):
        handle = await adversary.start_workflow(
            "Forged", args=["stop_core", QUEUE, RawValue(recorded)], id=PROD, task_queue=THEIRS,
            execution_timeout=timedelta(seconds=20),
        )  # fmt: skip
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert run.doubles.count("stop_core") == before


async def test_a_forged_result_of_a_step_ends_the_run(run: Driver, adversary: Client) -> None:
    """`temporal activity complete`: it ends the run, as a terminate does, and is not taken for a survey."""
    hold = run.doubles.hold("survey_core", "core")
    talk = await run.upgrade(fleet(1))
    await hold.begun.wait()
    [activity_id] = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in await _events(adversary, PROD)
        if event.activity_task_scheduled_event_attributes.activity_type.name == "survey_core"
    ]
    await adversary.get_async_activity_handle(workflow_id=PROD, run_id=None, activity_id=activity_id).complete({})
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(talk.handle.result(), 20)
    assert "not authentic" in str(failed.value.cause)
    hold.go.set()


async def test_the_owner_is_answered_by_the_commands_client(run: Driver) -> None:
    """`approve` names the run; a second answer learns of the first."""
    talk = await run.upgrade(fleet(2))
    gate = await talk.gate("core")
    upgrade = Upgrade(run.client, "prod")
    decision = Decision(gate="core", verdict=Verdict.APPROVE, actor="ann", plan_digest=gate.plan_digest)
    assert (await upgrade.decide(decision)).recorded
    await talk.gate("wave/2")
    with pytest.raises(NotAccepted, match="not open"):
        await upgrade.decide(Decision(gate="wave/9", verdict=Verdict.APPROVE, actor="bob"))


async def test_failures_tell_nothing_to_others(server: LocalServer, ring: key_ring.KeyRing) -> None:
    doubles = Doubles()
    doubles.play("survey_core", "core", broken("CommandFailed", "the password is hunter2"))
    async with encrypting_worker(server, ring, doubles) as driver:
        talk = await driver.upgrade(fleet(1))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(talk.handle.result(), 3)
        history = await driver.env.client.get_workflow_handle(PROD).fetch_history()
        assert b"hunter2" not in b"".join(event.SerializeToString() for event in history.events)


# --- docs/approvals.md ------------------------------------------------------------------------------------------------


def _commands() -> list[str]:
    """The shell block of the page, its functions included."""
    text = (ROOT / "docs/approvals.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


async def _shell(script: str, environment: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-ec", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_commands_of_the_approvals_page_work(run: Driver, tmp_path: Path) -> None:
    talk = await run.upgrade(fleet(2))
    gate = await talk.gate("core")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TEMPORAL_ADDRESS": run.client.service_client.config.target_host,
        key_ring.ENV_FILE: str(tmp_path / "key-ring"),
    }
    [block] = _commands()
    function, *lines = block.strip().splitlines()
    for line in lines:
        wanted = "wave/2" if "wave/2" in line else "core" if '"core"' in line else ""
        if wanted == "wave/2":
            continue
        await _shell(f"{function}\n{line.replace('91e0a1c5d7b3f264', gate.plan_digest)}", environment)
    await talk.until(lambda p: p.paused, "paused by the page's control")
    await talk.control(ControlVerb.RESUME)
    [wave] = [line for line in lines if "wave/2" in line]
    await talk.gate("wave/2")
    await _shell(f"{function}\n{wave}", environment)
    assert (await talk.result()).state is FleetState.UPGRADED
    assert shlex.split(function)


async def test_temporals_own_command_sends_and_reads_through_the_codec_server(
    run: Driver, ring: key_ring.KeyRing
) -> None:
    """The plain JSON of the documentation: the endpoint names the workflow that it is encrypted for."""
    talk = await run.upgrade(fleet(1))
    gate = await talk.gate("core")
    codec = await CodecServer(ring=ring, token="t0ken").start()
    endpoint = f"http://127.0.0.1:{codec.sockets[0].getsockname()[1]}"
    common = ["--address", run.client.service_client.config.target_host, "--workflow-id", PROD]

    async def temporal(verb: str, *words: str, path: str = "") -> str:
        command = [str(binary()), "workflow", *verb.split(), *common, *words, "--codec-auth", "Bearer t0ken"]
        command += ["--codec-endpoint", f"{endpoint}{path}"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async with codec:
        shown = await temporal("query", "--type", "progress", "-o", "json")
        assert gate.plan_digest in shown
        pause = '{"verb": "pause", "actor": "alice"}'
        await temporal("signal", "--name", "control", "--input", pause, path=f"/{PROD}")
        await talk.until(lambda p: p.paused, "paused")
        await temporal("signal", "--name", "control", "--input", pause, path="/komodo-upgrade/dev")
        await talk.until(lambda p: any("another workflow" in w for w in p.warnings), "refused")
        resume = '{"verb": "resume", "actor": "alice"}'
        await temporal("update execute", "--name", "control", "--input", resume, path=f"/{PROD}")
        assert not (await talk.progress()).paused
