"""Input, checks and report of `WatchFleet`, which checks a fleet for hours after an upgrade and again the next day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from model.facts import CoreFacts, Finding
from model.fleet.spec import FleetSpec, Watch
from model.steps import FleetMessage

QUERY_WATCH = "watch"
"""Returns the current WatchReport."""
BACKUP_FINDINGS = ("no-backup-procedure", "backup-failed", "backup-not-run")
"""Codes of findings that only a check for the automatic backup can open or close."""
EXIT_FOUND = 8
"""Exit code of `status` if the upgrade succeeded and the watch has a finding."""


def watch_id(workflow_id: str, change: str) -> str:
    """Id of the watch over one upgrade. It differs from the fleet's id, so it does not block other runs."""
    return f"{workflow_id}/watch/{change}"


class WatchState(StrEnum):
    """The state of a watch."""

    WATCHING = "watching"
    OVER = "over"
    ENDED = "ended early"
    """Another upgrade or a rollback started, or an operator cancelled the watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """Input of `WatchFleet`. The fleet has no servers here, because only Core's host is connected to."""

    fleet: FleetSpec
    change: str
    watch: Watch
    core: CoreFacts
    servers: tuple[str, ...]
    """Komodo's names of the upgraded servers."""
    since: datetime
    """The end of the upgrade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsAt:
    """The time of the stats that Core holds of a server, by that server's clock."""

    server: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchStep(FleetMessage):
    """Input of `watch_fleet`: one check."""

    change: str
    core: CoreFacts
    servers: tuple[str, ...]
    since: datetime
    backup: bool = False
    """Check for the automatic backup, which must have run by the next day."""
    before: tuple[StatsAt, ...] = ()
    """Stats of the last check: Core must have newer ones by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchCheck:
    """Result of `watch_fleet`."""

    findings: tuple[Finding, ...] = ()
    stats: tuple[StatsAt, ...] = ()
    superseded: str = ""
    """Why the watch ends, for example because of another upgrade; empty: it continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One finding, over all checks."""

    finding: Finding
    first: datetime
    last: datetime
    checks: int = 1
    """In how many checks it was found."""
    open: bool = True
    """The last check found it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReport:
    """Answer of the query `watch`, and result of the watch."""

    fleet: str
    change: str
    state: WatchState
    since: datetime
    until: datetime
    at: datetime
    """Time of the last check; before the first one, the start of the watch."""
    checks: int = 0
    next_check: datetime | None = None
    servers: int = 0
    backup_seen: bool = False
    """The automatic backup was checked; the findings show whether it ran."""
    found: tuple[Seen, ...] = ()
    detail: str = ""

    @property
    def open(self) -> tuple[Seen, ...]:
        """The findings of the last check."""
        return tuple(seen for seen in self.found if seen.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveWatch(FleetMessage):
    """Input of `save_watch`: the watch's section of report.md, and watch.json, in Core's run folder."""

    report: WatchReport
