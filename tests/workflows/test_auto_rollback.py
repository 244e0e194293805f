"""Automatic rollback: how the workflows follow the timers of hosts that restore themselves without confirmation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.fleet.spec import FleetSpec
from model.gates import Verdict
from model.status import FleetState, ServerState
from model.steps import Armed, AutoRollback
from tests.workflows.doubles import NEW, NOW, OLD, Doubles, _switched, broken, fleet
from tests.workflows.driver import Driver

OVER = NOW + timedelta(minutes=15)
ARMED = replace(_switched(), auto_rollback_at=OVER)


def timed(servers: int) -> FleetSpec:
    plain = fleet(servers)
    return replace(plain, servers=tuple(replace(s, auto_rollback=timedelta(minutes=15)) for s in plain.servers))


async def test_it_is_disarmed_once_core_has_confirmed_the_server_and_only_then(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.steps("web-1")[-4:] == ["switch_server", "verify_server", "disarm_auto_rollback", "release_host"]
    assert doubles.inputs("switch_server")[0].server.auto_rollback == timedelta(minutes=15)
    assert result.plan is not None
    assert any("the host restores it after 0:15:00 unless Core logs in" in line for line in result.plan.commands)


async def test_without_one_nothing_is_read_or_disarmed(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.result()
    assert doubles.count("disarm_auto_rollback") == doubles.count("check_auto_rollback") == 0


async def test_one_that_cannot_be_disarmed_is_said_and_the_server_is_upgraded(run: Driver, doubles: Doubles) -> None:
    doubles.play("disarm_auto_rollback", "web-1", broken("PermissionRefused", "no"))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert "could not be disarmed; it will not fire" in result.servers[0].detail


async def test_a_host_that_rolled_back_automatically_is_left_on_v1_and_a_retry_arms_again(
    run: Driver, doubles: Doubles
) -> None:
    """Found by the proof, and by the disarming that came a moment too late."""
    why = broken("AutoRolledBack", "web-1: the host rolled back automatically at 2026-11-23 22:30:00 UTC")
    doubles.play("verify_server", "web-1", why)
    doubles.play("disarm_auto_rollback", "web-1", why)
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    for attempt in (1, 2):
        gate = await talk.answer(f"failure/web-1/{attempt}", Verdict.RETRY)
        assert "left on v1" in gate.facts[0]
        assert "rolled back automatically at 2026-11-23 22:30:00 UTC" in gate.facts[0]
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("restore_server") == 2, "its restore.sh proves that v1 runs"
    assert [s.op.attempt for s in doubles.inputs("switch_server")] == [1, 2, 3]


async def test_an_open_gate_shows_that_the_host_rolled_back_automatically(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it", transient=True))
    doubles.play("check_auto_rollback", "web-1", broken("Unreachable"), AutoRollback(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    gate = await talk.gate("failure/web-1/1")
    assert "automatic rollback: unless Core logs in, the host restores v1 at 2026-11-23 22:30:00 UTC" in gate.facts
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: "the host rolled back automatically at" in p.servers[0].detail, "reported")
    assert [n.subject for n in doubles.notices if "rolled back automatically" in n.subject] == [
        "web-1 rolled back automatically"
    ]
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    outcome = (await talk.result()).servers[0]
    assert (outcome.state, outcome.version_after) == (ServerState.LEFT_ON_V1, OLD)
    assert "2026-11-23 22:30:00 UTC" in outcome.detail
    assert "skipped by ann" in outcome.detail


async def test_after_it_rolled_back_automatically_a_retry_surveys_it_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven"))
    doubles.play("check_auto_rollback", "web-1", AutoRollback(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: "rolled back automatically" in p.servers[0].detail, "reported")
    rechecks, surveys = doubles.count("recheck_server"), doubles.count("survey_server")
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    result = await talk.result()
    assert result.servers[0].version_after == NEW
    assert doubles.count("recheck_server") == rechecks + 1, "v1 is there, so it must be as planned"
    assert doubles.count("survey_server") == surveys + 1


async def test_a_machine_that_was_restarted_will_not_roll_back_automatically(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven"))
    doubles.play("check_auto_rollback", "web-1", AutoRollback(state=Armed.LOST, at=OVER))
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    await run.env.sleep(timedelta(minutes=30))
    await talk.until(lambda p: any("its automatic rollback timer is gone" in w for w in p.warnings), "reported")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert (await talk.result()).servers[0].state is ServerState.UNVERIFIED


@pytest.mark.parametrize(
    ("disarmed", "state"),
    [
        (AutoRollback(state=Armed.DISARMED), ServerState.UNVERIFIED),
        (broken("AutoRolledBack", "too late"), ServerState.LEFT_ON_V1),
        (broken("Unreachable", "no route"), ServerState.UNVERIFIED),
    ],
)
async def test_what_a_skipped_server_does_by_itself_is_known_when_the_run_ends(
    run: Driver, doubles: Doubles, disarmed: object, state: ServerState
) -> None:
    """Its gate is closed, other waves take hours, and its timer continues."""
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it"))
    doubles.play("disarm_auto_rollback", "web-1", disarmed, disarmed)
    doubles.play("check_auto_rollback", "web-1", AutoRollback(state=Armed.FIRED, at=OVER))
    talk = await run.upgrade(timed(2))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    await talk.answer("wave/2")
    result = await talk.result()
    assert (result.state, result.servers[0].state) == (FleetState.INCOMPLETE, state)
    assert f"web-1 ({state})" in result.detail
    assert ("rolled back automatically at 2026-11-23 22:30:00 UTC" in result.servers[0].detail) == (
        state == "left on v1"
    )
    reported = [w.text for w in result.warnings if w.code == "auto-rollback-armed"]
    away = getattr(disarmed, "type", "") == "Unreachable"
    assert [text.endswith("the host restores v1 at 2026-11-23 22:30:00 UTC: no route") for text in reported] == [
        True
    ] * away
    assert doubles.names().index("save_report") > doubles.names().index("disarm_auto_rollback")


async def test_a_skipped_server_whose_automatic_rollback_failed_is_reported_once(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", ARMED)
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it"))
    doubles.play(
        "disarm_auto_rollback", "web-1", broken("AutoRolledBack", "it tried"), broken("AutoRolledBack", "it tried")
    )
    doubles.play("check_auto_rollback", "web-1", *[AutoRollback(state=Armed.FAILED, at=OVER)] * 2)
    talk = await run.upgrade(timed(1))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    result = await talk.result()
    assert result.servers[0].state is ServerState.UNVERIFIED
    assert [w.subject for w in result.warnings if w.code == "auto-rollback-failed"] == ["web-1"]
