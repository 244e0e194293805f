"""The way back: from every gate, for one server, days later, when v1 will not start, after a cancel or terminate."""

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
from tests.e2e.person import NAME, Person
from tests.e2e.test_crash import ALL_AT_ONCE
from tests.e2e.test_failure import QUICK

pytestmark = pytest.mark.e2e_all


def back(person: Person, *words: str) -> dict[str, Any]:
    """Ask for a rollback, approve it at its gate, and wait for its end."""
    person.ok("rollback", NAME, *words, "--detach", code=6)
    person.answer(person.gate("rollback/"))
    return person.wait()


@pytest.mark.parametrize("bob", [QUICK], indirect=True)
def test_from_every_gate(fresh: Bed, bob: Person, note: list[str]) -> None:
    """Core's, a wave's, a failed server's: afterwards all is as it was, and the next upgrade begins."""
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
def test_one_server_alone_and_then_forward_again(fresh: Bed, bob: Person, note: list[str]) -> None:
    config = fresh.configs()["nas"]
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    result = back(bob, "--server", "nas")
    assert result["state"] == "rolled back", json.dumps(result)[:3000]
    assert fresh.agent_version("nas") == OLD
    assert fresh.configs()["nas"] == config
    proofs.upgraded(fresh, [s.name for s in fresh.servers if s.name != "nas"])
    assert fresh.states()["nas"][0] != "Ok", "a v2 Core cannot talk to it"
    bob.tool("start", "--detach", timeout=600)
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append("nas back on v1, the others untouched; the next start took it forward again")


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_days_later_from_another_machine(fresh: Bed, bob: Person, tmp_path: Path, note: list[str]) -> None:
    """No history, no state folder, no memory: the fleet file and what lies on the hosts."""
    before = fresh.configs(), proofs.core_files(fresh)
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    bob.leave()
    shutil.rmtree(bob.folder / "state")
    eve = Person.of(fresh, tmp_path / "another machine", **ALL_AT_ONCE)
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
    note.append("history and state folder gone: the folders on the hosts were enough")


REFUSES = """#!/bin/sh
# As an engine that cannot create a container of the old image.
case " $* " in *" up "*)
  if ! grep -q 2.3.2 /opt/komodo/compose.env /opt/komodo/*.yaml; then
    echo 'Error response from daemon: layer does not exist' >&2
    exit 1
  fi;;
esac
exec /usr/bin/docker "$@"
"""


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_an_old_core_that_does_not_start_again(fresh: Bed, bob: Person, note: list[str]) -> None:
    """The fleet must not be left without a Core: v2 is put back, on its own data, and no agent was touched."""
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
    note.append("v2 was back with its data, no agent touched, said so; engine mended: rolled back")


@pytest.mark.parametrize("bob", [{"rollout": "wave = 2", "timing": PATIENT}], indirect=True)
def test_cancelled_and_terminated_in_temporal(fresh: Bed, bob: Person, note: list[str]) -> None:
    """Cancel at gate core undoes everything; terminate in a server's switch leaves it whole, and `start` goes on."""
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
    note.append("cancel at gate core: as before; terminate while db-1 was switched: the next start went on to the end")
