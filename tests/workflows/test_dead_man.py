"""Hosts that put themselves back unless Core confirms them: what the workflows do about their timers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.decisions import Verdict
from model.fleet import FleetSpec
from model.progress import FleetState, ServerState
from model.steps import Armed, DeadMan
from tests.workflows.doubles import NEW, NOW, OLD, Doubles, _switched, broken, fleet
from tests.workflows.driver import Driver

OVER = NOW + timedelta(minutes=15)
ARMED = replace(_switched(), puts_itself_back_at=OVER)


def timed(servers: int) -> FleetSpec:
    plain = fleet(servers)
    return replace(plain, servers=tuple(replace(s, dead_man=timedelta(minutes=15)) for s in plain.servers))


async def test_it_is_disarmed_once_core_has_confirmed_the_server_and_only_then(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.steps("web-1")[-4:] == ["switch_server", "verify_server", "disarm_dead_man", "release_host"]
    assert doubles.inputs("switch_server")[0].server.dead_man == timedelta(minutes=15)
    assert result.plan is not None
    assert any("it puts itself back after 0:15:00 unless Core logs in" in line for line in result.plan.commands)


async def test_without_one_nothing_is_looked_at_or_disarmed(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.result()
    assert doubles.count("disarm_dead_man") == doubles.count("look_at_dead_man") == 0


async def test_one_that_cannot_be_disarmed_is_said_and_the_server_is_upgraded(run: Driver, doubles: Doubles) -> None:
    doubles.play("disarm_dead_man", "web-1", broken("PermissionRefused", "no"))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert "could not be disarmed; it stays silent" in result.servers[0].detail


async def test_a_host_that_put_itself_back_is_left_on_v1_and_a_retry_arms_anew(run: Driver, doubles: Doubles) -> None:
    """Found by the proof, and by the disarming that came a moment too late."""
    why = broken("PutItselfBack", "web-1: the host put itself back at 2026-11-23 22:30:00 UTC")
    doubles.play("verify_server", "web-1", why)
    doubles.play("disarm_dead_man", "web-1", why)
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    for attempt in (1, 2):
        gate = await talk.answer(f"failure/web-1/{attempt}", Verdict.RETRY)
        assert "left on v1" in gate.facts[0]
        assert "put itself back at 2026-11-23 22:30:00 UTC" in gate.facts[0]
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("restore_server") == 2, "its restore.sh proves that v1 runs"
    assert [s.op.attempt for s in doubles.inputs("switch_server")] == [1, 2, 3]


async def test_at_an_open_gate_people_hear_that_the_host_put_itself_back(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it", transient=True))
    doubles.play("look_at_dead_man", "web-1", broken("Unreachable"), DeadMan(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    gate = await talk.gate("failure/web-1/1")
    assert "dead-man timer: unless Core logs in to it, it puts itself back at 2026-11-23 22:30:00 UTC" in gate.facts
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: "the host put itself back at" in p.servers[0].detail, "said so")
    assert [n.subject for n in doubles.notices if "put itself back" in n.subject] == ["web-1 put itself back"]
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    outcome = (await talk.result()).servers[0]
    assert (outcome.state, outcome.version_after) == (ServerState.LEFT_ON_V1, OLD)
    assert "2026-11-23 22:30:00 UTC" in outcome.detail
    assert "skipped by ann" in outcome.detail


async def test_after_it_put_itself_back_a_retry_looks_at_it_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven"))
    doubles.play("look_at_dead_man", "web-1", DeadMan(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: "put itself back" in p.servers[0].detail, "said so")
    rechecks, surveys = doubles.count("recheck_server"), doubles.count("survey_server")
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    result = await talk.result()
    assert result.servers[0].version_after == NEW
    assert doubles.count("recheck_server") == rechecks + 1, "v1 is there, so it must be as planned"
    assert doubles.count("survey_server") == surveys + 1


async def test_a_machine_that_was_restarted_will_not_put_itself_back(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven"))
    doubles.play("look_at_dead_man", "web-1", DeadMan(state=Armed.LOST, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: any("its dead-man timer is gone" in w for w in p.warnings), "said so")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert (await talk.result()).servers[0].state is ServerState.UNPROVEN


@pytest.mark.parametrize(
    ("disarmed", "state"),
    [
        (DeadMan(state=Armed.DISARMED), ServerState.UNPROVEN),
        (broken("PutItselfBack", "too late"), ServerState.LEFT_ON_V1),
        (broken("Unreachable", "no route"), ServerState.UNPROVEN),
    ],
)
async def test_what_a_skipped_server_does_by_itself_is_known_when_the_run_ends(
    run: Driver, doubles: Doubles, disarmed: object, state: ServerState
) -> None:
    """Its gate is closed, other waves take hours, and its timer goes on."""
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it"))
    doubles.play("disarm_dead_man", "web-1", disarmed, disarmed)
    doubles.play("look_at_dead_man", "web-1", DeadMan(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(2))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    await talk.answer("wave/2")
    result = await talk.result()
    assert (result.state, result.servers[0].state) == (FleetState.INCOMPLETE, state)
    assert f"web-1 ({state})" in result.detail
    assert ("put itself back at 2026-11-23 22:30:00 UTC" in result.servers[0].detail) == (state == "left on v1")
    told = [w.text for w in result.warnings if w.code == "dead-man-armed"]
    away = getattr(disarmed, "type", "") == "Unreachable"
    assert [text.endswith("puts itself back at 2026-11-23 22:30:00 UTC: no route") for text in told] == [True] * away
    assert doubles.names().index("save_report") > doubles.names().index("disarm_dead_man")


async def test_a_skipped_server_that_failed_to_put_itself_back_is_told_once(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it"))
    doubles.play("disarm_dead_man", "web-1", broken("PutItselfBack", "it tried"), broken("PutItselfBack", "it tried"))
    doubles.play("look_at_dead_man", "web-1", *[DeadMan(state=Armed.FAILED, at=OVER)] * 2)
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    result = await talk.result()
    assert result.servers[0].state is ServerState.UNPROVEN
    assert [w.subject for w in result.warnings if w.code == "dead-man-failed"] == ["web-1"]
