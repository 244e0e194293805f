"""What is looked at after an upgrade, for hours and until the next day: input, looks and report of `WatchFleet`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from model.facts import CoreFacts, Finding
from model.fleet import FleetSpec, Watch

QUERY_WATCH = "watch"
"""The WatchReport as it stands."""
BACKUP_FINDINGS = ("no-backup-procedure", "backup-failed", "backup-not-run")
"""Codes of what only a look for the automatic backup can find, or find cured."""
EXIT_FOUND = 8
"""Exit code of `status` where the upgrade went well and the watch has found something."""


def watch_id(workflow_id: str, change: str) -> str:
    """Of the watch over one upgrade: below the fleet's own id, so it holds up nobody."""
    return f"{workflow_id}/watch/{change}"


class WatchState(StrEnum):
    """Where a watch stands."""

    WATCHING = "watching"
    OVER = "over"
    ENDED = "ended early"
    """Another upgrade or a rollback began, or somebody cancelled it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """Input of `WatchFleet`. The fleet comes without its servers: only Core's host is talked to."""

    fleet: FleetSpec
    change: str
    watch: Watch
    core: CoreFacts
    servers: tuple[str, ...]
    """Upgraded ones, as Komodo names them."""
    since: datetime
    """When the upgrade was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsAt:
    """When the stats that Core holds of a server were made, by that server's clock."""

    server: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchStep:
    """Input of `watch_fleet`: one look."""

    fleet: FleetSpec
    change: str
    core: CoreFacts
    servers: tuple[str, ...]
    since: datetime
    backup: bool = False
    """It is the next day: the automatic backup must have run."""
    before: tuple[StatsAt, ...] = ()
    """Of the last look: by now they must have moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLook:
    """Result of `watch_fleet`."""

    findings: tuple[Finding, ...] = ()
    stats: tuple[StatsAt, ...] = ()
    superseded: str = ""
    """Why there is nothing to watch any more; empty: there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One finding, over all looks."""

    finding: Finding
    first: datetime
    last: datetime
    looks: int = 1
    open: bool = True
    """The last look found it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReport:
    """Answer of the query `watch`, and what the watch ends with."""

    fleet: str
    change: str
    state: WatchState
    since: datetime
    until: datetime
    at: datetime
    """Of the last look (of the beginning before there was one)."""
    looks: int = 0
    next_look: datetime | None = None
    servers: int = 0
    backup_seen: bool = False
    """The automatic backup was looked for; whether it ran is told by the findings."""
    found: tuple[Seen, ...] = ()
    detail: str = ""

    @property
    def open(self) -> tuple[Seen, ...]:
        """What the last look found."""
        return tuple(seen for seen in self.found if seen.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveWatch:
    """Input of `save_watch`: the watch's section of report.md, and watch.json, in Core's run folder."""

    fleet: FleetSpec
    change: str
    markdown: str
    json: str
