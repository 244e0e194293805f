"""The agent in Core's own project: pinned, repeated, and with a way back of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.core_edits import read_and_compute, staged_name
from komodo.compose import pin_agent_key
from model.steps import CoreStep, Operation
from tests.activities.core_fleet import Bench, bench, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def test_the_agent_has_cores_key_already(b: Bench) -> None:
    """The plan was made while Core's key was not known; a comment shows the key, too."""
    assert b.sandbox.core is not None
    await b.quiet()
    await b.core.write_core_files(b.step)
    await b.core.start_core(b.step)
    key = (await b.core.read_core_key(b.step)).public_key
    compose = b.project / "mongo.compose.yaml"
    text = pin_agent_key(compose.read_text(), service="periphery", key=key).text + f"# {key}\n"
    compose.write_text(text)
    edits = await read_and_compute(
        await b.hosts.get(b.fleet.core.host), b.step.facts, b.fleet.target, b.fleet.core.keys_mount
    )
    assert edits.pin is not None
    pin = replace(edits.pin.planned(), with_key=True)
    before = tuple(e for e in b.step.facts.edits if not e.with_key)
    b.step = replace(b.step, key=key, facts=replace(b.step.facts, edits=(*before, pin)))
    switched = await b.core.switch_core_agent(b.step)
    assert (switched.version, compose.read_text()) == ("2.3.2", text)
    assert (await b.core.switch_core_agent(b.step)).invocation == switched.invocation


async def test_a_repeated_pin_finds_itself_beside_a_comment_with_the_key(b: Bench) -> None:
    await b.quiet()
    await b.core.write_core_files(b.step)
    await b.core.start_core(b.step)
    key = (await b.core.read_core_key(b.step)).public_key
    compose = b.project / "mongo.compose.yaml"
    compose.write_text(compose.read_text() + f"# {key}\n")
    host = await b.hosts.get(b.fleet.core.host)
    pin = (await read_and_compute(host, b.step.facts, b.fleet.target, b.fleet.core.keys_mount)).pin
    assert pin is not None
    (b.folder / "staged" / staged_name(str(compose))).write_text(pin.before)
    before = tuple(e for e in b.step.facts.edits if not e.with_key)
    edits = (*before, replace(pin.planned(), with_key=True))
    b.step = replace(b.step, key=key, facts=replace(b.step.facts, edits=edits))
    switched = await b.core.switch_core_agent(b.step)
    assert (await b.core.switch_core_agent(b.step)).invocation == switched.invocation


async def test_the_agent_of_a_core_that_is_on_the_target_already_has_a_way_back_of_its_own(b: Bench) -> None:
    """Another change: Core's files name the new images, only the agent was put back by the run before."""
    await b.upgraded()
    await b.back.restore_core_agent(b.step)
    facts = await b.survey()
    assert (facts.current, facts.agent and facts.agent.version, refusals(facts)) == (True, "1.19.5", [])
    later = Operation(change="20261124T080000Z", fleet=b.fleet.name, target="core")
    b.step = CoreStep(op=later, fleet=b.fleet, facts=facts, key=b.step.key)
    b.step = replace(b.step, backup=await b.backup.back_up_core(b.step))
    assert (await b.core.switch_core_agent(b.step)).version == "2.3.2"
    core = b.restarted("komodo-core-1")
    restored = await b.back.restore_core_agent(b.step)
    assert (restored.version, b.sandbox.core and b.sandbox.core.version) == ("1.19.5", "2.3.2")
    assert b.restarted("komodo-core-1") == core
    b.next_attempt()
    assert (await b.core.switch_core_agent(b.step)).version == "2.3.2"
