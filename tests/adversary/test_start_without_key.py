"""Any local user who reaches the embedded server's port starts workflows with a fleet of his own."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from model.fleet.spec import TASK_QUEUE, FleetSpec
from model.gates import MADE_AT
from model.status import UpgradeRequest
from service import policy
from service.codec.aead import EncryptingCodec
from service.codec.key_ring import from_file
from service.embedded.state import Running, StateDir
from service.requests import check, new_change

MakeFleet = Callable[[str, Path], FleetSpec]


@pytest.mark.parametrize("kind", ["CheckFleet", "UpgradeFleet", "RollbackFleet", "UpgradeServer"])
async def test_a_plaintext_start_fails_and_runs_nothing(
    adversary: Client, fleet_of: MakeFleet, tmp_path: Path, kind: str
) -> None:
    mark = tmp_path / "mark"
    request = UpgradeRequest(fleet=fleet_of("stolen", mark), change=new_change(), requested_by="alice")
    handle = await adversary.start_workflow(kind, request, id=f"adversary/{kind}/{new_change()}", task_queue=TASK_QUEUE)
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 30)
    assert "Encoded failure" in str(failed.value.cause), "not even the reason is shown to those without the key"
    assert not mark.exists()
    kinds = [event.event_type async for event in handle.fetch_history_events()]
    assert not any("ACTIVITY" in str(one) for one in kinds)


async def test_the_owner_reads_why_it_failed(adversary: Client, owner: Client) -> None:
    handle = await adversary.start_workflow("CheckFleet", {}, id=f"adversary/why/{new_change()}", task_queue=TASK_QUEUE)
    with pytest.raises(WorkflowFailureError) as failed:
        await owner.get_workflow_handle(handle.id).result()
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "NotAuthenticated"
    assert "not encrypted" in cause.message


async def test_the_workers_own_fleets_run_meanwhile(
    adversary: Client, owner: Client, state: StateDir, fleet_of: MakeFleet, tmp_path: Path
) -> None:
    """The same fleet, started by the owner: the command runs. A hundred refused starts do not keep it from that."""
    mark = tmp_path / "mark"
    fleet = fleet_of("own", mark)
    for number in range(100):
        await adversary.start_workflow("CheckFleet", {}, id=f"adversary/flood/{number}", task_queue=TASK_QUEUE)
    policy.allow_fleet(state.policy, fleet)
    result = await check(owner, fleet, timeout=timedelta(seconds=60))
    assert mark.exists(), result.plan.findings
    assert result.plan is not None


async def test_a_recorded_start_is_refused(
    owner: Client, adversary: Client, fleet_of: MakeFleet, tmp_path: Path, state: StateDir
) -> None:
    """The input of an old run is sent again: under another id, for a server's own workflow, and too late."""
    fleet = fleet_of("recorded", tmp_path / "mark")
    policy.allow_fleet(state.policy, fleet)
    request = UpgradeRequest(fleet=fleet, change=new_change(), requested_by="alice-the-owner")
    name = f"adversary/recorded/{new_change()}"
    first = await owner.start_workflow(
        "CheckFleet",
        request,
        id=name,
        task_queue=TASK_QUEUE,
        memo={"by": "alice-the-owner"},
        static_summary="alice-the-owner",
    )
    await asyncio.wait_for(first.result(), 60)
    history = await adversary.get_workflow_handle(name).fetch_history()
    assert "alice-the-owner" not in history.to_json()
    assert b"alice-the-owner" not in base64_bytes(history.to_json())
    recorded = RawValue(history.events[0].workflow_execution_started_event_attributes.input.payloads[0])
    other = await adversary.start_workflow("CheckFleet", recorded, id=f"{name}/other", task_queue=TASK_QUEUE)
    assert "another workflow" in await _why(owner, other.id)
    late = "adversary/recorded-late"
    made = Payload(metadata={"encoding": b"json/plain", MADE_AT: b"1700000000"}, data=b"{}")
    bound = EncryptingCodec(from_file(state.key_ring), f"workflow default/{late}").seal(made)
    await adversary.start_workflow("CheckFleet", RawValue(bound), id=late, task_queue=TASK_QUEUE)
    assert "long before this run" in await _why(owner, late)


async def _why(owner: Client, workflow_id: str) -> str:
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(owner.get_workflow_handle(workflow_id).result(), 30)
    return str(failed.value.cause)


def base64_bytes(text: str) -> bytes:
    """All payloads of a history, decoded."""
    return b"".join(base64.b64decode(data) for data in re.findall(r'"data": "([^"]*)"', text))


def test_a_page_in_a_browser_reaches_no_http_port(now: Running) -> None:
    ports = listening(now.server_pid)
    assert len(ports) > 1
    body = json.dumps({"workflowType": {"name": "CheckFleet"}, "taskQueue": {"name": TASK_QUEUE}}).encode()
    answers = []
    for port in ports:
        url = f"http://127.0.0.1:{port}/api/v1/namespaces/default/workflows/adversary-http-{port}"
        request = urllib.request.Request(
            url, data=body, headers={"Origin": "http://evil", "Content-Type": "text/plain"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                answers.append(answer.status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
        except OSError:
            continue
    assert answers
    assert 200 not in answers


def listening(pid: int) -> list[int]:
    """Ports that a process listens on, as any user can read them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if parts[3] == "0A" and parts[9] in inodes:
            found.append(int(parts[1].split(":")[1], 16))
    return found
