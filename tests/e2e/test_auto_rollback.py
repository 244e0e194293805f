"""The automatic rollback timer: host without a worker, healthy server without a worker, reboot."""

from __future__ import annotations

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.bed.shell import wait_for
from tests.e2e.operator import NAME, Operator

pytestmark = pytest.mark.e2e_all
HOST = "db-1"
TIMED = {
    "rollout": 'wave = 2\nauto_rollback = "120s"',
    "timing": 'agent_ready = "60s"\ncore_sees = "30s"',
}


def state(bed: Bed) -> str:
    """The state of the timer, read on the host."""
    folder = bed.run_folder(HOST, NAME)
    return bed.on(HOST, "sh", f"{folder}/dead-man.sh", "state").split("\t")[0]


def armed(bed: Bed) -> bool:
    marks = f"/var/lib/komodo-upgrade/{NAME}/*/dead-man/armed"
    return bed.on(HOST, "sh", "-c", f"ls {marks} 2>/dev/null", check=False) != ""


def to_the_second_wave(bob: Operator) -> dict[str, object]:
    bob.start()
    bob.answer(bob.gate("core"))
    return bob.gate("wave/2")


@pytest.mark.parametrize("bob", [TIMED], indirect=True)
def test_a_host_without_worker_and_core_restores_its_agent(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """Core cannot reach the server, and worker and Temporal are stopped."""
    before = fresh.configs()[HOST]
    wave = to_the_second_wave(bob)
    fresh.wall(HOST, up=True)
    bob.answer(wave)
    wait_for("the timer", lambda: armed(fresh), seconds=120, pause=0.2)
    assert "komodo-upgrade-dead-man" in fresh.on(HOST, "systemctl", "list-timers", "--all", "--no-pager")
    wait_for("the switch", lambda: fresh.agent_version(HOST) == NEW, seconds=110, pause=0.2)
    bob.tool("down", "--force", timeout=90)
    wait_for("the automatic rollback", lambda: state(fresh) == "fired", seconds=300, pause=1)
    assert fresh.agent_version(HOST) == OLD
    assert fresh.configs()[HOST] == before
    assert f"Komodo Periphery version: v{OLD}" in fresh.agent_log(HOST)
    bob.ok("up")
    gate = bob.gate(f"failure/{HOST}")
    assert any("rolled back automatically" in str(fact) for fact in gate["facts"]), gate
    fresh.wall(HOST, up=False)
    bob.answer(gate, "retry", HOST)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    assert state(fresh) == "disarmed"
    note.append("no worker, no Core: v1 restored by the host, reported at its gate, retried, upgraded")


@pytest.mark.parametrize("bob", [TIMED], indirect=True)
def test_a_healthy_server_stays_when_the_worker_is_gone(fresh: Bed, bob: Operator, note: list[str]) -> None:
    wave = to_the_second_wave(bob)
    bob.answer(wave)
    wait_for("the switch", lambda: armed(fresh) and fresh.agent_version(HOST) == NEW, seconds=120, pause=0.1)
    bob.tool("down", "--force", timeout=90)
    wait_for("the end of the timer", lambda: state(fresh) in ("silent", "disarmed"), seconds=300, pause=1)
    assert fresh.agent_version(HOST) == NEW
    bob.ok("up")
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("no worker for longer than the timer: the host stayed on v2")


@pytest.mark.parametrize("bob", [TIMED], indirect=True)
def test_a_host_rebooted_with_the_timer_armed_reports_that_it_is_lost(
    fresh: Bed, bob: Operator, note: list[str]
) -> None:
    wave = to_the_second_wave(bob)
    fresh.wall(HOST, up=True)
    bob.answer(wave)
    # A switch that a reboot interrupts is started again with another timer, so wait for its end.
    ended = f"/var/lib/komodo-upgrade/{NAME}/*/jobs/*/*/switch/rc.0"
    wait_for("the switch", lambda: fresh.on(HOST, "sh", "-c", f"ls {ended}", check=False) != "", seconds=120)
    fresh.reboot(HOST)
    wait_for(
        "the machine",
        lambda: fresh.on(HOST, "systemctl", "is-active", "periphery", check=False) == "active",
        seconds=90,
    )
    assert state(fresh) == "lost"
    gate = bob.gate(f"failure/{HOST}")
    assert fresh.agent_version(HOST) == NEW
    assert "rollback" in gate["verdicts"]
    bob.ok("rollback", NAME, HOST)
    bob.gate("wave/3")
    assert fresh.agent_version(HOST) == OLD
    assert state(fresh) == "disarmed"
    note.append("rebooted: the timer is reported as lost; restore.sh still works")
