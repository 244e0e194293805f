"""Agents in containers of other hosts, in three shapes: found, upgraded, proven and restored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.facts import Install, Severity
from tests.activities.server_fleet import NEW, OLD, Fleet, codes, fleet_of

SHAPES = {"web-1": "own", "db-1": "shared", "nas": "config"}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_of(tmp_path, servers=3, containers=SHAPES) as made:
        yield made


async def test_three_shapes_are_upgraded_and_restored(fleet: Fleet) -> None:
    for name in SHAPES:
        before = {p: p.read_text() for p in fleet.root(name).glob("*/*/*") if p.suffix in (".yaml", ".yml", ".env")}
        step = await fleet.step(name)
        facts = step.facts
        assert (facts.install, facts.version, codes(facts, Severity.REFUSE)) == (Install.CONTAINER, OLD, set()), name
        assert not facts.in_core_project
        assert fleet.sandbox.own_secrets.passkey not in repr(facts)
        ready = await fleet.prepared(step)
        assert not (await fleet.recheck(ready)).drift
        old = fleet.sandbox.agent_container(name).id
        switched = await fleet.switch(ready)
        container = fleet.sandbox.agent_container(name)
        assert (switched.version, container.image.version, container.spec.init) == (NEW, NEW, True)
        assert container.id != old, "a container that is only restarted keeps its image"
        assert (await fleet.switch(ready)).invocation == switched.invocation
        proof = await fleet.verify(ready, switched)
        assert proof.by_core
        assert "Logged in to" in proof.line
        assert fleet.sandbox.prune_images(name) == []
        restored = await fleet.restore(ready)
        assert (restored.version, fleet.sandbox.agent_version(name)) == (OLD, OLD)
        assert {p: p.read_text() for p in before} == before
        assert (await fleet.restore(ready)).invocation == restored.invocation
    assert fleet.sandbox.world.defects == []
