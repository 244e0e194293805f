"""What goes wrong is explained, changes nothing halfway, and can be retried or rolled back."""

from __future__ import annotations

import asyncio
import re

import pytest
from temporalio.client import Client

from model.errors import NoSuchUpgrade
from model.fleet.spec import TASK_QUEUE, workflow_id
from model.gates import Verdict
from model.plan import Plan
from model.rollback import request_from_folders
from model.status import CheckResult, FleetResult, FleetState, UpgradeRequest
from service.requests import folders
from tests.fleet.conftest import Fleet
from tests.fleet.test_rollback import KEPT, documents, files


async def checked(fleet: Fleet) -> Plan:
    result: CheckResult = await fleet.client.execute_workflow(
        "CheckFleet",
        UpgradeRequest(fleet=fleet.spec, change="20261123T210000Z"),
        id=f"{workflow_id(fleet.spec.name)}/check",
        task_queue=TASK_QUEUE,
        result_type=CheckResult,
    )
    return result.plan


@pytest.mark.parametrize("fleet", [5], indirect=True)
async def test_a_check_reports_all_refusals_of_all_hosts_at_once(fleet: Fleet) -> None:
    before = files(fleet)
    sandbox = fleet.sandbox
    sandbox.fault("host-key-changed", "web-1")
    sandbox.fault("sudo-wrong", "db-1")
    sandbox.fault("unreachable", "nas")
    config = next((sandbox.hosts["web-2"].root / "etc/komodo").glob("*.toml"))
    text = await asyncio.to_thread(config.read_text)
    await asyncio.to_thread(
        config.write_text, text + "port = 1\nport = 2\n" if "[" not in text else "port = 1\n" + text
    )
    before[str(config)] = files(fleet)[str(config)]
    await sandbox.settled()
    await fleet.worker()
    plan = await checked(fleet)

    reported = {
        name: "\n".join(f"{f.text} → {f.hint}" for f in plan.refusals if f.subject == name) for name in sandbox.hosts
    }
    assert re.search(r"host key", reported["web-1"], re.I)
    assert "ssh-keygen -R" in reported["web-1"]
    assert re.search(r"sudo", reported["db-1"], re.I)
    assert re.search(r"password", reported["db-1"], re.I)
    assert not reported["nas"], "it is offline: set aside, and the others continue"
    assert plan.offline == ("nas",)
    [away] = [f for f in plan.warnings if f.subject == "nas"]
    assert re.search(r"offline, set aside: .*(refused|no connection|not reach)", away.text, re.I)
    assert re.search(r"port.*line \d+.*line \d+|lines? \d+ and \d+", reported["web-2"], re.I | re.S), reported["web-2"]
    assert re.search(r"open", reported["web-2"], re.I)
    assert not reported["build-1"]
    assert files(fleet) == before


async def test_each_failure_is_explained_and_retried_and_days_later_all_is_rolled_back(
    fleet: Fleet, another_temporal: Client
) -> None:
    """One upgrade with four faults, then a rollback from the folders on the hosts, by another machine's Temporal."""
    before, kept = files(fleet), documents(fleet)
    fleet.sandbox.fault("dump-empty", "core")
    await fleet.worker()
    await fleet.start()
    await _failed(fleet, "failure/core", r"no collection|empty|nothing in it")
    assert files(fleet) == before
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.version == "1.19.5"
    await _retry(fleet, "failure/core")

    core = await fleet.gate("core")
    web = str(fleet.sandbox.hosts["web-1"].root)
    fleet.sandbox.fault("disk-full", "web-1", path=f"{web}/etc")
    await fleet.decide(core)
    await _failed(fleet, "failure/web-1/1", "space|full")
    assert [(p, d) for p, d in files(fleet).items() if p.startswith(web)] == [
        (p, d) for p, d in before.items() if p.startswith(web)
    ]
    assert fleet.sandbox.agent_version("web-1") == "1.19.5"
    await _retry(fleet, "failure/web-1/1", "crash-loop")
    await _failed(fleet, "failure/web-1/2", "")
    assert fleet.sandbox.agent_version("web-1") == "1.19.5"
    fleet.sandbox.heal()
    fleet.sandbox.fault("wrong-key", "db-1", stale=3)
    await fleet.decide(await fleet.gate("failure/web-1/2"), Verdict.RETRY)
    await fleet.decide(await fleet.gate("wave/2"))
    await _failed(fleet, "failure/db-1", "key")
    assert next(s for s in (await fleet.progress()).servers if s.name == "db-1").state != "upgraded"
    await _retry(fleet, "failure/db-1")
    result = await fleet.approve_all()
    assert result.state is FleetState.UPGRADED, result.detail
    assert next(s for s in result.servers if s.name == "web-1").attempt == 3

    for worker in fleet.workers:
        worker.kill()
    fleet.client = another_temporal
    await fleet.worker()
    request = request_from_folders(fleet.spec, await folders(fleet.client, fleet.spec), requested_by="bob")
    assert request.not_restored == ()
    assert request.servers == (*(s.name for s in fleet.spec.servers), "Local")
    await fleet.client.start_workflow(
        "RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    rolled_back = await fleet.approve_all()
    assert rolled_back.state is FleetState.ROLLED_BACK, rolled_back.detail
    assert [s.state for s in rolled_back.servers] == ["rolled back"] * 4
    assert files(fleet) == before
    now = documents(fleet)
    assert {n: now[n] for n in KEPT} == {n: kept[n] for n in KEPT}
    with pytest.raises(NoSuchUpgrade, match="nothing to roll back"):
        request_from_folders(fleet.spec, await folders(fleet.client, fleet.spec))


async def _failed(fleet: Fleet, prefix: str, words: str) -> None:
    """Wait for the gate of a failure; its question and facts explain it."""
    gate = await fleet.gate(prefix)
    explained = "\n".join((gate.question, *gate.facts))
    assert re.search(words, explained), explained


async def _retry(fleet: Fleet, prefix: str, fault: str = "") -> None:
    """Repair everything (and switch another fault on for web-1), then answer `retry`."""
    gate = await fleet.gate(prefix)
    fleet.sandbox.heal()
    if fault:
        fleet.sandbox.fault(fault, "web-1")
    await fleet.decide(gate, Verdict.RETRY)
