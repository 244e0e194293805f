"""Disturbances during an upgrade: signals, stops, killed servers and workers, reboots, cut connections."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import PATIENT, Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.operator import NAME, Operator
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all
BEFORE_GATE = (("core", "back_up_core"), ("web-2", "back-up"), ("core", "dump_before"), ("core", "stage_core"),
               ("web-2", "stage"))  # fmt: skip
AFTER_GATE = (("core", "stop_core"), ("core", "dump_final"), ("core", "write_core_files"), ("core", "start_core"),
              ("core", "read_core_key"), ("core", "switch_core_agent"), ("web-2", "switch"),
              ("core", "save_report"))  # fmt: skip
"""Host and job, in the order in which they begin."""


def signal_decision(operator: Operator, gate: dict[str, Any]) -> None:
    """Approve a gate with the `temporal` command, as docs/approvals.md describes."""
    decision = {"gate": gate["id"], "verdict": "approve", "actor": "ann", "plan_digest": gate["plan_digest"]}
    operator.temporal("signal", "--name", "decide", *operator.encode(decision))


def test_approvals_by_temporals_own_command(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    answered: list[str] = []
    while gate := bob.wait().get("gate"):
        if gate["id"] in answered:
            continue  # the signal has not arrived yet
        signal_decision(bob, gate)
        answered.append(gate["id"])
    proofs.upgraded(fresh)
    note.append(f"signals at {', '.join(answered)}")


def test_stopped_in_the_middle_and_started_again(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    bob.answer(bob.gate("core"))
    bob.gate("wave/2")
    bob.ok("stop", NAME)
    assert bob.wait()["state"] == "stopped"
    states = fresh.states()
    assert states["web-1"] == ("Ok", NEW)
    assert fresh.agent_version("far-1") == OLD
    bob.tool("start", "--detach")
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("stopped at wave/2, the next start continued with the rest")


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_the_temporal_server_killed_in_the_middle(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    bob.answer(bob.gate("core"))
    fresh.on(
        "core", "sh", "-c", f"until ls -d /var/lib/komodo-upgrade/{NAME}/*/jobs/*/*/start_core; do sleep 0.1; done"
    )
    os.kill(int(bob.supervisor()["server_pid"]), signal.SIGKILL)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    proofs.once_only(fresh)
    note.append("SIGKILL while Core started; every step ran once")


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_the_worker_killed_at_every_step(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """In one upgrade, each step that changes a host loses its worker once."""
    bob.begin()
    for host, job in BEFORE_GATE:
        bob.kill_worker_when(host, job)
    bob.answer(bob.gate("core"))
    for host, job in AFTER_GATE:
        bob.kill_worker_when(host, job)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    steps = [job for _, job in (*BEFORE_GATE, *AFTER_GATE)]
    assert sum(bob.supervisor()["restarts"].values()) >= len(steps), "the signals did not hit a worker"
    proofs.upgraded(fresh)
    proofs.once_only(fresh)
    note.append(f"SIGKILL at {', '.join(steps)}; every step ran once")


def test_a_host_rebooted_in_the_middle(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    bob.answer(bob.gate("core"))
    wave = bob.gate("wave/2")
    fresh.reboot("db-1")
    bob.answer(wave)
    while found := bob.wait():
        gate = found.get("gate")
        if not gate:
            break
        bob.answer(gate, *(("retry", "db-1") if gate["kind"] == "failure" else ("approve",)))
    assert found["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("db-1 rebooted as its wave began")


@pytest.mark.parametrize("bob", [{"rollout": 'wave = 2\noffline_look = "10s"', "timing": PATIENT}], indirect=True)
def test_a_link_cut_in_the_middle_and_healed(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    bob.answer(bob.gate("core"))
    wave = bob.gate("wave/2")
    fresh.link("nas", up=False)
    bob.answer(wave)
    after = bob.gate("wave/3")
    shown = {s["name"]: s["state"] for s in json.loads(bob.tool("status", "-o", "json").stdout)["servers"]}
    assert (shown["nas"], shown["db-1"]) == ("offline", "upgraded"), shown
    fresh.link("nas", up=True)
    bob.answer(after)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("nas disconnected as its wave began: deferred, the others continued; connected again: upgraded last")


@pytest.mark.parametrize("knob", ["fail", "wrong"])
def test_the_download_site_is_down_or_serves_something_else(
    fresh: Bed, bob: Operator, knob: str, note: list[str]
) -> None:
    """An artifact that cannot be downloaded or has a wrong digest changes nothing; a later start succeeds."""
    before = fresh.configs(), proofs.core_files(fresh)
    fresh.site(knob, "503" if knob == "fail" else "<html>please log in</html>\n" * 100)
    ended = bob.tool("start", "--detach", timeout=600)
    assert ended.returncode not in (0, 1), bob.transcript[-1]
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    assert fresh.core_image().endswith(":latest")
    assert {fresh.agent_version(s.name) for s in fresh.servers} == {OLD}
    note.append(f"exit code {ended.returncode}, nothing changed")


def test_the_registry_is_down(fresh: Bed, bob: Operator, note: list[str]) -> None:
    before = fresh.configs(), proofs.core_files(fresh)
    fresh.registry(running=False)
    ended = bob.tool("start", "--detach", timeout=600)
    assert ended.returncode not in (0, 1), bob.transcript[-1]
    fresh.wait_ok(OLD, 60)
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    note.append(f"exit code {ended.returncode}, v1 still runs")


def test_the_new_image_is_pruned_while_the_gate_waits(fresh: Bed, bob: Operator, note: list[str]) -> None:
    bob.start()
    gate = bob.gate("core")
    fresh.on("core", "docker", "image", "prune", "-af")
    bob.answer(gate)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("docker image prune -af at gate core")
