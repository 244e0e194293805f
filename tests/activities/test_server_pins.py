"""Pins of Core's key that survive a rotation of Core's keys, and those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hosts.ssh.pool import Hosts
from model.facts import CoreFacts, ServerFacts, Severity
from model.fleet.file import load
from model.planning import evaluate_key
from model.steps import SavedServerStep
from sandbox.fleet import Sandbox
from sandbox.komodo_core import execute
from tests.activities.server_fleet import NEW, SPEED, Fleet, codes

OLD = "2.0.0"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two inbound agents of 2.0.0 with Core's key in their configs, as the guide writes it; Core of the target."""
    started = await Sandbox.start(tmp_path, servers=2, core_version=NEW, agent_version=OLD, files="v2", speed=SPEED)
    async with started as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


def core_of(fleet: Fleet) -> CoreFacts:
    return replace(fleet.core, current=True, public_key=fleet.key)


async def restarted(fleet: Fleet, name: str) -> None:
    systemd = fleet.sandbox.hosts[name].systemd
    await systemd.stop(systemd.services["periphery.service"])
    await systemd.start(systemd.services["periphery.service"])


async def logins(fleet: Fleet, name: str) -> bool:
    """Whether the agent that runs now lets Core in."""
    service = fleet.sandbox.hosts[name].systemd.services["periphery.service"]
    for _ in range(100):
        if service.agent is not None and service.agent.sessions:
            return True
        if any("failed to validate Core public key" in line for line in fleet.sandbox.logs(name)):
            return False
        await asyncio.sleep(0.05)
    raise AssertionError(fleet.sandbox.logs(name))


async def test_a_rotation_cuts_off_inline_pins_only(fleet: Fleet) -> None:
    """As on real v2.3.2: Core reports success for both, and one of them refuses it after its next start."""
    facts = evaluate_key(core_of(fleet), await fleet.survey("web-1"))
    assert "inline-pin" in codes(facts, Severity.WARN)
    assert [e.kind for e in facts.edits] == ["periphery-config", "core-key"]
    step = await fleet.prepared(replace(await fleet.step("web-1"), facts=facts))
    before = fleet.config("web-1").read_bytes()
    switched = await fleet.switch(step)
    assert (await fleet.verify(step, switched)).by_core
    key_file = fleet.root("web-1") / "etc/komodo/keys/core.pub"
    text = fleet.config("web-1").read_text()
    assert f"file:{key_file}" in text
    assert fleet.key not in text, "the key itself is gone: it would stay accepted after a rotation"

    core = fleet.sandbox.core
    assert core is not None
    assert await logins(fleet, "db-1")
    old = fleet.key
    answer = execute.run(core, "execute", "RotateCoreKeys", {"force": False}, "admin")
    assert answer["success"]
    assert fleet.key != old
    assert fleet.key in key_file.read_text()
    for name in ("web-1", "db-1"):
        await restarted(fleet, name)
    assert await logins(fleet, "web-1")
    assert not await logins(fleet, "db-1")

    restored = await fleet.restore(SavedServerStep(**step.basis(), backup=step.backup))
    assert (restored.version, fleet.config("web-1").read_bytes()) == (OLD, before)


@pytest.mark.parametrize("inline", [False, True])
async def test_what_is_warned_of_and_changed(fleet: Fleet, inline: bool) -> None:
    """An agent on the target is current, whatever its pin; with pin = "inline" nothing is offered."""
    asking = fleet.inline() if inline else fleet
    facts: ServerFacts = evaluate_key(core_of(fleet), await asking.survey("web-1"))
    [warning] = [f for f in facts.findings if f.code == "inline-pin"]
    assert ('pin = "file"' in warning.hint) == inline
    assert bool(facts.edits) != inline
    assert evaluate_key(core_of(fleet), facts) == facts
