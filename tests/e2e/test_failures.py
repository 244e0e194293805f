"""Faulty machines: a full disk, an agent that does not start, a configuration that does not load, a bad dump."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.bed.shell import wait_for
from tests.e2e.operator import Operator

pytestmark = pytest.mark.e2e_all
STATE = "/var/lib/komodo-upgrade"


@pytest.fixture
def narrow(built: Bed) -> Iterator[Bed]:
    """The tool's folder on nas is a small file system."""
    built.extra = {"nas": ["--tmpfs", f"{STATE}:exec,mode=0700,size=600m"]}
    try:
        built.up()
        yield built
    finally:
        built.extra = {}


@pytest.fixture
def cleo(narrow: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator of that fleet."""
    operator = Operator.of(narrow, tmp_path_factory.mktemp("cleo"))
    try:
        yield operator
    finally:
        operator.leave()


def _at_its_wave(operator: Operator) -> dict[str, Any]:
    """Upgrade Core and web-1; db-1 and nas are next."""
    operator.start()
    operator.answer(operator.gate("core"))
    return operator.gate("wave/2")


def _shown_of(operator: Operator, server: str) -> str:
    shown = json.loads(operator.tool("status", "-o", "json").stdout)
    return json.dumps([s for s in shown["servers"] if s["name"] == server])


def test_a_small_file_system_is_full(narrow: Bed, cleo: Operator, note: list[str]) -> None:
    wave = _at_its_wave(cleo)
    run = narrow.show("nas", "InvocationID")
    config = narrow.configs()["nas"]
    narrow.on("nas", "sh", "-c", f"dd if=/dev/zero of={STATE}/filled bs=1M 2>/dev/null; df -Pk {STATE}")
    cleo.answer(wave)
    failed = cleo.gate("failure/nas/")
    assert "free" in _shown_of(cleo, "nas"), _shown_of(cleo, "nas")
    assert narrow.show("nas", "InvocationID") == run, "its agent was not touched"
    assert narrow.configs()["nas"] == config
    assert narrow.states()["db-1"] == ("Ok", NEW), "the other server is upgraded"
    narrow.on("nas", "rm", f"{STATE}/filled")
    cleo.answer(failed, "retry", "nas")
    assert cleo.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(narrow)
    note.append("nothing changed on the full machine, the other server was upgraded; space freed and retried")


def test_an_agent_that_does_not_stay_up(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """v2 creates its key pair at its first start; if it cannot, it crashes at each start."""
    wave = _at_its_wave(bob)
    before = fresh.configs()["nas"]
    fresh.on("nas", "touch", "/etc/komodo/keys")
    bob.answer(wave)
    failed = bob.gate("failure/nas/")
    shown = _shown_of(bob, "nas")
    assert fresh.agent_version("nas") == OLD, shown
    assert fresh.configs()["nas"] == before
    wait_for("v1 to run again", lambda: fresh.show("nas", "ActiveState") == "active", seconds=20)
    assert f"Komodo Periphery version: v{OLD}" in fresh.agent_log("nas")
    assert fresh.states()["db-1"] == ("Ok", NEW), "the other server is upgraded"
    fresh.on("nas", "rm", "/etc/komodo/keys")
    bob.answer(failed, "retry", "nas")
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    note.append(f"v1 was restored; repaired and retried; detail: {json.loads(shown)[0].get('detail', '')[:160]!r}")


def test_an_agent_whose_config_does_not_load_is_refused(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """v1 starts without its configuration, and therefore without passkeys: refused before anything is changed."""
    file = "/etc/komodo/periphery.config.toml"
    fresh.on("db-1", "cp", "-p", file, "/root/kept")
    fresh.on("db-1", "sh", "-c", f"printf '\\ntwice = 1\\ntwice = 1\\n' >>{file}; systemctl restart periphery")
    wait_for("v1 to say so", lambda: f"Komodo Periphery version: v{OLD}" in fresh.agent_log("db-1"), seconds=20)
    before = fresh.configs(), proofs.core_files(fresh)
    checked = bob.tool("check")
    assert checked.returncode not in (0, 1), bob.transcript[-1]
    assert "db-1" in checked.stdout
    assert "open" in checked.stdout
    started = bob.tool("start", "--detach")
    assert started.returncode not in (0, 1, 6), bob.transcript[-1]
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    fresh.on("db-1", "sh", "-c", f"cp -p /root/kept {file}; systemctl restart periphery")
    fresh.wait_ok(OLD, 60)
    bob.ok("check")
    note.append("check and start refuse it by name; nothing was changed; repaired: accepted")


def test_a_dump_that_is_cut_off(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """mongodump reports success but writes half of the archive."""
    cut = '#!/bin/sh\n/usr/bin/mongodump.whole "$@" | head -c 1500\n'
    inside = ("docker", "exec", "-i", "komodo-mongo-1", "sh", "-c")
    fresh.on(
        "core", *inside, "mv /usr/bin/mongodump /usr/bin/mongodump.whole; cat >/usr/bin/mongodump;"
        " chmod 755 /usr/bin/mongodump", data=cut,
    )  # fmt: skip
    before = fresh.configs(), proofs.core_files(fresh)
    started = bob.tool("start", "--detach", timeout=600)
    assert started.returncode not in (0, 1), bob.transcript[-1]
    assert "cut off" in bob.transcript[-1] + bob.tool("status").stdout, bob.transcript[-2:]
    assert (fresh.configs(), proofs.core_files(fresh)) == before
    assert fresh.core_image().endswith(":latest")
    fresh.wait_ok(OLD, 60)
    fresh.on("core", *inside, "mv /usr/bin/mongodump.whole /usr/bin/mongodump")
    note.append(f"exit code {started.returncode}, nothing changed, v1 still runs")
