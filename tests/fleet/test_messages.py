"""What goes wrong ends in words that a tired person understands, and with nothing half-written."""

from __future__ import annotations

import asyncio
import re

import pytest

from model.decisions import Verdict
from model.fleet import TASK_QUEUE, workflow_id
from model.plan import Plan
from model.progress import CheckResult, FleetState, UpgradeRequest
from tests.fleet.conftest import Fleet
from tests.fleet.test_way_back import files


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
async def test_everything_that_forbids_an_upgrade_is_said_at_once_host_by_host(fleet: Fleet) -> None:
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

    said = {
        name: "\n".join(f"{f.text} → {f.cure}" for f in plan.refusals if f.subject == name) for name in sandbox.hosts
    }
    assert re.search(r"host key", said["web-1"], re.I)
    assert "ssh-keygen -R" in said["web-1"]
    assert re.search(r"sudo", said["db-1"], re.I)
    assert re.search(r"password", said["db-1"], re.I)
    assert not said["nas"], "it is merely away: set aside, and the others go on"
    assert plan.offline == ("nas",)
    [away] = [f for f in plan.warnings if f.subject == "nas"]
    assert re.search(r"offline, set aside: .*(refused|no connection|not reach)", away.text, re.I)
    assert re.search(r"port.*line \d+.*line \d+|lines? \d+ and \d+", said["web-2"], re.I | re.S), said["web-2"]
    assert re.search(r"open", said["web-2"], re.I)
    assert not said["build-1"]
    assert files(fleet) == before


async def test_a_dump_of_nothing_stops_before_core_is_touched(fleet: Fleet) -> None:
    before = files(fleet)
    fleet.sandbox.fault("dump-empty", "core")
    await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("failure/core")
    said = "\n".join((gate.question, *gate.facts))
    assert re.search(r"no collection|empty|nothing in it", said), said
    await fleet.decide(gate, Verdict.REJECT)
    result = await fleet.handle.result()
    assert result.state is FleetState.STOPPED
    assert files(fleet) == before
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.version == "1.19.5"


async def test_a_wrong_key_behind_a_stale_ok_is_never_called_upgraded(fleet: Fleet) -> None:
    fleet.sandbox.fault("wrong-key", "web-1", stale=3)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    gate = await fleet.gate("failure/web-1")
    said = "\n".join((gate.question, *gate.facts))
    assert re.search(r"key", said), said
    progress = await fleet.progress()
    assert next(s for s in progress.servers if s.name == "web-1").state != "upgraded"


async def test_a_full_disk_leaves_the_old_agent_running_as_it_was(fleet: Fleet) -> None:
    before = files(fleet)
    await fleet.worker()
    await fleet.start()
    core = await fleet.gate("core")
    fleet.sandbox.fault("disk-full", "web-1", path=str(fleet.sandbox.hosts["web-1"].root / "etc"))
    await fleet.decide(core)
    gate = await fleet.gate("failure/web-1")
    said = "\n".join((gate.question, *gate.facts))
    assert re.search(r"space|full", said), said
    now, host = files(fleet), str(fleet.sandbox.hosts["web-1"].root)
    assert {p: d for p, d in now.items() if p.startswith(host)} == {
        p: d for p, d in before.items() if p.startswith(host)
    }
    assert fleet.sandbox.agent_version("web-1") == "1.19.5"
