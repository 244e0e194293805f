"""The whole fleet: upgrade to v2 with approvals, a second run, and rollback to v1."""

from __future__ import annotations

import functools
import json

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import OLD
from tests.e2e.bed.shell import wait_for
from tests.e2e.operator import NAME, Operator
from tests.e2e.probe import Probe

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def before(bed: Bed) -> tuple[dict[str, str], dict[str, str]]:
    """The agents' configurations and Core's files before the upgrade."""
    return bed.configs(), proofs.core_files(bed)


def test_full_upgrade_with_approvals(
    bed: Bed, ann: Operator, before: tuple[dict[str, str], dict[str, str]], note: list[str]
) -> None:
    ann.ok("check")
    assert ann.tool("plan").returncode == 5
    assert (bed.configs(), proofs.core_files(bed)) == before, "check and plan change nothing"
    restart = _downtime_of_a_restart(bed)
    with Probe(bed) as probe:
        ann.start()
        gates = []
        while gate := ann.wait().get("gate"):
            gates.append(gate["id"])
            ann.answer(gate)
    result = json.loads(ann.ok("status", "-o", "json"))
    assert result["state"] == "upgraded"
    assert gates[0] == "core"
    assert gates[1:] == [f"wave/{n}" for n in range(2, len(gates) + 1)]
    names = ("Local", *(s.name for s in bed.servers))  # Local is the agent in Core's project
    assert {s["name"]: s["state"] for s in result["servers"]} == dict.fromkeys(names, "upgraded")
    proofs.upgraded(bed)
    proofs.once_only(bed)
    report = ann.ok("report")
    for server in bed.servers:
        assert server.name in report
    assert probe.answers > 20
    limit = max(1.0, 3 * restart)
    slow = {s.name: probe.longest[s.name] for s in bed.servers if probe.longest[s.name] > limit}
    note += [
        f"gates {', '.join(gates)}",
        f"a plain restart before the upgrade: port down {restart:.1f} s",
        *probe.lines(),
    ]
    assert not slow, f"port down for longer than {limit:.1f} s: {slow}"


def _listens(bed: Bed, name: str) -> bool:
    return "starting on" in bed.agent_log(name)


def _downtime_of_a_restart(bed: Bed) -> float:
    """Downtime of a port during a plain `systemctl restart periphery` on this machine, in seconds."""
    with Probe(bed) as probe:
        for server in bed.servers:
            bed.on(server.name, "systemctl", "restart", "periphery")
            wait_for("the restart", functools.partial(_listens, bed, server.name), seconds=60)
    bed.wait_ok(OLD)
    return max(probe.longest.values(), default=0.0)


def test_a_second_run_has_nothing_to_do(bed: Bed, ann: Operator, note: list[str]) -> None:
    began = {s.name: bed.show(s.name, "InvocationID") for s in bed.servers}
    ann.ok("start", "--wait")
    result = json.loads(ann.ok("status", "-o", "json"))
    assert result["state"] == "already current"
    assert {s.name: bed.show(s.name, "InvocationID") for s in bed.servers} == began
    proofs.once_only(bed)
    note.append("no agent and no Core was restarted")


def test_the_fleet_is_rolled_back(
    bed: Bed, ann: Operator, before: tuple[dict[str, str], dict[str, str]], note: list[str]
) -> None:
    shown = ann.ok("rollback", NAME, "--plan")
    assert shown.strip()
    ann.ok("rollback", NAME, "--detach", code=6)
    ann.answer(ann.gate("rollback/"))
    result = ann.wait()
    assert result.get("state") == "rolled back", json.dumps(result)[:3000]
    proofs.as_before(bed, *before)
    note.append("binaries, configurations, Compose files and database as before; every server Ok on v1")
