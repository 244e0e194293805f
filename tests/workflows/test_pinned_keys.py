"""An agent on the target is current only with Core's own key; what a survey cannot know is judged for the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.decisions import Verdict
from model.facts import CoreFacts, KnownServer, ServerFacts, Severity
from model.progress import FleetState, ServerState
from tests.workflows.doubles import CHANGE, KEY, NEW, Doubles, broken, core_facts, fleet, server_facts
from tests.workflows.driver import Driver
from workflows.preflight import assemble, differs, judged

OTHER = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
FILE = "file:/etc/komodo/keys/core.pub"


def core(*, key: str = KEY, state: str = "Ok") -> CoreFacts:
    seen = KnownServer(name="web-1", id="1", address="https://web-1:8120", enabled=True, state=state, version=NEW)
    return replace(core_facts(current=True), public_key=key, servers=(seen,))


def on_target(*keys: str, version: str = NEW, edits: bool = True) -> ServerFacts:
    """As a survey says it: some key is pinned, and this would add Core's."""
    edit = server_facts("web-1").edits if edits else ()
    return replace(server_facts("web-1", current=version == NEW), version=version, pinned_keys=keys, edits=edit)


def said(facts: ServerFacts) -> list[tuple[str, Severity]]:
    return [(f.code, f.severity) for f in facts.findings]


def test_cores_key_among_the_pinned_ones_is_enough() -> None:
    for facts in (on_target(KEY), on_target(OTHER, KEY)):
        found = judged(core(), facts)
        assert (found.current, found.edits, said(found)) == (True, (), [])
    younger = judged(core(), on_target(KEY, version="2.0.0"))
    assert (younger.current, younger.edits) == (False, ())


def test_another_key_is_not_current_and_gets_cores() -> None:
    found = judged(core(), on_target(OTHER))
    assert (found.current, len(found.edits)) == (False, 1)
    assert said(found) == [("another-key", Severity.WARN)]
    assert OTHER in found.findings[0].text
    assert judged(core(), found) == judged(core(), judged(core(), found)), "planning again says it once"
    plan = assemble(fleet(1), CHANGE, core(), {"web-1": on_target(OTHER)})
    assert (plan.already_current, [w.servers for w in plan.waves]) == ((), [("web-1",)])


def test_another_key_in_a_file_that_cannot_be_edited_is_refused() -> None:
    found = judged(core(), on_target(OTHER, edits=False))
    assert said(found) == [("another-key", Severity.REFUSE)]


@pytest.mark.parametrize(("state", "current"), [("Ok", True), ("NotOk", False)])
def test_a_key_in_a_file_counts_only_where_core_logs_in(state: str, current: bool) -> None:
    found = judged(core(state=state), on_target(FILE))
    assert (found.current, len(found.edits)) == (current, 0 if current else 1)


@pytest.mark.parametrize(
    ("state", "enabled", "current"),
    [("Ok", True, True), ("NotOk", True, False), ("Disabled", False, True), ("", True, True)],
)
def test_what_core_does_not_see_is_not_current(state: str, enabled: bool, current: bool) -> None:
    """As an earlier run leaves a server that is unproven: there is nothing to edit, and something to prove."""
    [seen] = core(state=state).servers
    known = replace(core(), servers=(replace(seen, enabled=enabled),))
    found = judged(known, on_target(KEY))
    assert (found.current, found.edits) == (current, ())
    assert said(found) == ([] if current else [("not-proven", Severity.WARN)])
    assert judged(known, found) == found, "planning again says it once"


async def test_starting_again_proves_what_was_unproven(run: Driver, doubles: Doubles) -> None:
    doubles.core = core(state="NotOk")
    doubles.servers["web-1"] = on_target(KEY)
    doubles.play("verify_server", "web-1", broken("NotProven", "no login of Core"))
    talk = await run.upgrade(fleet(1))
    gate = await talk.answer("wave/1")
    assert any("Core says NotOk: it counts as upgraded once it is proven" in fact for fact in gate.facts)
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    result = await talk.result()
    assert (result.state, result.servers[0].state) == (FleetState.INCOMPLETE, ServerState.UNPROVEN)


async def test_an_agent_in_cores_project_that_core_does_not_see_is_told(run: Driver, doubles: Doubles) -> None:
    beside = replace(core_facts(agent=True, current=True), public_key=KEY)
    seen = KnownServer(name="Local", id="2", address="https://periphery:8120", enabled=True, state="NotOk", version=NEW)
    agent = replace(beside.agent, version=NEW) if beside.agent else None
    doubles.core = replace(beside, agent=agent, servers=(seen,))
    doubles.servers["web-1"] = on_target(KEY)
    result = await (await run.upgrade(fleet(1))).result()
    assert result.state is FleetState.ALREADY_CURRENT
    assert "Core says NotOk of its own project's agent" in result.detail
    assert [(w.subject, w.text) for w in result.warnings] == [("Local", "Core says NotOk of its own project's agent")]


def test_while_core_is_on_v1_no_pinned_key_is_known_to_be_its() -> None:
    found = judged(core_facts(), on_target(KEY))
    assert (found.current, len(found.edits)) == (False, 1)


def test_where_cores_key_cannot_be_read_it_is_said() -> None:
    found = judged(core(key=""), on_target(KEY))
    assert (found.current, found.edits, said(found)) == (True, (), [("key-not-compared", Severity.WARN)])


def test_a_server_without_a_pinned_key_is_as_it_was_surveyed() -> None:
    facts = server_facts("web-1")
    assert judged(core(), facts) is facts
    assert not differs(judged(core(), on_target(KEY)), judged(core(), judged(core(), on_target(KEY))))


async def test_a_server_that_pins_another_key_is_upgraded(run: Driver, doubles: Doubles) -> None:
    doubles.core = core()
    doubles.servers["web-1"] = on_target(OTHER)
    talk = await run.upgrade(fleet(1))
    gate = await talk.answer("wave/1")
    assert any("pins another key than Core's" in fact for fact in gate.facts)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [step.facts.edits for step in doubles.inputs("switch_server")] != [()]


async def test_a_retry_looks_with_the_same_eyes(run: Driver, doubles: Doubles) -> None:
    """Somebody pins Core's key by hand while the failure waits: then there is nothing to try."""
    doubles.core = core()
    doubles.servers["web-1"] = on_target(OTHER)
    doubles.play("switch_server", "web-1", broken("AgentNotStarted", "it exits"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("wave/1")
    await talk.gate("failure/web-1/1")
    doubles.servers["web-1"] = on_target(KEY)
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    result = await talk.result()
    assert (result.state, result.servers[0].version_before) == (FleetState.UPGRADED, NEW)
    assert doubles.count("switch_server") == 1
