"""Agents that connect to Core by themselves, from v2.x to v2.y and back: nothing about their connection changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hosts.ssh.pool import Hosts
from model.errors import ConfigNotLoaded, NotProven
from model.facts import Severity
from model.fleet.file import load
from model.fleet.spec import Connection
from model.planning import evaluate_key
from model.steps import SavedServerStep
from sandbox.fleet import Sandbox
from tests.activities.server_fleet import SPEED, Fleet, codes

OLD = "2.0.0"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """One outbound agent of 2.0.0 and a Core of the target."""
    started = await Sandbox.start(
        tmp_path, servers=1, core_version="2.3.2", agent_version=OLD, files="v2", outbound=("web-1",), speed=SPEED
    )
    async with started as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


async def test_the_connection_stays_as_it_is_there_and_back(fleet: Fleet) -> None:
    before = fleet.config("web-1").read_bytes()
    step = await fleet.ready("web-1")
    facts = evaluate_key(replace(fleet.core, public_key=fleet.key), step.facts)
    assert not codes(facts, Severity.REFUSE), facts.findings
    assert (facts.outbound, facts.edits, facts.file_keys) == (True, (), (fleet.key,))
    step = replace(step, facts=facts)
    switched = await fleet.switch(step)
    proof = await fleet.verify(step, switched)
    assert "Logged in to Komodo Core" in proof.line
    assert proof.line.endswith("as Server web-1")
    assert fleet.config("web-1").read_bytes() == before
    restored = await fleet.restore(SavedServerStep(**step.basis(), backup=step.backup))
    assert restored.version == OLD
    assert fleet.config("web-1").read_bytes() == before


async def test_another_key_in_its_file_is_no_proof(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    step = replace(step, facts=replace(step.facts, edits=()))
    switched = await fleet.switch(step)
    with pytest.raises(ConfigNotLoaded, match="not with Core's key"):
        await fleet.switch(replace(step, key="MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
    other = replace(step, server=replace(step.server, name="db-1"))
    with pytest.raises(NotProven, match="connects as the Server web-1, not as db-1"):
        await fleet.short().verify(other, switched)


async def test_what_is_refused(fleet: Fleet) -> None:
    facts = await fleet.survey("web-1", connection=Connection.INBOUND)
    assert codes(facts, Severity.REFUSE) == {"outbound"}
    config, systemd = fleet.config("web-1"), fleet.sandbox.hosts["web-1"].systemd
    config.write_text(config.read_text().replace('connect_as = "web-1"', 'connect_as = "db-1"'))
    service = systemd.services["periphery.service"]
    await systemd.stop(service)
    await systemd.start(service)
    assert codes(await fleet.survey("web-1"), Severity.REFUSE) == {"connects-as"}
