"""WatchFleet: after an upgrade, for hours and once more the next day. Looks, remembers, tells; changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.facts import Finding, Severity
    from model.steps import Notice
    from model.watch import (
        BACKUP_FINDINGS,
        QUERY_WATCH,
        SaveWatch,
        Seen,
        StatsAt,
        WatchLook,
        WatchReport,
        WatchRequest,
        WatchState,
        WatchStep,
    )
    from model.watch_report import render_watch, watch_json
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps
    from workflows.saga import trouble

_MOST = 200
"""Findings that are kept apart. A fleet in flames needs no list."""
_SHORTEST = timedelta(seconds=1)
_NOT_LOOKED_AT = "not-looked-at"
_TRIES = 6
"""Looks for the backup, one after the other: Core's host may be away at just that moment of the next day."""


@workflow.defn(name="WatchFleet")
class WatchFleet:
    """A child that its parent abandons: it outlives the upgrade, and holds up no other."""

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
        """All looks, then the report. Cancelled, it ends early with what it has."""
        try:
            await self._watch()
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            why = workflow.cancellation_reason() or "cancelled"
            self._report = replace(self._report, state=WatchState.ENDED, next_look=None, detail=why)
            return self._report
        self._report = replace(self._report, next_look=None)
        await self._save()
        return self._report

    @workflow.query(name=QUERY_WATCH, description="What was found so far, and when the next look is.")
    def watch(self) -> WatchReport:
        """What `status` and `report` show."""
        return self._report

    async def _watch(self) -> None:
        tries = 1
        while self._moments:
            at, backup = self._moments.pop(0)
            self._report = replace(self._report, next_look=at)
            if at > workflow.now():
                await workflow.sleep(at - workflow.now(), summary="next look")
            if not backup and self._moments and self._moments[0][0] <= workflow.now():
                continue  # slept through, with the worker: several looks at once see no more than one
            look = await self._look(backup=backup)
            if look.superseded:
                self._report = replace(self._report, state=WatchState.ENDED, detail=look.superseded)
                return
            if self._note(look, backup=backup):
                await self._save()
            if backup and not _looked(look) and tries < _TRIES:
                tries += 1
                self._again()
        self._report = replace(self._report, state=WatchState.OVER)

    def _again(self) -> None:
        """The look for the backup once more: this one could not be made."""
        self._moments = sorted([*self._moments, (workflow.now() + self._pause, True)])
        self._report = replace(self._report, until=self._moments[-1][0])

    @property
    def _pause(self) -> timedelta:
        return max(self._request.watch.every, _SHORTEST)

    async def _look(self, *, backup: bool) -> WatchLook:
        request = self._request
        step = WatchStep(
            fleet=request.fleet,
            change=request.change,
            core=request.core,
            servers=request.servers,
            since=request.since,
            backup=backup,
            # Core makes new ones once in a while only.
            before=self._stats if workflow.now() - self._report.at >= self._pause / 2 else (),
        )
        try:
            return await steps.watch_fleet(step)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            text = f"it could not be looked at: {trouble(error).text}"
            finding = Finding(code=_NOT_LOOKED_AT, severity=Severity.WARN, subject="core", text=text)
            return WatchLook(findings=(finding,), stats=self._stats)

    def _note(self, look: WatchLook, *, backup: bool) -> bool:
        """True: there is something that people do not know yet."""
        now, self._stats = workflow.now(), look.stats
        # What only a look for the backup finds stays open until the next of these.
        unseen = () if backup and _looked(look) else BACKUP_FINDINGS
        seen = {
            (s.finding.code, s.finding.subject): replace(s, open=s.open and s.finding.code in unseen)
            for s in self._report.found
        }
        fresh = []
        for finding in look.findings:
            key = (finding.code, finding.subject)
            old = seen.get(key)
            if old is None:
                fresh.append(finding)
                seen[key] = Seen(finding=finding, first=now, last=now)
            else:
                seen[key] = replace(old, finding=finding, last=now, looks=old.looks + 1, open=True)
        self._report = replace(
            self._report,
            at=now,
            looks=self._report.looks + 1,
            found=tuple(seen.values())[:_MOST],
            backup_seen=self._report.backup_seen or (backup and _looked(look)),
        )
        if fresh:
            self._tell(fresh)
        return bool(fresh)

    def _tell(self, fresh: list[Finding]) -> None:
        fleet = self._request.fleet
        text = "\n".join(f"{f.subject}: {f.text}" + (f" — {f.cure}" if f.cure else "") for f in fresh[:20])
        subject = f"after the upgrade of {fleet.name}: {fresh[0].subject}: {fresh[0].code}"
        notice = Notice(fleet=fleet.name, subject=subject, text=text, command=fleet.notify_command)
        self._notice = asyncio.create_task(self._send(notice))

    async def _send(self, notice: Notice) -> None:
        try:
            await steps.notify(notice, self._request.fleet.clocks)
        except FailureError as error:
            workflow.logger.warning("a message did not reach anybody", extra={"why": trouble(error).text})

    async def _save(self) -> None:
        """A report that cannot be written is no reason to stop watching."""
        report = self._report
        save = SaveWatch(
            fleet=self._request.fleet,
            change=report.change,
            markdown=render_watch(report),
            json=watch_json(report),
        )
        try:
            await steps.save_watch(save)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            text = f"its section of the report could not be saved on the Core host: {trouble(error).text}"
            self._report = replace(self._report, detail=text)


def _looked(look: WatchLook) -> bool:
    return all(finding.code != _NOT_LOOKED_AT for finding in look.findings)


def moments(request: WatchRequest) -> list[tuple[datetime, bool]]:
    """When to look, and whether the backup is looked for then."""
    watch, at = request.watch, request.since
    found: list[tuple[datetime, bool]] = []
    step = max(watch.every, _SHORTEST)
    while watch.lasts and at + step <= request.since + watch.lasts:
        at += step
        found.append((at, False))
    if watch.backup_within:
        found.append((request.since + watch.backup_within, True))
    return sorted(found) or [(request.since, False)]
