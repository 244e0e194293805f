"""When a run goes on: `start --at`, and maintenance windows that open and close while a rollout runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cli import table
from model.gates import ControlVerb
from model.planning import make_plan
from model.status import FleetProgress, FleetState, Phase, ServerState
from model.steps import Recheck
from tests.workflows.doubles import QUICK, Doubles, broken, core_facts, fleet, server_facts
from tests.workflows.driver import Driver
from workflows.runtime.live_status import render_markdown

HOUR = timedelta(hours=1)


async def window(run: Driver, begins: timedelta, lasts: timedelta = HOUR) -> tuple[str, ...]:
    """A window in UTC, counted from the server's time, every day."""
    begin = await run.env.get_current_time() + begins
    return (f"{begin:%H:%M}-{begin + lasts:%H:%M} UTC",)


def scheduled(progress: FleetProgress) -> bool:
    return progress.waiting is not None


async def test_no_host_is_contacted_before_the_start(run: Driver, doubles: Doubles) -> None:
    at = await run.env.get_current_time() + 3 * HOUR
    talk = await run.upgrade(fleet(1), start_at=at)
    progress = await talk.until(scheduled, "scheduled")
    assert progress.waiting
    assert (progress.phase, progress.waiting.until, progress.waiting.why) == (Phase.SCHEDULED, at, "start --at")
    line = f"it continues at {at:%Y-%m-%d %H:%M} UTC (start --at)"
    assert any(line in shown for shown in table.lines(progress))
    assert line in list(table.changes(None, progress))
    assert line in render_markdown(progress).replace("\\", "")
    await run.env.sleep(2 * HOUR)
    assert doubles.names() == []
    await run.env.sleep(2 * HOUR)
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED
    assert set(doubles.names()[:2]) == {"survey_core", "survey_server"}
    waited = [begun.at for begun in (await talk.progress()).phases][:3]
    assert waited[2] - waited[1] >= 3 * HOUR - timedelta(minutes=1)


async def test_a_start_in_the_past_begins_at_once(run: Driver) -> None:
    talk = await run.upgrade(fleet(1), start_at=await run.env.get_current_time() - HOUR)
    await talk.gate("core")
    assert Phase.SCHEDULED not in [begun.phase for begun in (await talk.progress()).phases]


async def test_stop_and_rollback_end_the_wait_for_the_start(run: Driver, doubles: Doubles) -> None:
    ends = {ControlVerb.STOP: FleetState.STOPPED, ControlVerb.ROLLBACK: FleetState.ROLLED_BACK}
    for verb, state in ends.items():
        talk = await run.upgrade(fleet(1), start_at=await run.env.get_current_time() + 9 * HOUR)
        await talk.until(scheduled, "scheduled")
        await talk.control(verb)
        result = await talk.result()
        assert result.state is state
        assert "nothing was upgraded" in result.detail or "nothing is lost" in result.detail
        assert (await talk.progress()).waiting is None
    assert doubles.names() == []


async def test_a_cancel_ends_the_wait_for_the_start(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(1), start_at=await run_real.env.get_current_time() + 9 * HOUR)
    await talk.until(scheduled, "scheduled")
    await talk.handle.cancel()
    await talk.until(lambda p: p.phase is Phase.DONE, "done")
    assert (await talk.result_now()).state is FleetState.STOPPED
    assert doubles.names() == []


async def test_a_pause_holds_the_start(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1), start_at=await run.env.get_current_time() + HOUR)
    await talk.until(scheduled, "scheduled")
    await talk.control(ControlVerb.PAUSE)
    await run.env.sleep(2 * HOUR)
    assert doubles.names() == []
    await talk.control(ControlVerb.RESUME)
    await talk.gate("core")


