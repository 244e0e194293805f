"""Rollbacks of hosts that are dead or lost their saved files: found in advance, waiting, retried, abandoned."""

from __future__ import annotations

import asyncio
import json
import time

from model.fleet.spec import FleetSpec
from model.gates import ControlVerb, Decision, Verdict
from model.rollback import rollback_request
from model.status import FleetResult, FleetState, Phase, ServerState
from model.steps import Recheck
from model.text.report import render_markdown
from service.client import Upgrade
from tests.workflows.doubles import CHANGE, Doubles, broken, fleet
from tests.workflows.driver import Driver

BY_HAND = f"by hand on web-2.example.net: sudo sh /var/lib/komodo-upgrade/prod/{CHANGE}/restore.sh"


async def upgraded(run: Driver, spec: FleetSpec) -> FleetResult:
    talk = await run.upgrade(spec)
    await talk.answer("core")
    return await talk.result()


async def test_a_person_may_give_up_a_dead_host_which_is_tried_until_then(run: Driver, doubles: Doubles) -> None:
    spec = fleet(2, approve="core-only")
    request = rollback_request(await upgraded(run, spec), spec)
    doubles.play("restore_server", "web-1", *[broken("Unreachable", "no route", transient=True)] * 7)
    doubles.play("restore_server", "web-2", *[broken("Unreachable", "no route", transient=True)] * 500)
    talk = await run.rollback(request)
    await talk.answer("rollback/1")
    await talk.until(lambda p: p.servers[0].state is ServerState.ROLLED_BACK, "web-1 came back by itself")
    gate = await talk.gate("undo/web-2/1")
    assert (gate.verdicts, gate.subject) == ((Verdict.SKIP,), "web-2")
    assert [fact for fact in gate.facts if fact in ("no route", BY_HAND)] == ["no route", BY_HAND]
    tried = doubles.count("restore_server", "web-2")
    shown = await talk.until(lambda _: doubles.count("restore_server", "web-2") > tried, "it is tried meanwhile")
    assert shown.servers[1].state is ServerState.WAITING
    assert BY_HAND in shown.servers[1].step
    await talk.answer("undo/web-2/1", Verdict.SKIP, actor="bob")
    result = await talk.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert [o.state for o in result.servers] == [ServerState.ROLLED_BACK, ServerState.ROLLBACK_INCOMPLETE]
    assert "given up by bob; the last attempt: no route" in result.detail
    assert BY_HAND in render_markdown(result)


async def test_in_a_running_upgrades_rollback_it_is_seen_and_answered_through_the_upgrade(
    run_real: Driver, doubles: Doubles
) -> None:
    spec = fleet(2)
    talk = await run_real.upgrade(spec)
    await talk.answer("core")
    await talk.gate("wave/2")
    doubles.play("restore_server", "web-1", *[broken("Unreachable", "no route", transient=True)] * 500)
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    person = Upgrade(run_real.client, spec.name)
    deadline = time.monotonic() + 20
    while (seen := await person.progress(steps=True)).gate is None or seen.gate.id != "undo/web-1/1":
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.05)
    assert (seen.phase, seen.servers[0].state) == (Phase.ROLLBACK, ServerState.WAITING)
    assert (await person.decide(Decision(gate="undo/web-1/1", verdict=Verdict.SKIP, actor="ann"))).recorded
    result = await talk.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert "given up by ann" in result.servers[0].detail


async def test_a_servers_rollback_is_checked_before_anything_is_changed(run: Driver, doubles: Doubles) -> None:
    spec = fleet(2, approve="core-only")
    request = rollback_request(await upgraded(run, spec), spec)
    gone = "/var/lib/komodo-upgrade/prod/x/files/periphery is gone"
    doubles.play("check_server_rollback", "web-1", Recheck(drift=(gone,)))
    doubles.play("check_server_rollback", "web-2", broken("HostKeyChanged", "it shows another key"))
    stopped = doubles.count("stop_core")
    refused = await (await run.rollback(request)).result()
    assert refused.state is FleetState.REFUSED
    assert f"web-1: {gone}" in refused.detail
    assert "web-2: it cannot be checked: it shows another key" in refused.detail
    assert doubles.count("stop_core") == stopped

    doubles.play("check_server_rollback", "web-2", *[Recheck(unreachable="no answer on port 22")] * 2)
    talk = await run.rollback(request)
    gate = await talk.answer("rollback/1")
    assert "unreachable, will be restored once it can be reached: web-2: no answer on port 22" in gate.facts
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert [w.subject for w in result.warnings if w.code == "unreachable"] == ["web-2"]


async def test_servers_that_may_never_answer_come_last_in_a_rollback(run: Driver, doubles: Doubles) -> None:
    """A window of dead ones would hold up all others for as long as they are dead."""
    spec = fleet(3, approve="core-only")
    request = rollback_request(await upgraded(run, spec), spec)
    doubles.play("check_server_rollback", "web-1", *[Recheck(unreachable="no answer on port 22")] * 2)
    talk = await run.rollback(request)
    await talk.answer("rollback/1")
    assert (await talk.result()).state is FleetState.ROLLED_BACK
    begun = [
        json.loads(event.activity_task_scheduled_event_attributes.input.payloads[0].data)["server"]["name"]
        for event in (await talk.handle.fetch_history()).events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "restore_server"
    ]
    assert begun == ["web-2", "web-3", "web-1"]
