"""The watch after an upgrade: it holds up nobody, looks by durable timers, and says what it found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from model.decisions import ControlVerb
from model.facts import Finding, Severity
from model.fleet import FleetSpec, Watch
from model.progress import FleetState
from model.watch import BACKUP_FINDINGS, StatsAt, WatchLook, WatchReport, WatchState, watch_id
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
    # Looking, not waiting: to wait for a result would skip the watch's hours.
    await talk.until(lambda p: p.state is FleetState.UPGRADED, "upgraded")
    return run.client.get_workflow_handle(watch_id("komodo-upgrade/prod", CHANGE), result_type=WatchReport)


async def over(run: Driver, watch: WorkflowHandle[object, WatchReport]) -> WatchReport:
    """Its end, the hours before it skipped: for workflows that the test has started itself the client does this."""
    env: Any = run.env
    async with env.time_skipping_unlocked():
        return await asyncio.wait_for(watch.result(), 20)


async def test_it_looks_for_hours_and_once_more_the_next_day_with_few_events(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    watch = await upgraded(run, watched(fleet(1)))
    now: WatchReport = await watch.query("watch", result_type=WatchReport)
    assert (now.state, now.looks) == (WatchState.WATCHING, 0)
    assert now.next_look == now.since + HOUR
    assert now.until == now.since + 26 * HOUR
    report = await over(run, watch)
    assert (report.state, report.looks, report.found, report.next_look) == (WatchState.OVER, 7, (), None)
    assert report.backup_seen
    looks = doubles.inputs("watch_fleet")
    assert [look.backup for look in looks] == [False] * 6 + [True]
    assert looks[0].servers == ("web-1", "Local")
    assert looks[0].fleet.servers == ()
    assert doubles.count("save_watch") == 1
    assert "nothing was found" in doubles.inputs("save_watch")[0].markdown
    assert len((await watch.fetch_history()).events) < 100


async def test_what_it_finds_is_told_once_saved_and_kept(run: Driver, doubles: Doubles) -> None:
    found = WatchLook(findings=(ZOMBIES,))
    doubles.play("watch_fleet", "core", WatchLook(), found, found, WatchLook())
    watch = await upgraded(run, watched(fleet(1)))
    report = await over(run, watch)
    [seen] = report.found
    assert (seen.finding, seen.looks, seen.open) == (ZOMBIES, 2, False)
    assert [(at - report.since) // HOUR for at in (seen.first, seen.last)] == [2, 3]
    assert [n.text for n in doubles.notices if "after the upgrade" in n.subject] == [
        "core: 37 defunct processes pile up"
    ]
    assert doubles.count("save_watch") == 2, "when there is news, and at the end"
    assert "37 defunct" in doubles.inputs("save_watch")[0].markdown


async def test_a_look_that_fails_is_a_finding_and_the_next_one_is_made(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", broken("SecretMissing", "no key"), WatchLook(findings=(ZOMBIES,)))
    doubles.play("save_watch", "core", broken("DiskFull", "no space"))
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=2 * HOUR)))
    report = await over(run, watch)
    assert [(s.finding.code, s.open) for s in report.found] == [("not-looked-at", False), ("zombies", True)]
    assert report.state is WatchState.OVER


async def test_it_ends_when_another_upgrade_is_on_or_somebody_cancels_it(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", WatchLook(superseded="the upgrade X of the fleet lab works on Core's host"))
    watch = await upgraded(run, watched(fleet(1)))
    report = await over(run, watch)
    assert report.state is WatchState.ENDED
    assert "the fleet lab works" in report.detail
    assert doubles.count("watch_fleet") == 1


async def test_it_holds_up_no_later_upgrade_and_ends_when_cancelled(run: Driver, doubles: Doubles) -> None:
    watch = await upgraded(run, watched(fleet(1)))
    again = await run.upgrade(fleet(1), change="20261124T080000Z")
    await again.gate("core")
    await watch.cancel()
    report = await asyncio.wait_for(watch.result(), 20)
    assert (report.state, report.looks) == (WatchState.ENDED, 0)
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


async def test_the_stats_of_the_last_look_are_given_to_the_next(run: Driver, doubles: Doubles) -> None:
    stats = (StatsAt(server="web-1", at=NOW),)
    doubles.play("watch_fleet", "core", WatchLook(stats=stats))
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=2 * HOUR, every=HOUR)))
    await over(run, watch)
    assert [look.before for look in doubles.inputs("watch_fleet")] == [(), stats]


async def test_looks_that_were_slept_through_are_one_and_compare_nothing_a_moment_old(
    run: Driver, doubles: Doubles
) -> None:
    """A laptop that was closed for hours: stats that Core had no time to renew do not stand still."""
    second, stats = timedelta(seconds=1), (StatsAt(server="web-1", at=NOW),)
    doubles.play("watch_fleet", "core", WatchLook(stats=stats), WatchLook(stats=stats))
    slow = doubles.hold("watch_fleet", "core")
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=3 * second, every=second, backup_within=HOUR)))
    await asyncio.wait_for(slow.begun.wait(), 20)
    await asyncio.sleep(2.5)  # the looks of the second and third second are due by now
    slow.go.set()
    report = await over(run, watch)
    assert [look.backup for look in doubles.inputs("watch_fleet")] == [False, False, True]
    assert [look.before for look in doubles.inputs("watch_fleet")] == [(), (), stats]
    assert (report.state, report.looks) == (WatchState.OVER, 3)


async def test_what_became_of_the_backup_is_asked_until_it_is_known_and_kept(run: Driver, doubles: Doubles) -> None:
    failed = Finding(code="backup-failed", severity=Severity.WARN, subject="core", text="ran, and failed")
    assert failed.code in BACKUP_FINDINGS
    away = broken("Unreachable", "no route")
    doubles.play("watch_fleet", "core", None, None, away, None, WatchLook(findings=(failed,)))
    half = timedelta(minutes=30)
    watch = await upgraded(run, watched(fleet(1), Watch(lasts=4 * HOUR, every=HOUR, backup_within=2 * HOUR + half)))
    report = await over(run, watch)
    assert [look.backup for look in doubles.inputs("watch_fleet")] == [False, False, True, False, True, False]
    assert [(s.finding.code, s.open) for s in report.found] == [("not-looked-at", False), ("backup-failed", True)]
    assert report.backup_seen


async def test_a_backup_that_can_never_be_looked_for_is_not_said_to_be_seen(run: Driver, doubles: Doubles) -> None:
    doubles.play("watch_fleet", "core", *(broken("Unreachable", "no route") for _ in range(9)))
    watch = await upgraded(run, watched(fleet(1), Watch(every=HOUR, backup_within=HOUR)))
    report = await over(run, watch)
    assert (report.looks, report.backup_seen, (report.until - report.since) // HOUR) == (6, False, 6)
    assert [(s.finding.code, s.open) for s in report.found] == [("not-looked-at", True)]
