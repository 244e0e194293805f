"""An agent on the target is current only with Core's own key; the plan evaluates the keys that a survey cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.facts import CoreFacts, KnownServer, ServerFacts, Severity
from model.gates import Verdict
from model.planning import evaluate_key, make_plan, server_differs
from model.status import FleetState, ServerState
from tests.workflows.doubles import CHANGE, KEY, NEW, Doubles, broken, core_facts, fleet, server_facts
from tests.workflows.driver import Driver

OTHER = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
FILE = "file:/etc/komodo/keys/core.pub"


def core(*, key: str = KEY, state: str = "Ok") -> CoreFacts:
    seen = KnownServer(name="web-1", id="1", address="https://web-1:8120", enabled=True, state=state, version=NEW)
    return replace(core_facts(current=True), public_key=key, servers=(seen,))


def on_target(*keys: str, version: str = NEW, edits: bool = True) -> ServerFacts:
    """As a survey reports it: some key is pinned, and the edit would add Core's."""
    edit = server_facts("web-1").edits if edits else ()
    return replace(server_facts("web-1", current=version == NEW), version=version, pinned_keys=keys, edits=edit)


def reported(facts: ServerFacts) -> list[tuple[str, Severity]]:
    return [(f.code, f.severity) for f in facts.findings]


def test_cores_key_among_the_pinned_ones_is_enough() -> None:
    for facts in (on_target(KEY), on_target(OTHER, KEY)):
        found = evaluate_key(core(), facts)
        assert (found.current, found.edits, reported(found)) == (True, (), [("inline-pin", Severity.WARN)])
    younger = evaluate_key(core(), on_target(KEY, version="2.0.0"))
    assert (younger.current, younger.edits) == (False, ())


def test_a_key_in_a_file_is_enough_without_a_warning() -> None:
    """Also where it was written as this plan's edit; one in the config is replaced where the survey offers that."""
    found = evaluate_key(core(), replace(on_target(FILE), file_keys=(KEY,)))
    assert (found.current, found.edits, reported(found)) == (True, (), [])
    offered = replace(on_target(KEY, version="2.0.0"), repin=server_facts("web-1").edits)
    found = evaluate_key(core(), offered)
    assert (found.edits, found.repin) == (offered.repin, ())
    assert evaluate_key(core(), found) == found, "idempotent"
    assert evaluate_key(core(key=OTHER), offered).edits == offered.edits


def test_another_key_is_not_current_and_gets_cores() -> None:
    found = evaluate_key(core(), on_target(OTHER))
    assert (found.current, len(found.edits)) == (False, 1)
    assert reported(found) == [("another-key", Severity.WARN)]
    assert OTHER in found.findings[0].text
    assert evaluate_key(core(), found) == evaluate_key(core(), evaluate_key(core(), found)), (
        "planning again reports it once"
    )
    plan = make_plan(fleet(1), CHANGE, core(), {"web-1": on_target(OTHER)})
    assert (plan.already_current, [w.servers for w in plan.waves]) == ((), [("web-1",)])


def test_another_key_in_a_file_that_cannot_be_edited_is_refused() -> None:
    found = evaluate_key(core(), on_target(OTHER, edits=False))
    assert reported(found) == [("another-key", Severity.REFUSE)]


@pytest.mark.parametrize(("state", "current"), [("Ok", True), ("NotOk", False)])
def test_a_key_in_a_file_counts_only_where_core_logs_in(state: str, current: bool) -> None:
    found = evaluate_key(core(state=state), on_target(FILE))
    assert (found.current, len(found.edits)) == (current, 0 if current else 1)


@pytest.mark.parametrize(
    ("state", "enabled", "current"),
    [("Ok", True, True), ("NotOk", True, False), ("Disabled", False, True), ("", True, True)],
)
def test_what_core_does_not_see_is_not_current(state: str, enabled: bool, current: bool) -> None:
    """As an earlier run leaves a server that is unverified: there is nothing to edit, and something to prove."""
    [seen] = core(state=state).servers
    known = replace(core(), servers=(replace(seen, enabled=enabled),))
    found = evaluate_key(known, on_target(KEY))
    assert (found.current, found.edits) == (current, ())
    inline = ("inline-pin", Severity.WARN)
    assert reported(found) == ([inline] if current else [("not-proven", Severity.WARN), inline])
    assert evaluate_key(known, found) == found, "idempotent"


async def test_starting_again_proves_what_was_unverified(run: Driver, doubles: Doubles) -> None:
    doubles.core = core(state="NotOk")
    doubles.servers["web-1"] = on_target(KEY)
    doubles.play("verify_server", "web-1", broken("NotProven", "no login of Core"))
    talk = await run.upgrade(fleet(1))
    gate = await talk.answer("wave/1")
    assert any("Core reports NotOk: it counts as upgraded once it is proven" in fact for fact in gate.facts)
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    result = await talk.result()
    assert (result.state, result.servers[0].state) == (FleetState.INCOMPLETE, ServerState.UNVERIFIED)


async def test_an_agent_in_cores_project_that_core_does_not_see_is_reported(run: Driver, doubles: Doubles) -> None:
    project = replace(core_facts(agent=True, current=True), public_key=KEY)
    seen = KnownServer(name="Local", id="2", address="https://periphery:8120", enabled=True, state="NotOk", version=NEW)
    agent = replace(project.agent, version=NEW) if project.agent else None
    doubles.core = replace(project, agent=agent, servers=(seen,))
    doubles.servers["web-1"] = replace(on_target(FILE), file_keys=(KEY,))
    result = await (await run.upgrade(fleet(1))).result()
    assert result.state is FleetState.ALREADY_CURRENT
    assert "Core reports NotOk for the agent in its own project" in result.detail
    assert [(w.subject, w.text) for w in result.warnings] == [
        ("Local", "Core reports NotOk for the agent in its own project")
    ]


def test_while_core_is_on_v1_no_pinned_key_is_known_to_be_its() -> None:
    found = evaluate_key(core_facts(), on_target(KEY))
    assert (found.current, len(found.edits)) == (False, 1)


def test_where_cores_key_cannot_be_read_it_is_said() -> None:
    found = evaluate_key(core(key=""), on_target(KEY))
    assert (found.current, found.edits, reported(found)) == (True, (), [("key-not-compared", Severity.WARN)])


def test_a_server_without_a_pinned_key_is_as_it_was_surveyed() -> None:
    facts = server_facts("web-1")
    assert evaluate_key(core(), facts) is facts
    assert not server_differs(
        evaluate_key(core(), on_target(KEY)), evaluate_key(core(), evaluate_key(core(), on_target(KEY)))
    )


async def test_a_server_that_pins_another_key_is_upgraded(run: Driver, doubles: Doubles) -> None:
    doubles.core = core()
    doubles.servers["web-1"] = on_target(OTHER)
    talk = await run.upgrade(fleet(1))
    gate = await talk.answer("wave/1")
    assert any("pins another key than Core's" in fact for fact in gate.facts)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [step.facts.edits for step in doubles.inputs("switch_server")] != [()]


async def test_a_retry_evaluates_keys_like_the_plan(run: Driver, doubles: Doubles) -> None:
    """A person pins Core's key by hand while the failure gate is open: then there is nothing to retry."""
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
