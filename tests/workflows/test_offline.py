"""Servers that are offline: the others continue, and a server that returns is upgraded through a gate of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus

from model.facts import Finding, ServerFacts, Severity
from model.gates import ControlVerb, Verdict
from model.rollback import rollback_request
from model.status import FleetState, ServerState
from model.steps import Recheck
from tests.workflows.doubles import NEW, Doubles, broken, fleet, refusal, server_facts
from tests.workflows.driver import Driver

HOURS = timedelta(hours=1)
LOST = broken("Unreachable", "no route to web-2", transient=True)


def away(name: str, code: str = "unreachable") -> ServerFacts:
    text = f"{name} does not answer"
    return ServerFacts(name=name, findings=(Finding(code=code, severity=Severity.REFUSE, subject=name, text=text),))


async def test_the_others_go_on_and_it_is_upgraded_when_it_returns(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(3))
    gate = await talk.answer("core")
    assert any("offline, not planned yet: web-2" in fact for fact in gate.facts)
    assert doubles.count("survey_server", "web-2") == 3, "surveyed again before it was reported"
    await talk.answer("wave/2")
    progress = await talk.until(lambda p: "checked every" in p.servers[1].step, "waiting for it")
    assert [s.state for s in progress.servers] == [ServerState.UPGRADED, ServerState.OFFLINE, ServerState.UPGRADED]
    await run.env.sleep(3 * HOURS)
    assert doubles.count("survey_server", "web-2") > 15
    assert doubles.count("post_checks") == 0
    del doubles.servers["web-2"]
    await run.env.sleep(timedelta(minutes=11))
    gate = await talk.gate("wave/3")
    assert gate.question == "web-2 is back: upgrade it?"
    assert gate.verdicts == (Verdict.APPROVE, Verdict.SKIP)
    assert gate.plan_digest not in ("", (await talk.progress()).decisions[0].decision.plan_digest)
    assert gate.plan_digest == (await talk.progress()).plan_digest
    assert any("writes /etc/komodo/periphery.config.toml" in fact for fact in gate.facts), gate.facts
    assert any("+q" in fact for fact in gate.facts)
    assert doubles.count("back_up_server", "web-2") == 0, "not before its gate"
    await talk.answer("wave/3")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert result.plan is not None
    assert [w.servers for w in result.plan.waves] == [("web-1",), ("web-3",), ("web-2",)]
    assert result.plan.offline == ()
    order = [n for n in doubles.steps("web-2") if n != "survey_server"]
    assert order[:5] == ["back_up_server", "stage_server", "recheck_server", "switch_server", "verify_server"]
    assert order[-1] == "release_host"


async def test_one_that_does_not_return_is_left_on_v1(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2, offline_for=2 * HOURS))
    await talk.answer("core")
    result = await talk.result()
    assert (result.state, result.state.exit_code) == (FleetState.INCOMPLETE, 3)
    outcome = result.servers[1]
    assert (outcome.state, outcome.reported) == (ServerState.LEFT_ON_V1, "left on v1 (offline)")
    assert "web-2 does not answer" in outcome.detail
    assert "web-2 (left on v1 (offline))" in result.detail
    assert 12 < doubles.count("survey_server", "web-2") < 18
    assert doubles.count("release_host", "web-2") == 0
    assert rollback_request(result, fleet(2)).servers == ("web-1",)


async def test_days_of_checks_do_not_fill_the_history_of_the_run(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2, offline_for=48 * HOURS))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.INCOMPLETE
    assert doubles.count("survey_server", "web-2") > 280
    events = [event async for event in talk.handle.fetch_history_events()]
    assert len(events) < 250
    [child] = [
        started.workflow_execution
        for event in events
        if (started := event.child_workflow_execution_started_event_attributes).workflow_type.name == "FindReturned"
    ]
    first = run.client.get_workflow_handle(child.workflow_id, run_id=child.run_id)
    assert (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW


async def test_leave_checks_once_more_and_does_not_wait(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2, offline="leave"))
    gate = await talk.answer("core")
    assert any("checked once more after the others" in fact for fact in gate.facts)
    result = await talk.result()
    assert result.servers[1].reported == "left on v1 (offline)"
    assert doubles.count("survey_server", "web-2") == 4


async def test_refuse_begins_nothing_without_it(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2, offline="refuse"))
    result = await talk.result()
    assert result.state is FleetState.REFUSED
    assert "web-2 does not answer" in result.detail


@pytest.mark.parametrize("code", ["host-key-changed", "sudo-failed"])
async def test_what_is_not_merely_away_still_refuses(run: Driver, doubles: Doubles, code: str) -> None:
    doubles.servers["web-2"] = away("web-2", code)
    talk = await run.upgrade(fleet(2))
    assert (await talk.result()).state is FleetState.REFUSED


async def test_when_nobody_is_there_the_way_to_them_is_broken(run: Driver, doubles: Doubles) -> None:
    for name in ("web-1", "web-2"):
        doubles.servers[name] = away(name)
    talk = await run.upgrade(fleet(2))
    assert (await talk.result()).state is FleetState.REFUSED


async def test_lost_before_the_gate_it_is_set_aside_without_a_question(run: Driver, doubles: Doubles) -> None:
    doubles.play("stage_server", "web-2", *[LOST] * 5)
    talk = await run.upgrade(fleet(3))
    gate = await talk.answer("core")
    assert any("offline, not planned yet: web-2" in fact for fact in gate.facts)
    await talk.answer("wave/2")
    # It is there again, and as it was approved: `approve` decides whether it is asked about.
    gate = await talk.answer("wave/3")
    assert gate.question == "web-2 is back: upgrade it?"
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_lost_at_its_turn_it_is_upgraded_on_return_by_what_was_approved(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(3, approve="core-only", wave="2"))
    await talk.gate("core")
    doubles.servers["web-2"] = away("web-2")
    await run.env.sleep(timedelta(seconds=1))
    hold = doubles.hold("switch_server", "web-1")
    await talk.answer("core")
    await hold.begun.wait()
    doubles.play("recheck_server", "web-2", *[LOST] * 5)
    hold.go.set()
    await talk.until(lambda p: "checked every" in p.servers[1].step, "waiting for it")
    assert doubles.count("switch_server", "web-3") == 1
    del doubles.servers["web-2"]
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [d.decision.gate for d in result.decisions] == ["core"]
    assert doubles.count("back_up_server", "web-2") == 1
    assert [s.op.attempt for s in doubles.inputs("switch_server") if s.server.name == "web-2"] == [2]


async def test_changed_while_it_was_away_it_is_planned_saved_and_asked_again(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2, approve="core-only"))
    await talk.gate("core")
    hold = doubles.hold("switch_server", "web-1")
    await talk.answer("core")
    await hold.begun.wait()
    doubles.play("recheck_server", "web-2", *[LOST] * 5)
    doubles.servers["web-2"] = server_facts("web-2", binary="other")
    hold.go.set()
    gate = await talk.answer("wave/2")
    assert gate.plan_digest
    result = await talk.result()
    assert result.servers[1].version_after == NEW
    assert [s.facts.binary_sha256 for s in doubles.inputs("switch_server")] == ["v1", "other"]
    assert [s.op.attempt for s in doubles.inputs("back_up_server") if s.server.name == "web-2"] == [1, 2]


async def test_on_its_return_it_may_refuse_be_skipped_or_be_current(run: Driver, doubles: Doubles) -> None:
    for name in ("web-2", "web-3", "web-4"):
        doubles.servers[name] = away(name)
    talk = await run.upgrade(fleet(4))
    await talk.answer("core")
    await talk.until(lambda p: "checked every" in p.servers[1].step, "waiting for them")
    doubles.servers["web-2"] = replace(server_facts("web-2"), findings=(refusal("web-2"),))
    doubles.servers["web-3"] = server_facts("web-3", current=True)
    del doubles.servers["web-4"]
    await run.env.sleep(timedelta(minutes=11))
    gate = await talk.answer("failure/web-2/1", Verdict.RETRY)
    assert "no space left" in gate.facts[0]
    await talk.answer("failure/web-2/2", Verdict.SKIP)
    await talk.answer("wave/3", Verdict.SKIP, reason="tomorrow")
    result = await talk.result()
    states = [o.reported for o in result.servers]
    assert states == ["upgraded", "left on v1", "already current", "left on v1"]
    assert "skipped by ann on its return: tomorrow" in result.servers[3].detail
    assert doubles.count("switch_server") == 1


async def test_people_may_stop_the_waiting(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    await talk.until(lambda p: "checked every" in p.servers[1].step, "waiting for it")
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert result.servers[1].reported == "left on v1 (offline)"


async def test_back_before_the_core_gate_is_answered_it_waits_its_turn(run: Driver, doubles: Doubles) -> None:
    """A server that returns invalidates no approval, but a plan that is made again includes it in its waves."""
    doubles.servers["web-2"] = away("web-2")
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    doubles.servers["web-1"] = server_facts("web-1", binary="other")
    del doubles.servers["web-2"]
    doubles.play("recheck_server", "web-1", Recheck(drift=("edited",)))
    await talk.answer("core")
    gate = await talk.answer("core/2")
    assert not any("offline" in fact for fact in gate.facts)
    assert doubles.count("back_up_server", "web-2") == doubles.count("stage_server", "web-2") == 1
    await talk.answer("wave/2")
    assert (await talk.result()).state is FleetState.UPGRADED
