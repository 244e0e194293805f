"""Another user of the operator's machine: a real uid with `temporal` and the source, in front of both ports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client

from model.fleet.spec import TASK_QUEUE, FleetSpec
from model.serialization import to_json
from model.status import FleetState, UpgradeRequest
from service import policy
from service.codec import key_ring
from service.embedded.server import binary
from service.embedded.state import Running, StateDir
from service.requests import check, new_change
from tests.adversary.ground import OTHER, ROOT, open_ground
from tests.adversary.test_encrypted_runs import PROD, encrypting_worker
from tests.adversary.test_start_without_key import listening
from tests.workflows.doubles import Doubles, fleet
from tests.workflows.driver import Driver, LocalServer

MakeFleet = Callable[[str, Path], FleetSpec]
APPROVE = '{"gate": "core", "verdict": "approve", "actor": "alice", "plan_digest": "DIGEST"}'


class OtherUser:
    """Runs programs under his uid, without the owner's environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.as_him = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"] if ROOT else []

    def run(self, *command: str, data: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        words = [*self.as_him, *command]
        return subprocess.run(
            words, input=data, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )

    def temporal(self, address: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(binary()), *words, "--address", address)


@pytest.fixture
def he() -> Iterator[OtherUser]:
    with open_ground() as home:
        other = OtherUser(home)
        assert other.run("id", "-u").stdout.strip() == str(OTHER)
        yield other


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Driver]:
    """An owner's upgrade can be served here, with his key ring."""
    local = LocalServer()
    try:
        async with encrypting_worker(local, key_ring.create(tmp_path / "key-ring"), Doubles()) as driver:
            yield driver
    finally:
        local.stop()


async def test_he_reads_no_fleet_approves_nothing_and_stops_no_approval(run: Driver, he: OtherUser) -> None:
    address = run.client.service_client.config.target_host
    talk = await run.upgrade(fleet(2))
    gate = await talk.gate("core")
    one = ("--workflow-id", PROD)

    async def temporal(*words: str) -> str:
        done = await asyncio.to_thread(he.temporal, address, *words)
        return done.stdout + done.stderr

    # What he reads: ids, and nothing of the fleet, the plan or the gate.
    for words in (("workflow", "query", *one, "--type", "progress"), ("workflow", "show", *one, "-o", "json"),
                  ("workflow", "describe", *one), ("workflow", "list"), ("workflow", "stack", *one)):  # fmt: skip
        seen = await temporal(*words)
        assert PROD in seen or "query" in words or "stack" in words, seen
        for secret in (gate.plan_digest, "web-1", "komodo-core-1", "/opt/komodo"):
            assert secret not in seen, (words, secret)

    # What he sends, in the documented form, in all names and shapes.
    approve = APPROVE.replace("DIGEST", gate.plan_digest)
    stop = '{"verb": "stop", "actor": "alice"}'
    messages = [("decide", approve), ("control", stop), ("control", stop.replace("stop", "pause")), ("decide", "{")]
    for name, text in messages:
        await temporal("workflow", "signal", *one, "--name", name, "--input", text)
        await temporal("workflow", "update", "execute", *one, "--name", name, "--input", text)
    await temporal("workflow", "signal", *one, "--name", "decide")
    await temporal("workflow", "signal", *one, "--name", "decide", "--input", "1", "--input", "2")
    for number in range(3):
        await temporal("workflow", "signal", *one, "--name", f"junk{number}", "--input", json.dumps("x" * 100_000))
    progress = await talk.progress()
    assert progress.gate
    assert progress.gate.id == "core"
    assert not progress.paused
    assert not progress.decisions

    # The owner approves nevertheless, and the upgrade runs to its end.
    await talk.answer("core")
    await talk.answer("wave/2")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert {one.decision.actor for one in result.decisions} == {"ann"}


def test_he_runs_no_command_with_the_temporal_command(
    he: OtherUser, now: Running, fleet_of: MakeFleet, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    request = _request(fleet_of("stolen", mark))
    for kind in ("CheckFleet", "UpgradeFleet", "UpgradeServer", "RollbackFleet", "ScanRunFolders", "CleanFleet"):
        name = f"another-user/{kind}/{new_change()}"
        words = ("--type", kind, "--task-queue", TASK_QUEUE, "--workflow-id", name, "--input", request)
        done = he.temporal(now.address, "workflow", "execute", *words)
        assert "Encoded failure" in done.stdout + done.stderr, done
    # A step without any workflow, which Temporal's command can start, too.
    words = ("--type", "survey_core", "--task-queue", TASK_QUEUE, "--activity-id", "another-user", "--input", request)
    done = he.temporal(now.address, "activity", "execute", *words, "--schedule-to-close-timeout", "20s")
    assert done.returncode
    assert "without a workflow" in done.stdout, done
    assert not mark.exists()


async def test_he_runs_no_command_through_the_http_port_and_the_owner_works_on(
    he: OtherUser, now: Running, owner: Client, state: StateDir, fleet_of: MakeFleet, tmp_path: Path
) -> None:
    """The name that the port answers to stands in the server's command line, which everyone can read."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    request = json.loads(_request(fleet_of("stolen", theirs)))
    arguments = he.run("cat", f"/proc/{now.server_pid}/cmdline").stdout
    [name] = re.findall(r'httpAllowedHosts=\["([^"]+)"\]', arguments)
    body = {"workflowType": {"name": "CheckFleet"}, "taskQueue": {"name": TASK_QUEUE}, "input": [request]}
    answers = []
    for port in listening(now.server_pid):
        url = f"http://127.0.0.1:{port}/api/v1/namespaces/default/workflows/another-user-http-{port}"
        for host in ("localhost", name):
            words = ("-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}")
            typed = ("-H", "Content-Type: application/json", "--data-binary", "@-", url)
            answers.append((host, he.run("curl", *words, *typed, data=json.dumps(body)).stdout))
    assert (name, "200") in answers, "with the right name, the API takes the request"
    assert ("localhost", "200") not in answers
    fleet_file = fleet_of("own", mine)
    policy.allow_fleet(state.policy, fleet_file)
    assert (await check(owner, fleet_file, timeout=timedelta(seconds=60))).plan is not None
    assert mine.exists()
    assert not theirs.exists()


def test_he_reaches_no_file_of_the_service(he: OtherUser, state: StateDir) -> None:
    if not ROOT:
        pytest.skip("without root there is no other user here")
    for path in (state.key_ring, state.database):
        assert path.exists()
        assert "Permission denied" in he.run("cat", str(path)).stderr
    for path in state.root.iterdir():
        assert he.run("test", "-r", str(path)).returncode, path


def _request(fleet_spec: FleetSpec) -> str:
    return to_json(UpgradeRequest(fleet=fleet_spec, change=new_change(), requested_by="alice"))
