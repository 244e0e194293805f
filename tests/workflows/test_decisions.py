"""Messages of operators: early, late, twice, about another plan, without a name. None of them opens another gate."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from model.fleet.spec import Event, Notify
from model.gates import Control, ControlVerb, Decision, Recorded, Verdict
from model.status import FleetState, ServerState
from model.steps import Done
from tests.workflows.doubles import Doubles, broken, fleet
from tests.workflows.driver import Driver, Talk
from workflows.runtime.steps import WINDOW


async def test_messages_that_open_nothing(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("survey_core", "core")
    talk = await run.upgrade(fleet(3))
    await hold.begun.wait()
    await talk.decide("core", plan_digest="guess")  # early: before any gate
    hold.go.set()
    gate = await talk.gate("core")

    await talk.decide("wave/2")  # early: another gate
    await talk.decide("core", plan_digest="0123456789abcdef")  # about another plan
    await talk.decide("core")  # about no plan
    await talk.decide("core", Verdict.SKIP)  # not an answer here
    await talk.decide("core", actor=" ", plan_digest=gate.plan_digest)  # without a name
    await talk.handle.signal("decide", {"gate": "core", "verdict": "yes please", "actor": "ann"})  # malformed
    progress = await talk.until(lambda p: len(p.warnings) >= 6, "kept the six")
    assert progress.gate
    assert progress.gate.id == "core"
    assert not progress.decisions
    assert doubles.count("stop_core") == 0

    await talk.answer("core")
    await talk.decide("core", Verdict.REJECT, plan_digest=gate.plan_digest)  # late: answered already
    await talk.gate("wave/2")
    await talk.decide("core", plan_digest=gate.plan_digest)  # repeated at the next gate
    progress = await talk.until(lambda p: len(p.warnings) >= 8, "kept the late ones")
    assert progress.gate
    assert progress.gate.id == "wave/2", "an old approval must not open the next gate"
    warned = "\n".join(progress.warnings)
    for wanted in (
        "no gate is open now",
        "open now: core",
        "this decision is about plan 0123456789abcdef",
        "this decision names no plan",
        "does not take skip; it takes: approve, reject",
        "must name its actor",
        "answered already: approve by ann",
    ):
        assert wanted in warned
    await talk.decide("wave/2", Verdict.REJECT)
    result = await talk.result()
    assert [r.decision.gate for r in result.decisions] == ["core", "wave/2"]
    assert any("answered already" in w.text for w in result.warnings)


async def _refusal(talk: Talk, decision: Decision) -> ApplicationError:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await talk.handle.execute_update("decide", decision)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause


async def test_updates_answer_at_once(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(1))
    gate = await talk.gate("core")
    digest = gate.plan_digest
    reject = Verdict.REJECT
    for decision, kind in (
        (Decision(gate="wave/2", verdict=reject, actor="ann"), "GateNotOpen"),
        (Decision(gate="core", verdict=Verdict.RETRY, actor="ann"), "VerdictNotAllowed"),
        (Decision(gate="core", verdict=Verdict.APPROVE, actor="ann", plan_digest="0"), "PlanDigestMismatch"),
        (Decision(gate="core", verdict=reject, actor=""), "ActorMissing"),
    ):
        refused = await _refusal(talk, decision)
        assert refused.type == kind
        assert len(refused.message) > 20, "a full sentence"
    events = [e async for e in talk.handle.fetch_history_events()]
    assert not any(e.HasField("workflow_execution_update_accepted_event_attributes") for e in events)

    decision = Decision(gate="core", verdict=reject, actor="ann", plan_digest=digest)
    recorded = await talk.handle.execute_update("decide", decision, result_type=Recorded)
    assert recorded.decision == decision
    assert (await talk.result()).state is FleetState.STOPPED


async def test_control_by_update(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(1))
    await talk.gate("core")
    stop = Control(verb=ControlVerb.STOP, actor="ann", reason="enough")
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await talk.handle.execute_update("control", Control(verb=ControlVerb.PAUSE, actor=""))
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "ActorMissing"
    assert await talk.handle.execute_update("control", stop, result_type=Control) == stop
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert "stopped by ann: enough" in result.detail


# --- pause, stop, reminders -------------------------------------------------------------------------------------------


async def test_pause_holds_what_was_approved_until_resume(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    await talk.control(ControlVerb.PAUSE)
    await talk.answer("core")
    progress = await talk.until(lambda p: p.gate is None and p.paused, "paused behind the gate")
    assert doubles.count("stop_core") == doubles.count("recheck_core") == 0
    assert progress.controls[0].actor == "ann"
    await talk.control(ControlVerb.RESUME)
    await talk.answer("wave/2")
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_pause_in_a_wave_starts_no_other_server(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-1")
    talk = await run.upgrade(fleet(2, approve="core-only"))
    await talk.answer("core")
    await hold.begun.wait()
    await talk.control(ControlVerb.PAUSE)
    hold.go.set()
    await talk.until(lambda p: p.servers[0].state is ServerState.UPGRADED, "the one in the middle finished")
    assert doubles.count("recheck_server", "web-2") == 1, "that was the one at gate core"
    await talk.control(ControlVerb.RESUME)
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_stop_lets_the_server_in_the_middle_finish(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-1")
    talk = await run.upgrade(fleet(3, approve="core-only"))
    await talk.answer("core")
    await hold.begun.wait()
    await talk.control(ControlVerb.STOP, reason="dinner")
    await talk.until(lambda p: p.stopping, "stopping")
    hold.go.set()
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert [o.state for o in result.servers] == [ServerState.UPGRADED, ServerState.STOPPED, ServerState.STOPPED]
    assert "stopped by ann: dinner" in result.detail
    assert all(r.image_pins == () for r in doubles.inputs("release_host")), "the image pins are needed for a rollback"
    assert doubles.count("save_report") == 1


async def test_in_a_big_wave_stop_holds_those_beyond_the_window(run: Driver, doubles: Doubles) -> None:
    holds = [doubles.hold("switch_server", f"web-{i}") for i in range(2, WINDOW + 2)]
    talk = await run.upgrade(fleet(WINDOW + 3, approve="core-only", wave=str(WINDOW + 2)))
    await talk.answer("core")
    await asyncio.wait_for(asyncio.gather(*(hold.begun.wait() for hold in holds)), 60)
    await talk.control(ControlVerb.STOP)
    await talk.until(lambda p: p.stopping, "stopping")
    for hold in holds:
        hold.go.set()
    result = await talk.result()
    assert [o.state for o in result.servers] == [ServerState.UPGRADED] * (WINDOW + 1) + [ServerState.STOPPED] * 2


async def test_stop_when_nothing_is_left_to_start_is_no_failure(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("verify_server", "web-1")
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await hold.begun.wait()
    await talk.control(ControlVerb.STOP)
    await talk.until(lambda p: p.stopping, "stopping")
    hold.go.set()
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_people_are_reminded_and_a_time_out_can_stop(run: Driver, doubles: Doubles) -> None:
    spec = fleet(1, gate_reminder=timedelta(hours=4), gate_timeout=timedelta(hours=9), on_gate_timeout="stop")
    result = await (await run.upgrade(spec)).result()  # the server skips the nine hours
    assert result.state is FleetState.STOPPED
    assert "was not answered within 9:00:00" in result.detail
    subjects = [n.subject.split(":")[0] for n in doubles.notices]
    assert subjects == ["Upgrade Core of prod to 2.3.2?", "reminder 1", "reminder 2", "prod to 2.3.2"]
    assert "no deploys" in doubles.notices[-2].text
    assert "was not answered within" in doubles.notices[-1].text
    assert result.ended_at - result.started_at >= timedelta(hours=9)


async def test_a_time_out_that_holds_goes_on_reminding(run: Driver, doubles: Doubles) -> None:
    spec = fleet(1, gate_reminder=timedelta(hours=4), gate_timeout=timedelta(hours=9))
    talk = await run.upgrade(spec)
    await talk.gate("core")
    for _ in range(4):
        await run.env.sleep(timedelta(hours=4))
    await talk.until(lambda _: len(doubles.notices) >= 5, "reminded five times")
    overdue = [n.subject.startswith("OVERDUE") for n in doubles.notices]
    assert overdue[:3] == [False, False, False]
    assert all(overdue[3:])
    await talk.answer("core", Verdict.REJECT)
    assert (await talk.result()).state is FleetState.STOPPED


async def test_gates_failures_and_the_end_are_announced(run: Driver, doubles: Doubles) -> None:
    notify = Notify(command="tell", dashboard="https://upgrade.example.net")
    doubles.play("switch_server", "web-1", broken("ConfigNotLoaded", "it is open to anyone"))
    talk = await run.upgrade(replace(fleet(1), notify=notify))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    await talk.result()
    assert [n.event for n in doubles.notices] == [Event.GATE, Event.FAILURE, Event.END]
    core, failure, end = doubles.notices
    assert "komodo-upgrade approve prod --gate core --confirm prod\n" in core.text
    assert core.text.endswith("https://upgrade.example.net/fleets/prod")
    assert "komodo-upgrade retry prod --gate failure/web-1/1\n" in failure.text
    assert end.subject == "prod to 2.3.2: incomplete"
    assert "servers: 1 left on v1\nweb-1: left on v1: " in end.text
    assert all(n.notify == notify for n in doubles.notices)


async def test_a_notice_that_fails_holds_nothing_up(run: Driver, doubles: Doubles) -> None:
    doubles.play("notify", "core", broken("CommandFailed", "no such command"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert any("no such command" in w.text for w in result.warnings)


async def test_a_notice_that_does_not_arrive_is_reported_once(run: Driver, doubles: Doubles) -> None:
    missing = Done(facts=("ntfy (address 1 of /run/urls) did not take it",))
    doubles.play("notify", "core", missing, missing, missing)
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert len([w for w in result.warnings if "ntfy (address 1" in w.text]) == 1
