"""The watch after an upgrade: it does not block other runs, checks by durable timers, and reports its findings."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from model.facts import Finding, Severity
from model.fleet.spec import FleetSpec, Watch
from model.gates import ControlVerb
from model.status import FleetState
from model.text.watch import render_watch
from model.watch import BACKUP_FINDINGS, StatsAt, WatchCheck, WatchReport, WatchState, watch_id
from tests.workflows.doubles import CHANGE, NOW, Doubles, broken, core_facts, fleet
from tests.workflows.driver import Driver

HOUR = timedelta(hours=1)
WATCH = Watch(lasts=6 * HOUR, every=HOUR, backup_within=26 * HOUR)
ZOMBIES = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct processes pile up")


def watched(spec: FleetSpec, watch: Watch = WATCH) -> FleetSpec:
    return replace(spec, watch=watch)


async def upgraded(run: Driver, spec: FleetSpec) -> WorkflowHandle[object, WatchReport]:
    """An upgrade that is over; its watch."""
    talk = await run.upgrade(spec)
    await talk.answer("core")
    # Polling, not waiting: to wait for a result would skip the watch's hours.
    await talk.until(lambda p: p.state is FleetState.UPGRADED, "upgraded")
    return run.client.get_workflow_handle(watch_id("komodo-upgrade/prod", CHANGE), result_type=WatchReport)


async def over(run: Driver, watch: WorkflowHandle[object, WatchReport]) -> WatchReport:
    """Its end, the hours before it skipped: for workflows that the test has started itself the client does this."""
    env: Any = run.env
    async with env.time_skipping_unlocked():
        return await asyncio.wait_for(watch.result(), 20)


async def test_it_checks_for_hours_and_again_the_next_day_with_few_events(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    watch = await upgraded(run, watched(fleet(1)))
    now: WatchReport = await watch.query("watch", result_type=WatchReport)
    assert (now.state, now.checks) == (WatchState.WATCHING, 0)
    assert now.next_check == now.since + HOUR
    assert now.until == now.since + 26 * HOUR
    report = await over(run, watch)
    assert (report.state, report.checks, report.found, report.next_check) == (WatchState.OVER, 7, (), None)
    assert report.backup_seen
    checks = doubles.inputs("watch_fleet")
    assert [check.backup for check in checks] == [False] * 6 + [True]
    assert checks[0].servers == ("web-1", "Local")
    assert checks[0].fleet.servers == ()
    assert doubles.count("save_watch") == 1
    assert "nothing was found" in render_watch(doubles.inputs("save_watch")[0].report)
    assert len((await watch.fetch_history()).events) < 100


async def test_what_it_finds_is_reported_once_saved_and_kept(run: Driver, doubles: Doubles) -> None:
    found = WatchCheck(findings=(ZOMBIES,))
    doubles.play("watch_fleet", "core", WatchCheck(), found, found, WatchCheck())
    watch = await upgraded(run, watched(fleet(1)))
    report = await over(run, watch)
    [seen] = report.found
    assert (seen.finding, seen.checks, seen.open) == (ZOMBIES, 2, False)
    assert [(at - report.since) // HOUR for at in (seen.first, seen.last)] == [2, 3]
    assert [n.text for n in doubles.notices if "after the upgrade" in n.subject] == [
        "core: 37 defunct processes pile up"
    ]
    assert doubles.count("save_watch") == 2, "when there is news, and at the end"
    assert "37 defunct" in render_watch(doubles.inputs("save_watch")[0].report)


async def test_a_check_that_fails_is_a_finding_and_the_next_one_is_made(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", broken("SecretMissing", "no key"), WatchCheck(findings=(ZOMBIES,)))
    doubles.play("save_watch", "core", broken("DiskFull", "no space"))
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=2 * HOUR)))
    report = await over(run, watch)
    assert [(s.finding.code, s.open) for s in report.found] == [("not-checked", False), ("zombies", True)]
    assert report.state is WatchState.OVER


async def test_it_ends_when_another_upgrade_is_on_or_somebody_cancels_it(run: Driver, doubles: Doubles) -> None:
    doubles.play(
        "watch_fleet", "core", WatchCheck(superseded="the upgrade X of the fleet lab is working on Core's host")
    )
    watch = await upgraded(run, watched(fleet(1)))
    report = await over(run, watch)
    assert report.state is WatchState.ENDED
    assert "the fleet lab is working" in report.detail
    assert doubles.count("watch_fleet") == 1


async def test_it_holds_up_no_later_upgrade_and_ends_when_cancelled(run: Driver, doubles: Doubles) -> None:
    watch = await upgraded(run, watched(fleet(1)))
    again = await run.upgrade(fleet(1), change="20261124T080000Z")
    await again.gate("core")
    await watch.cancel()
    report = await asyncio.wait_for(watch.result(), 20)
    assert (report.state, report.checks) == (WatchState.ENDED, 0)
    await again.control(ControlVerb.STOP)
    assert (await again.result()).state is FleetState.STOPPED


@pytest.mark.parametrize("how", ["off", "stopped before anything", "rolled back"])
async def test_where_nothing_new_runs_nobody_watches(run: Driver, doubles: Doubles, how: str) -> None:
    spec = fleet(2) if how == "off" else watched(fleet(2))
    talk = await run.upgrade(spec)
    await talk.gate("core")
    if how == "stopped before anything":
        await talk.control(ControlVerb.STOP)
    else:
        await talk.answer("core")
        await talk.gate("wave/2")
        if how == "off":
            await talk.control(ControlVerb.STOP)
        else:
            await talk.control(ControlVerb.ROLLBACK)
            await talk.answer("rollback/1")
    await talk.result()
    with pytest.raises(RPCError, match="not found"):
        await run.client.get_workflow_handle(watch_id("komodo-upgrade/prod", CHANGE)).describe()


async def test_the_stats_of_the_last_check_are_given_to_the_next(run: Driver, doubles: Doubles) -> None:
    stats = (StatsAt(server="web-1", at=NOW),)
    doubles.play("watch_fleet", "core", WatchCheck(stats=stats))
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=2 * HOUR, every=HOUR)))
    await over(run, watch)
    assert [check.before for check in doubles.inputs("watch_fleet")] == [(), stats]


async def test_missed_checks_become_one_that_compares_no_recent_stats(run: Driver, doubles: Doubles) -> None:
    """A laptop that was closed for hours: stats that Core had no time to renew are not reported as outdated."""
    second, stats = timedelta(seconds=1), (StatsAt(server="web-1", at=NOW),)
    doubles.play("watch_fleet", "core", WatchCheck(stats=stats), WatchCheck(stats=stats))
    slow = doubles.hold("watch_fleet", "core")
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=3 * second, every=second, backup_within=HOUR)))
    await asyncio.wait_for(slow.begun.wait(), 20)
    await asyncio.sleep(2.5)  # the checks of the second and third second are due by now
    slow.go.set()
    report = await over(run, watch)
    assert [check.backup for check in doubles.inputs("watch_fleet")] == [False, False, True]
    assert [check.before for check in doubles.inputs("watch_fleet")] == [(), (), stats]
    assert (report.state, report.checks) == (WatchState.OVER, 3)


async def test_what_became_of_the_backup_is_asked_until_it_is_known_and_kept(run: Driver, doubles: Doubles) -> None:
    failed = Finding(code="backup-failed", severity=Severity.WARN, subject="core", text="ran, and failed")
    assert failed.code in BACKUP_FINDINGS
    away = broken("Unreachable", "no route")
    doubles.play("watch_fleet", "core", None, None, away, None, WatchCheck(findings=(failed,)))
    half = timedelta(minutes=30)
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=4 * HOUR, every=HOUR, backup_within=2 * HOUR + half)))
    report = await over(run, watch)
    assert [check.backup for check in doubles.inputs("watch_fleet")] == [False, False, True, False, True, False]
    assert [(s.finding.code, s.open) for s in report.found] == [("not-checked", False), ("backup-failed", True)]
    assert report.backup_seen


async def test_a_backup_that_can_never_be_checked_is_not_reported_as_seen(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", *(broken("Unreachable", "no route") for _ in range(9)))
    watch = await upgraded(run, watched(fleet(1), Watch(every=HOUR, backup_within=HOUR)))
    report = await over(run, watch)
    assert (report.checks, report.backup_seen, (report.until - report.since) // HOUR) == (6, False, 6)
    assert [(s.finding.code, s.open) for s in report.found] == [("not-checked", True)]
