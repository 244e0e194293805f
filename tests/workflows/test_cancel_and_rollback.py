"""Temporal's Cancel, and rollbacks: of a running upgrade, and after an upgrade has closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from model.fleet.spec import FleetSpec
from model.gates import ControlVerb, Verdict
from model.rollback import has_something_to_undo, image_pins_kept, rollback_request
from model.status import FleetResult, FleetState, RollbackRequest, ServerState
from model.steps import Recheck
from tests.workflows.doubles import NEW, OLD, Doubles, broken, core_facts, fleet
from tests.workflows.driver import Driver, Talk


async def cancelled(talk: Talk) -> FleetResult:
    """The run ends as cancelled, and its result can still be asked for."""
    with pytest.raises(WorkflowFailureError) as caught:
        await talk.result()
    assert isinstance(caught.value.cause, CancelledError)
    return await talk.result_now()


async def test_cancel_at_a_gate_gives_everything_back(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(2))
    await talk.gate("core")
    await talk.handle.cancel()
    result = await cancelled(talk)
    assert result.state is FleetState.STOPPED
    assert doubles.count("stop_core") == 0
    assert sorted(r.op.target for r in doubles.inputs("release_host")) == ["core", "web-1", "web-2"]
    assert doubles.count("save_report") == 1


@pytest.mark.parametrize("step", ["stage_server", "dump_database"])
async def test_cancel_in_a_step_waits_for_it_and_undoes(run_real: Driver, doubles: Doubles, step: str) -> None:
    if step == "stage_server":
        hold = doubles.hold(step, "web-1")
        talk = await run_real.upgrade(fleet(2))
    else:
        talk = await run_real.upgrade(fleet(2))
        await talk.gate("core")
        hold = doubles.hold(step, "core")
        await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.cancel()
    result = await cancelled(talk)
    assert hold.cancelled
    assert result.state is FleetState.STOPPED
    names = doubles.names()
    if step == "dump_database":
        assert names.index("start_old_core") > names.index("stop_core")
        assert "Core 1.19.5 runs again" in result.detail
    assert doubles.count("start_core") == 0
    assert names[-1] == "release_host"


@pytest.mark.parametrize("step", ["stage_server", "dump_database"])
async def test_a_cancel_is_not_lost_when_the_step_ends_well_meanwhile(
    run_real: Driver, doubles: Doubles, step: str
) -> None:
    talk = await run_real.upgrade(fleet(1)) if step == "dump_database" else None
    if talk:
        await talk.gate("core")
    hold = doubles.hold(step, "core" if talk else "web-1")
    hold.ends_anyway = True
    if talk:
        await talk.answer("core")
    talk = talk or await run_real.upgrade(fleet(1))
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.cancel()
    result = await cancelled(talk)
    assert hold.cancelled
    assert result.state is FleetState.STOPPED
    assert doubles.count("start_core") == 0
    assert doubles.count("start_old_core") == (1 if step == "dump_database" else 0)


async def test_a_cancel_of_a_servers_workflow_is_not_lost_when_the_switch_ends_well(
    run_real: Driver, doubles: Doubles
) -> None:
    hold = doubles.hold("switch_server", "web-1")
    hold.ends_anyway = True
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await run_real.client.get_workflow_handle("komodo-upgrade/prod/web-1/1").cancel()
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert (await talk.result()).servers[0].state is ServerState.LEFT_ON_V1
    assert doubles.count("restore_server", "web-1") >= 1


async def test_cancel_after_cores_switch_means_stop(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("start_core", "core")
    talk = await run_real.upgrade(fleet(2))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.cancel()
    await talk.until(lambda p: p.stopping, "stopping")
    hold.go.set()
    result = await cancelled(talk)
    assert not hold.cancelled, "a Core that is being started is not left half way"
    assert result.state is FleetState.STOPPED
    assert result.core_state is ServerState.UPGRADED
    assert result.key
    assert [o.state for o in result.servers] == [ServerState.STOPPED] * 2
    assert doubles.count("start_old_core") == 0


# --- rollback of a running upgrade ------------------------------------------------------------------------------------


async def test_rollback_before_anything_was_switched_asks_nothing(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    await talk.control(ControlVerb.ROLLBACK)
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert doubles.count("stop_core") == doubles.count("restore_server") == 0


async def test_rollback_half_way(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    talk = await run.upgrade(fleet(3))
    await talk.answer("core")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK, actor="bob")
    gate = await talk.gate("rollback/1")
    facts = "\n".join(gate.facts)
    assert "LOST: everything written to Komodo since 2026-11-23 22:15:00 UTC" in facts
    assert "2 (web-1 1.19.5, Local 1.19.5)" in facts
    assert (gate.confirm, gate.verdicts) == ("prod", (Verdict.APPROVE, Verdict.REJECT))
    await talk.control(ControlVerb.ROLLBACK, actor="bob")  # again: no second gate
    await talk.decide("wave/2")  # not the open question
    await talk.decide("rollback/1", actor="bob")  # names no plan
    await talk.until(lambda p: len(p.warnings) == 3, "ignored")
    assert doubles.count("check_rollback") == 0
    await talk.answer("rollback/1", actor="bob")
    result = await talk.result()

    assert result.state is FleetState.ROLLED_BACK
    rolled_back, stopped = ServerState.ROLLED_BACK, ServerState.STOPPED
    assert [o.state for o in result.servers] == [rolled_back, stopped, stopped, rolled_back]
    names = doubles.names()
    order = ["check_rollback", "dump_database", "restore_database", "restore_core_files", "start_old_core"]
    order += ["restore_server", "verify_server", "save_report", "release_host"]
    start = names.index("check_rollback")
    assert [names.index(n, start) for n in order] == sorted(names.index(n, start) for n in order)
    last = {c.server.name: (c.expected_version, c.key) for c in doubles.inputs("verify_server")[-2:]}
    assert last == {"web-1": (OLD, ""), "Local": (OLD, "")}
    undone = doubles.inputs("restore_server")[0].op.attempt
    assert undone > doubles.inputs("switch_server")[0].op.attempt, "no earlier undo's mark is taken for this one"
    assert not has_something_to_undo(rollback_request(result, fleet(3)))


async def test_a_rejected_rollback_goes_back_to_the_question_before(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1", Verdict.REJECT)
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/2", Verdict.REJECT)
    await talk.answer("wave/2")
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_a_rollback_waits_for_the_servers_in_the_middle(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-1")
    talk = await run.upgrade(fleet(2, approve="core-only"))
    await talk.answer("core")
    await hold.begun.wait()
    await talk.control(ControlVerb.ROLLBACK)
    await talk.until(lambda p: len(p.controls) == 1, "asked")
    assert (await talk.progress()).gate is None
    hold.go.set()
    await talk.answer("rollback/1")
    result = await talk.result()
    assert [o.state for o in result.servers] == [ServerState.ROLLED_BACK, ServerState.STOPPED]
    assert doubles.count("switch_server", "web-2") == 0


async def test_a_rollback_that_is_not_possible_pauses(run: Driver, doubles: Doubles) -> None:
    doubles.play("check_rollback", "core", Recheck(drift=("the dump is gone",)))
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    progress = await talk.until(lambda p: p.paused, "paused")
    assert any("the dump is gone" in w for w in progress.warnings)
    await talk.control(ControlVerb.RESUME)
    await talk.answer("wave/2")
    assert (await talk.result()).state is FleetState.UPGRADED


# --- rollback after the upgrade has closed ----------------------------------------------------------------------------


async def upgraded(run: Driver, spec: FleetSpec) -> FleetResult:
    talk = await run.upgrade(spec)
    await talk.answer("core")
    return await talk.result()


async def test_rollback_alone_with_the_fleets_id(run: Driver, doubles: Doubles) -> None:
    spec = fleet(3, approve="core-only", wave="2")
    request = rollback_request(await upgraded(run, spec), spec, requested_by="bob")
    assert (request.servers, request.attempt, request.core) == (("web-1", "web-2", "web-3"), 2, True)
    released = doubles.count("release_host")
    talk = await run.rollback(request)
    await talk.answer("rollback/1", actor="bob")
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert [(o.state, o.version_before, o.version_after) for o in result.servers] == [
        (ServerState.ROLLED_BACK, NEW, OLD)
    ] * 3
    assert doubles.count("check_rollback") == 2, "the gate may have been open for days"
    assert doubles.count("save_report") == 2
    last = doubles.inputs("release_host")[released:]
    assert sorted(r.op.target for r in last) == ["core", "web-1", "web-2", "web-3"]
    assert [r.image_pins for r in last if r.core] == [("keep-1",)]


@pytest.mark.parametrize("step", ["stop_core", "dump_database", "restore_database", "start_old_core"])
async def test_a_failure_before_the_agents_brings_the_new_core_back(run: Driver, doubles: Doubles, step: str) -> None:
    spec = fleet(1)
    request = rollback_request(await upgraded(run, spec), spec)
    doubles.play(step, "core", broken("DatabaseError", "counts differ"))
    talk = await run.rollback(request)
    await talk.answer("rollback/1")
    result = await talk.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert "counts differ" in result.detail
    assert f"Core {NEW} runs again with its data" in result.detail
    [back] = doubles.inputs("return_to_new_core")
    touched = step in ("restore_database", "start_old_core")
    assert (back.dump.label if back.dump else "") == ("pre_rollback" if touched else "")
    assert doubles.count("restore_server") == 0
    assert [o.state for o in result.servers] == [ServerState.UPGRADED]
    again = rollback_request(result, spec)
    assert (again.attempt, again.dump, again.servers) == (request.attempt + 1, request.dump, request.servers)


async def test_an_agent_that_does_not_come_back_is_named_and_stop_gives_up(run: Driver, doubles: Doubles) -> None:
    spec = fleet(2, approve="core-only")
    request = rollback_request(await upgraded(run, spec), spec)
    doubles.play("restore_server", "web-2", *[broken("Unreachable", "no route", transient=True)] * 500)
    released = doubles.count("release_host")
    talk = await run.rollback(request)
    await talk.answer("rollback/1")
    shown = await talk.until(lambda p: "still trying: no route" in p.servers[1].step, "shown as still trying")
    assert shown.servers[1].state is ServerState.WAITING
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    last = doubles.inputs("release_host")[released:]
    assert [r.image_pins for r in last if r.core] == [()], "a rollback that is still possible keeps its images"
    assert image_pins_kept(result) == ("keep-1",)
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert [o.state for o in result.servers] == [ServerState.ROLLED_BACK, ServerState.ROLLBACK_INCOMPLETE]
    assert "no route" in result.detail
    assert "restore.sh" in result.servers[1].detail


async def test_a_rollback_can_be_refused_rejected_or_have_nothing_to_do(run: Driver, doubles: Doubles) -> None:
    spec = fleet(1)
    request = rollback_request(await upgraded(run, spec), spec)
    doubles.play("check_rollback", "core", Recheck(drift=("the v1 image is gone",)))
    refused = await (await run.rollback(request)).result()
    assert refused.state is FleetState.REFUSED
    assert "the v1 image is gone" in refused.detail
    unmatched = await (await run.rollback(replace(request, backups=()))).result()
    assert (unmatched.state, doubles.count("restore_server")) == (FleetState.REFUSED, 0)
    assert "there is no backup of" in unmatched.detail

    talk = await run.rollback(request)
    await talk.answer("rollback/1", Verdict.REJECT)
    assert (await talk.result()).state is FleetState.STOPPED
    nothing = replace(request, core=False, servers=(), backups=())
    assert (await (await run.rollback(nothing)).result()).state is FleetState.ROLLED_BACK
    assert doubles.count("stop_core") == 1, "that of the upgrade"


async def test_a_rollback_where_v2_never_started_leaves_the_database_alone(run: Driver, doubles: Doubles) -> None:
    spec = fleet(1)
    result = await upgraded(run, spec)
    broken_undo = replace(result, core_begun=False, core_state=ServerState.ROLLBACK_INCOMPLETE, servers=())
    request = rollback_request(broken_undo, spec)
    assert isinstance(request, RollbackRequest)
    before = doubles.count("dump_database")
    talk = await run.rollback(request)
    gate = await talk.answer("rollback/1")
    assert any("nothing is lost" in fact for fact in gate.facts)
    assert (await talk.result()).state is FleetState.ROLLED_BACK
    assert doubles.count("restore_database") == 0
    assert doubles.count("dump_database") == before
    assert doubles.count("restore_core_files") == doubles.count("start_old_core") == 1


async def test_a_rollback_that_has_begun_is_finished_though_cancelled(run_real: Driver, doubles: Doubles) -> None:
    spec = fleet(1)
    request = rollback_request(await upgraded(run_real, spec), spec)
    hold = doubles.hold("restore_database", "core")
    talk = await run_real.rollback(request)
    await talk.answer("rollback/1")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.cancel()
    await talk.until(lambda p: any("it was finished" in w for w in p.warnings), "warning of the cancel")
    hold.go.set()
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert not hold.cancelled
