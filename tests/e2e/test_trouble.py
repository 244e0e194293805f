"""Machines that are not as they should be: no room, an agent that does not start, a config that does not load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.bed.shell import wait_for
from tests.e2e.person import Person

pytestmark = pytest.mark.e2e_all
STATE = "/var/lib/komodo-upgrade"


@pytest.fixture
def narrow(built: Bed) -> Iterator[Bed]:
    """The folder of the tool's own files is a small file system on nas."""
    built.extra = {"nas": ["--tmpfs", f"{STATE}:exec,mode=0700,size=600m"]}
    try:
        built.up()
        yield built
    finally:
        built.extra = {}


@pytest.fixture
def cleo(narrow: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Who upgrades it."""
    person = Person.of(narrow, tmp_path_factory.mktemp("cleo"))
    try:
        yield person
    finally:
        person.leave()


def _at_its_wave(person: Person) -> dict[str, Any]:
    """Core is upgraded, web-1 too; db-1 and nas are next."""
    person.start()
    person.answer(person.gate("core"))
    return person.gate("wave/2")


def _said_of(person: Person, server: str) -> str:
    shown = json.loads(person.tool("status", "-o", "json").stdout)
    return json.dumps([s for s in shown["servers"] if s["name"] == server])


def test_a_small_file_system_is_full(narrow: Bed, cleo: Person, note: list[str]) -> None:
    wave = _at_its_wave(cleo)
    run = narrow.show("nas", "InvocationID")
    config = narrow.configs()["nas"]
    narrow.on("nas", "sh", "-c", f"dd if=/dev/zero of={STATE}/filled bs=1M 2>/dev/null; df -Pk {STATE}")
    cleo.answer(wave)
    failed = cleo.gate("failure/nas/")
    assert "free" in _said_of(cleo, "nas"), _said_of(cleo, "nas")
    assert narrow.show("nas", "InvocationID") == run, "its agent was left alone"
    assert narrow.configs()["nas"] == config
    assert narrow.states()["db-1"] == ("Ok", NEW), "its neighbour is done"
    narrow.on("nas", "rm", f"{STATE}/filled")
    cleo.answer(failed, "retry", "nas")
    assert cleo.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(narrow)
    note.append("nothing was touched on the full machine, its neighbour was done; freed and retried")


def test_an_agent_that_does_not_stay_up(fresh: Bed, bob: Person, note: list[str]) -> None:
    """v2 makes a key pair of its own at its first start: where it cannot, it ends at once, again and again."""
    wave = _at_its_wave(bob)
    before = fresh.configs()["nas"]
    fresh.on("nas", "touch", "/etc/komodo/keys")
    bob.answer(wave)
    failed = bob.gate("failure/nas/")
    said = _said_of(bob, "nas")
    assert fresh.agent_version("nas") == OLD, said
    assert fresh.configs()["nas"] == before
    wait_for("v1 to run again", lambda: fresh.show("nas", "ActiveState") == "active", seconds=20)
    assert f"Komodo Periphery version: v{OLD}" in fresh.agent_log("nas")
    assert fresh.states()["db-1"] == ("Ok", NEW), "its neighbour is done"
    fresh.on("nas", "rm", "/etc/komodo/keys")
    bob.answer(failed, "retry", "nas")
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append(f"v1 was put back by itself; cured and retried; said: {json.loads(said)[0].get('detail', '')[:160]!r}")


def test_an_agent_whose_config_does_not_load_is_open(fresh: Bed, bob: Person, note: list[str]) -> None:
    """v1 starts without its config, and so without passkeys: refused before anything is touched."""
    file = "/etc/komodo/periphery.config.toml"
    fresh.on("db-1", "cp", "-p", file, "/root/kept")
    fresh.on("db-1", "sh", "-c", f"printf '\\ntwice = 1\\ntwice = 1\\n' >>{file}; systemctl restart periphery")
    wait_for("v1 to say so", lambda: f"Komodo Periphery version: v{OLD}" in fresh.agent_log("db-1"), seconds=20)
    before = fresh.configs(), proofs.core_files(fresh)
    checked = bob.tool("check")
    assert checked.returncode not in (0, 1), bob.said[-1]
    assert "db-1" in checked.stdout
    assert "open" in checked.stdout
    started = bob.tool("start", "--detach")
    assert started.returncode not in (0, 1, 6), bob.said[-1]
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    fresh.on("db-1", "sh", "-c", f"cp -p /root/kept {file}; systemctl restart periphery")
    fresh.wait_ok(OLD, 60)
    bob.ok("check")
    note.append("check and start refuse it by name; nothing was changed; cured: accepted")


def test_a_dump_that_is_cut_off(fresh: Bed, bob: Person, note: list[str]) -> None:
    """mongodump says that all went well; half of the archive is there."""
    cut = '#!/bin/sh\n/usr/bin/mongodump.whole "$@" | head -c 1500\n'
    inside = ("docker", "exec", "-i", "komodo-mongo-1", "sh", "-c")
    fresh.on(
        "core", *inside, "mv /usr/bin/mongodump /usr/bin/mongodump.whole; cat >/usr/bin/mongodump;"
        " chmod 755 /usr/bin/mongodump", data=cut,
    )  # fmt: skip
    before = fresh.configs(), proofs.core_files(fresh)
    started = bob.tool("start", "--detach", timeout=600)
    assert started.returncode not in (0, 1), bob.said[-1]
    assert "cut off" in bob.said[-1] + bob.tool("status").stdout, bob.said[-2:]
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    assert fresh.core_image().endswith(":latest")
    fresh.wait_ok(OLD, 60)
    fresh.on("core", *inside, "mv /usr/bin/mongodump.whole /usr/bin/mongodump")
    note.append(f"exit code {started.returncode}, nothing changed, v1 runs on")
