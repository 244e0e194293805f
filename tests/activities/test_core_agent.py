"""The agent in Core's own project: pinned, repeated, and rolled back on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.core.files import read_and_edit, staged_name
from komodo.compose.agent_key import pin_agent_key
from model.facts import installation
from model.steps import CoreStep, Operation
from tests.activities.core_fleet import Bench, bench, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def test_an_agent_that_has_cores_key_already(b: Bench) -> None:
    """The plan was made while Core's key was not known; a comment shows the key, too."""
    assert b.sandbox.core is not None
    await b.quiet()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    b.key = key = (await b.core.read_core_key(b.to_read())).public_key
    compose = b.project / "mongo.compose.yaml"
    text = pin_agent_key(compose.read_text(), service="periphery", key=key).text + f"# {key}\n"
    compose.write_text(text)
    edits = await read_and_edit(
        await b.hosts.get(b.fleet.core.host), b.step.facts, b.fleet.target, b.fleet.core.keys_mount
    )
    assert edits.pin is not None
    pin = edits.pin.planned(with_key=True)
    before = tuple(e for e in b.step.facts.edits if not e.with_key)
    b.step = replace(b.step, facts=replace(b.step.facts, edits=(*before, pin)))
    switched = await b.switch_agent()
    assert (switched.version, compose.read_text()) == ("2.3.2", text)
    assert (await b.switch_agent()).invocation == switched.invocation


async def test_a_repeated_pin_is_found_next_to_a_comment_with_the_key(b: Bench) -> None:
    await b.quiet()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    b.key = key = (await b.core.read_core_key(b.to_read())).public_key
    compose = b.project / "mongo.compose.yaml"
    compose.write_text(compose.read_text() + f"# {key}\n")
    host = await b.hosts.get(b.fleet.core.host)
    pin = (await read_and_edit(host, b.step.facts, b.fleet.target, b.fleet.core.keys_mount)).pin
    assert pin is not None
    (b.folder / "staged" / staged_name(str(compose))).write_text(pin.before)
    before = tuple(e for e in b.step.facts.edits if not e.with_key)
    edits = (*before, pin.planned(with_key=True))
    b.step = replace(b.step, facts=replace(b.step.facts, edits=edits))
    switched = await b.switch_agent()
    assert (await b.switch_agent()).invocation == switched.invocation


async def test_the_agent_of_a_core_on_the_target_can_be_rolled_back(b: Bench) -> None:
    """Another change: Core's files name the new images, only the agent was rolled back by the previous run."""
    await b.upgraded()
    await b.restore_agent()
    facts = await b.survey()
    assert (facts.current, facts.agent and facts.agent.version, refusals(facts)) == (True, "1.19.5", [])
    later = Operation(change="20261124T080000Z", fleet=b.fleet.name, target="core")
    b.step = CoreStep(op=later, fleet=b.fleet, facts=installation(facts))
    b.saved = await b.backup.back_up_core(b.step)
    assert (await b.switch_agent()).version == "2.3.2"
    core = b.restarted("komodo-core-1")
    restored = await b.restore_agent()
    assert (restored.version, b.sandbox.core and b.sandbox.core.version) == ("1.19.5", "2.3.2")
    assert b.restarted("komodo-core-1") == core
    b.next_attempt()
    assert (await b.switch_agent()).version == "2.3.2"


def changed_files(b: Bench, setting: str, env: str) -> None:
    """One entry in `environment:` of the agent, and lines in the env file."""
    compose, env_file = b.project / "mongo.compose.yaml", b.project / "compose.env"
    environment = f"  periphery:\n    environment:\n      {setting}\n" if setting else "  periphery:\n"
    compose.write_text(compose.read_text().replace("  periphery:\n", environment))
    env_file.write_text(env_file.read_text() + env)


async def test_a_pin_in_a_variable_is_written_to_the_env_file(b: Bench) -> None:
    changed_files(b, "PERIPHERY_CORE_PUBLIC_KEYS: ${CORE_KEY}", "CORE_KEY=\n")
    await b.upgraded()
    pin = next(e for e in b.step.facts.edits if e.with_key)
    assert (Path(pin.path).name, pin.kind) == ("compose.env", "env")
    assert f"\nCORE_KEY={b.key}\n" in (b.project / "compose.env").read_text()
    assert "PERIPHERY_CORE_PUBLIC_KEYS: ${CORE_KEY}\n" in (b.project / "mongo.compose.yaml").read_text()
    restored = await b.restore_agent()
    assert restored.version == "1.19.5"


async def test_an_agent_that_reads_the_file_of_core_needs_no_pin(b: Bench) -> None:
    changed_files(b, "", "PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub\n")
    await b.upgraded()
    assert not [e for e in b.step.facts.edits if e.with_key]
