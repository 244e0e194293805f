"""WatchFleet: check a fleet for hours after an upgrade and again the next day. It reports and changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from activities import contracts
from model.facts import Finding, Severity
from model.fleet.spec import Event
from model.steps import Notice
from model.watch import (
    BACKUP_FINDINGS,
    QUERY_WATCH,
    SaveWatch,
    Seen,
    StatsAt,
    WatchCheck,
    WatchReport,
    WatchRequest,
    WatchState,
    WatchStep,
)
from workflows.runtime.failures import describe_failure
from workflows.runtime.steps import run_step

_MOST = 200
"""Findings that are recorded one by one. A longer list would not help."""
_SHORTEST = timedelta(seconds=1)
_NOT_CHECKED = "not-checked"
_TRIES = 6
"""Checks for the backup until one succeeds, because Core's host may be offline at that moment."""


@workflow.defn(name="WatchFleet")
class WatchFleet:
    """A child that its parent abandons: it outlives the upgrade and does not block other runs."""

    @workflow.init
    def __init__(self, request: WatchRequest) -> None:
        self._request = request
        self._stats: tuple[StatsAt, ...] = ()
        self._moments = moments(request)
        self._report = WatchReport(
            fleet=request.fleet.name,
            change=request.change,
            state=WatchState.WATCHING,
            since=request.since,
            until=self._moments[-1][0],
            at=request.since,
            servers=len(request.servers),
        )

    @workflow.run
    async def run(self, request: WatchRequest) -> WatchReport:  # noqa: ARG002 - __init__ keeps it
        """Make all checks, then save the report. If it is cancelled, it ends early with the findings so far."""
        try:
            await self._watch()
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            why = workflow.cancellation_reason() or "cancelled"
            self._report = replace(self._report, state=WatchState.ENDED, next_check=None, detail=why)
            return self._report
        self._report = replace(self._report, next_check=None)
        await self._save()
        return self._report

    @workflow.query(name=QUERY_WATCH, description="The findings so far, and the time of the next check.")
    def watch(self) -> WatchReport:
        """The report that `status` and `report` show."""
        return self._report

    async def _watch(self) -> None:
        tries = 1
        while self._moments:
            at, backup = self._moments.pop(0)
            self._report = replace(self._report, next_check=at)
            if at > workflow.now():
                await workflow.sleep(at - workflow.now(), summary="next check")
            if not backup and self._moments and self._moments[0][0] <= workflow.now():
                continue  # the worker was down: of several overdue checks one is enough
            check = await self._check(backup=backup)
            if check.superseded:
                self._report = replace(self._report, state=WatchState.ENDED, detail=check.superseded)
                return
            if self._note(check, backup=backup):
                await self._save()
            if backup and not _checked(check) and tries < _TRIES:
                tries += 1
                self._repeat_later()
        self._report = replace(self._report, state=WatchState.OVER)

    def _repeat_later(self) -> None:
        """Schedule the check for the backup again, because this one could not be made."""
        self._moments = sorted([*self._moments, (workflow.now() + self._pause, True)])
        self._report = replace(self._report, until=self._moments[-1][0])

    @property
    def _pause(self) -> timedelta:
        return max(self._request.watch.every, _SHORTEST)

    async def _check(self, *, backup: bool) -> WatchCheck:
        request = self._request
        step = WatchStep(
            fleet=request.fleet,
            change=request.change,
            core=request.core,
            servers=request.servers,
            since=request.since,
            backup=backup,
            # Core updates its stats only from time to time.
            before=self._stats if workflow.now() - self._report.at >= self._pause / 2 else (),
        )
        try:
            return await run_step(contracts.WATCH_FLEET, step)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            text = f"it could not be checked: {describe_failure(error).text}"
            finding = Finding(code=_NOT_CHECKED, severity=Severity.WARN, subject="core", text=text)
            return WatchCheck(findings=(finding,), stats=self._stats)

    def _note(self, check: WatchCheck, *, backup: bool) -> bool:
        """Record the findings of a check. Returns whether there is one that was not reported yet."""
        now, self._stats = workflow.now(), check.stats
        # A finding about the backup stays open until the next check for the backup.
        unseen = () if backup and _checked(check) else BACKUP_FINDINGS
        seen = {
            (s.finding.code, s.finding.subject): replace(s, open=s.open and s.finding.code in unseen)
            for s in self._report.found
        }
        fresh = []
        for finding in check.findings:
            key = (finding.code, finding.subject)
            old = seen.get(key)
            if old is None:
                fresh.append(finding)
                seen[key] = Seen(finding=finding, first=now, last=now)
            else:
                seen[key] = replace(old, finding=finding, last=now, checks=old.checks + 1, open=True)
        self._report = replace(
            self._report,
            at=now,
            checks=self._report.checks + 1,
            found=tuple(seen.values())[:_MOST],
            backup_seen=self._report.backup_seen or (backup and _checked(check)),
        )
        if fresh:
            self._notify(fresh)
        return bool(fresh)

    def _notify(self, fresh: list[Finding]) -> None:
        fleet = self._request.fleet
        text = "\n".join(f"{f.subject}: {f.text}" + (f" — {f.hint}" if f.hint else "") for f in fresh[:20])
        subject = f"after the upgrade of {fleet.name}: {fresh[0].subject}: {fresh[0].code}"
        notice = Notice(
            fleet=fleet.name, timing=fleet.timing, event=Event.WATCH, subject=subject, text=text, notify=fleet.notify
        )
        self._notice = asyncio.create_task(self._send(notice))

    async def _send(self, notice: Notice) -> None:
        try:
            await run_step(contracts.NOTIFY, notice)
        except FailureError as error:
            workflow.logger.warning("a notice could not be sent", extra={"why": describe_failure(error).text})

    async def _save(self) -> None:
        """Save the report. The watch continues if that fails."""
        save = SaveWatch(fleet=self._request.fleet, report=self._report)
        try:
            await run_step(contracts.SAVE_WATCH, save)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            text = f"its section of the report could not be saved on the Core host: {describe_failure(error).text}"
            self._report = replace(self._report, detail=text)


def _checked(check: WatchCheck) -> bool:
    return all(finding.code != _NOT_CHECKED for finding in check.findings)


def moments(request: WatchRequest) -> list[tuple[datetime, bool]]:
    """The times of the checks, and whether each includes the backup."""
    watch, at = request.watch, request.since
    found: list[tuple[datetime, bool]] = []
    step = max(watch.every, _SHORTEST)
    while watch.lasts and at + step <= request.since + watch.lasts:
        at += step
        found.append((at, False))
    if watch.backup_within:
        found.append((request.since + watch.backup_within, True))
    return sorted(found) or [(request.since, False)]


@workflow.defn(name="WatchFleet", versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class MovingWatchFleet(WatchFleet):
    """The same workflow, for workers with Worker Versioning: it moves on to the current version.

    A class of its own, because Temporal refuses a behavior from workers without Worker Versioning.
    """

    @workflow.init
    def __init__(self, request: WatchRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: WatchRequest) -> WatchReport:
        """See base class."""
        return await super().run(request)
