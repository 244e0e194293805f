"""Rollback: from every gate, of one server, days later, with a v1 that does not start, after cancel and terminate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import PATIENT, Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.bed.shell import wait_for
from tests.e2e.operator import NAME, Operator
from tests.e2e.test_crash import ALL_AT_ONCE
from tests.e2e.test_failure import QUICK

pytestmark = pytest.mark.e2e_all


def back(operator: Operator, *words: str) -> dict[str, Any]:
    """Request a rollback, approve it at its gate, and wait for its end."""
    operator.ok("rollback", NAME, *words, "--detach", code=6)
    operator.answer(operator.gate("rollback/"))
    return operator.wait()


@pytest.mark.parametrize("bob", [QUICK], indirect=True)
def test_from_every_gate(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """From gate core, a wave and a failure: everything is as before, and another upgrade can begin."""
    before = fresh.configs(), proofs.core_files(fresh)
    bob.start()
    bob.answer(bob.gate("core"), "reject")
    assert bob.wait()["state"] == "stopped"
    proofs.as_before(fresh, *before)

    bob.start()
    bob.answer(bob.gate("core"))
    bob.gate("wave/2")
    assert back(bob)["state"] == "rolled back"
    proofs.as_before(fresh, *before)

    bob.start()
    bob.answer(bob.gate("core"))
    wave = bob.gate("wave/2")
    fresh.wall("db-1", up=True)
    bob.answer(wave)
    bob.gate("failure/db-1/1")
    fresh.wall("db-1", up=False)
    assert back(bob)["state"] == "rolled back"
    proofs.as_before(fresh, *before)
    note.append("from gates core, wave/2 and failure/db-1/1: files, binaries, database as before each time")


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_one_server_alone_and_then_forward_again(fresh: Bed, bob: Operator, note: list[str]) -> None:
    config = fresh.configs()["nas"]
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    result = back(bob, "--server", "nas")
    assert result["state"] == "rolled back", json.dumps(result)[:3000]
    assert fresh.agent_version("nas") == OLD
    assert fresh.configs()["nas"] == config
    proofs.upgraded(fresh, [s.name for s in fresh.servers if s.name != "nas"])
    assert fresh.states()["nas"][0] != "Ok", "v2 Core cannot reach it"
    bob.tool("start", "--detach", timeout=600)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("nas on v1, the others untouched; the next start upgraded it again")


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_days_later_from_another_machine(fresh: Bed, bob: Operator, tmp_path: Path, note: list[str]) -> None:
    """Without history and state folder: only the fleet file and the run folders on the hosts."""
    before = fresh.configs(), proofs.core_files(fresh)
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    bob.leave()
    shutil.rmtree(bob.folder / "state")
    eve = Operator.of(fresh, tmp_path / "another machine", **ALL_AT_ONCE)
    try:
        shown = eve.ok("rollback", "fleet.toml", "--plan")
        assert "LOST" in shown
        assert NAME in shown
        eve.ok("rollback", "fleet.toml", "--detach", code=6)
        eve.answer(eve.gate("rollback/"))
        result = eve.wait()
    finally:
        eve.leave()
    assert result["state"] == "rolled back", json.dumps(result)[:3000]
    proofs.as_before(fresh, *before)
    note.append("without history and state folder: the run folders on the hosts were enough")


REFUSES = """#!/bin/sh
# Simulates an engine that cannot create a container of the old image.
case " $* " in *" up "*)
  if ! grep -q 2.3.2 /opt/komodo/compose.env /opt/komodo/*.yaml; then
    echo 'Error response from daemon: layer does not exist' >&2
    exit 1
  fi;;
esac
exec /usr/bin/docker "$@"
"""


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_an_old_core_that_does_not_start_again(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """A fleet must not remain without Core: v2 is started again with its data, and no agent was touched."""
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    files = proofs.core_files(fresh), fresh.configs()
    began = {s.name: fresh.show(s.name, "InvocationID") for s in fresh.servers}
    fresh.on("core", "sh", "-c", "cat >/usr/local/bin/docker; chmod 755 /usr/local/bin/docker", data=REFUSES)
    result = back(bob)
    assert result["state"] == "rollback incomplete", json.dumps(result)[:3000]
    assert "layer does not exist" in json.dumps(result)
    assert (proofs.core_files(fresh), fresh.configs()) == files
    assert {s.name: fresh.show(s.name, "InvocationID") for s in fresh.servers} == began
    proofs.upgraded(fresh)
    fresh.on("core", "rm", "/usr/local/bin/docker")
    again = back(bob)
    assert again["state"] == "rolled back", json.dumps(again)[:3000]
    fresh.wait_ok(OLD, 120)
    note.append("v2 ran again with its data, no agent was touched, and this was reported; engine repaired: rolled back")


@pytest.mark.parametrize("bob", [{"rollout": "wave = 2", "timing": PATIENT}], indirect=True)
def test_cancelled_and_terminated_in_temporal(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """Cancel at gate core undoes everything. After terminate during a server's switch, `start` continues."""
    before = fresh.configs(), proofs.core_files(fresh)
    bob.start()
    bob.gate("core")
    bob.temporal("cancel")
    ended = bob.wait()
    assert (ended["status"], ended["result"]["state"]) == ("canceled", "stopped"), json.dumps(ended)[:3000]
    proofs.as_before(fresh, *before)

    bob.start()
    bob.answer(bob.gate("core"))
    bob.answer(bob.gate("wave/2"))
    wait_for(
        "its switch", lambda: [job for job in fresh.jobs("db-1", NAME) if "switch" in job], seconds=120, pause=0.05
    )
    bob.temporal("terminate")
    bob.tool("status")
    bob.tool("start", "--detach", timeout=600)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    assert fresh.agent_version("db-1") == NEW
    note.append(
        "cancel at gate core: as before; terminate during the switch of db-1: the next start completed the upgrade"
    )