async def test_core_and_waves_begin_only_inside_the_window(run: Driver, doubles: Doubles) -> None:
    """It closes in the middle of a wave: what runs is finished, the next wave waits for the next window."""
    doubles.play("switch_server", "web-1", broken("Unreachable", transient=True))
    slow = replace(QUICK, retry=timedelta(minutes=90))  # its next attempt comes after the window
    talk = await run.upgrade(fleet(3, timing=slow, window=await window(run, 2 * HOUR)))
    gate = await talk.answer("core")
    assert any("begin only in the maintenance window" in fact for fact in gate.facts)
    progress = await talk.until(scheduled, "waiting for the window")
    assert progress.waiting
    assert progress.waiting.why.startswith("maintenance window: ")
    opens = progress.waiting.until
    assert doubles.count("stop_core") == 0
    assert doubles.count("recheck_core") == 0, "what waited for the window is checked when it opens"
    await run.env.sleep(5 * HOUR)
    await talk.answer("wave/2")
    progress = await talk.until(scheduled, "waiting for the next window")
    assert progress.waiting
    assert progress.waiting.until == opens + timedelta(days=1)
    assert [s.state for s in progress.servers] == [ServerState.UPGRADED, ServerState.PENDING, ServerState.PENDING]
    assert doubles.count("recheck_core") == 1
    assert doubles.count("switch_server", "web-1") == 2
    assert doubles.count("switch_server", "web-2") == 0
    await run.env.sleep(timedelta(days=1))
    await talk.answer("wave/3")
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("find_windows") == 1, "one answer covers weeks"


async def test_an_open_window_is_not_waited_for(run: Driver) -> None:
    talk = await run.upgrade(fleet(2, window=("00:00-24:00 UTC",), approve="core-only"))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.UPGRADED
    assert Phase.SCHEDULED not in [begun.phase for begun in (await talk.progress()).phases]


async def test_what_changed_while_it_waited_is_approved_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_core", "core", Recheck(drift=("compose.yaml was changed",)))
    talk = await run.upgrade(fleet(1, window=await window(run, 2 * HOUR, 3 * HOUR)))
    await talk.answer("core")
    await talk.until(scheduled, "waiting for the window")
    await run.env.sleep(2 * HOUR + timedelta(minutes=5))
    gate = await talk.gate("core/2")
    assert any("compose.yaml was changed" in fact for fact in gate.facts)
    assert doubles.count("stop_core") == 0
    await talk.answer("core/2")
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_stop_and_cancel_end_the_wait_for_a_window(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2, window=await window(run, 5 * HOUR)))
    await talk.answer("core")
    await talk.until(scheduled, "waiting for the window")
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert "nothing was upgraded" in result.detail
    assert doubles.count("stop_core") == 0


async def test_a_run_that_continues_begins_inside_the_window(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(current=True)
    talk = await run.upgrade(fleet(1, window=await window(run, 2 * HOUR)))
    await talk.answer("wave/1")
    await talk.until(scheduled, "waiting for the window")
    assert doubles.count("switch_server") == 0
    await run.env.sleep(3 * HOUR)
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_a_worker_that_does_not_know_the_zone_refuses_at_once(run: Driver, doubles: Doubles) -> None:
    doubles.play("find_windows", "core", broken("FleetFileError", "the time zone 'Europe/Berlin' is unknown"))
    talk = await run.upgrade(fleet(1, window=("22:00-05:00 Europe/Berlin",)))
    result = await talk.result()
    assert result.state is FleetState.REFUSED
    assert "the time zone 'Europe/Berlin' is unknown" in result.detail
    assert doubles.names() == ["find_windows"]


async def test_windows_are_resolved_again_when_all_are_over(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2, window=await window(run, -HOUR, 2 * HOUR)))
    await talk.gate("core")
    await run.env.sleep(timedelta(days=40))
    await talk.answer("core")
    progress = await talk.until(lambda p: p.gate is not None and p.gate.id == "wave/2", "at gate wave/2")
    assert progress.core.state is ServerState.UPGRADED
    first, second = (ask.after for ask in doubles.inputs("find_windows"))
    assert second - first >= timedelta(days=40)


def test_the_order_of_the_file_is_in_the_plan() -> None:
    spec = fleet(3, order=("web-3", "*"))
    plan = make_plan(spec, "c", core_facts(), {name: server_facts(name) for name in ("web-1", "web-2", "web-3")})
    assert [wave.servers for wave in plan.waves] == [("web-1",), ("web-3",), ("web-2",)]
