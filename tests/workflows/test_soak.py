"""`[verify] soak`: the servers of a wave are watched before the next wave begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from model.facts import Finding, Severity
from model.fleet.spec import FleetSpec
from model.gates import ControlVerb, Verdict
from model.status import FleetState, ServerState
from model.watch import StatsAt, WatchCheck
from tests.workflows.doubles import NOW, Doubles, broken, core_facts, fleet
from tests.workflows.driver import Driver

HANGS = Finding(code="agent-silent", severity=Severity.WARN, subject="web-1", text="it does not answer")
ZOMBIES = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct processes")


def soaking(servers: int = 2, minutes: float = 10) -> FleetSpec:
    return replace(fleet(servers, approve="core-only"), soak=timedelta(minutes=minutes))


async def test_each_wave_is_watched_before_the_next_one_begins(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    stats = (StatsAt(server="web-1", at=NOW),)
    doubles.play("watch_fleet", "core", *[WatchCheck(stats=stats)] * 8)
    talk = await run.upgrade(soaking())
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED
    names = [call.name for call in doubles.calls if call.name in ("watch_fleet", "switch_server")]
    assert names == ["switch_server", "switch_server", *["watch_fleet"] * 10, "switch_server", *["watch_fleet"] * 10]
    first = doubles.inputs("watch_fleet")[:10]
    assert {step.servers for step in first} == {("Local", "web-1")}
    assert [bool(step.before) for step in first] == [False] * 6 + [True] + [False] * 3, "stats may be equal for minutes"


async def test_a_server_that_fails_stops_the_rollout_and_a_retry_verifies_it(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", None, WatchCheck(findings=(HANGS, ZOMBIES)))
    talk = await run.upgrade(soaking())
    await talk.answer("core")
    await talk.until(lambda p: p.servers[0].step.startswith("watched until"), "watched")
    await run.env.sleep(timedelta(minutes=3))
    gate = await talk.gate("failure/web-1/1")
    assert any("it failed its soak: it does not answer" in fact for fact in gate.facts), gate.facts
    assert doubles.count("switch_server", "web-2") == 0
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    result = await talk.result()
    assert {o.name: (o.state, o.attempt) for o in result.servers}["web-1"] == (ServerState.UPGRADED, 2)
    assert [f.code for f in result.warnings] == ["zombies"]


async def test_a_check_without_a_result_is_a_warning(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", broken("CoreRefused", "the key was withdrawn"))
    talk = await run.upgrade(soaking(1, minutes=2))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert "could not be watched: the key was withdrawn" in result.warnings[0].text


async def test_without_an_api_key_the_report_says_that_nothing_was_watched(run: Driver, doubles: Doubles) -> None:
    doubles.core = replace(core_facts(), api=False)
    talk = await run.upgrade(soaking(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [w.text for w in result.warnings if w.code == "soak"] == ["wave 1 was not watched: only Core's API can tell"]
    assert doubles.count("watch_fleet") == 0


async def test_a_stop_ends_the_watching(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(soaking())
    await talk.answer("core")
    await talk.until(lambda p: p.servers[0].step.startswith("watched until"), "watched")
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert {o.name: o.state for o in result.servers}["web-1"] is ServerState.UPGRADED
