"""Which run folders may go: those that no rollback needs any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from model.folders import FleetFolders, HostFolders, SavedChange, Unwanted


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRow:
    """One folder on one host, as a person sees it before it goes."""

    name: str
    change: str
    folder: str
    state: str
    version: str
    target: str
    taken_at: datetime | None
    bytes: int
    needed: str
    """Why a rollback may still need it; empty: it does not."""
    keepers: tuple[str, ...] = ()

    def age(self, now: datetime) -> timedelta | None:
        """Since it was saved."""
        return now - self.taken_at if self.taken_at else None


def rows(seen: FleetFolders, change: str = "") -> tuple[FolderRow, ...]:
    """Every folder of every host that could be looked at, Core's first, oldest first; `change`: of that one alone."""
    core = seen.core.newest()
    return tuple(
        _row(host, one, core)
        for host in (seen.core, *seen.servers)
        for one in host.changes
        if change in ("", one.change)
    )


def unwanted(found: tuple[FolderRow, ...], *, also_needed: bool = False) -> tuple[Unwanted, ...]:
    """What goes, host by host."""
    names = dict.fromkeys(row.name for row in found)
    by_host = {name: [r for r in found if r.name == name and (also_needed or not r.needed)] for name in names}
    return tuple(
        Unwanted(
            name=name,
            changes=tuple(r.change for r in mine),
            keepers=tuple(keeper for r in mine for keeper in r.keepers),
        )
        for name, mine in by_host.items()
        if mine
    )


def _row(host: HostFolders, one: SavedChange, core: SavedChange | None) -> FolderRow:
    return FolderRow(
        name=host.name,
        change=one.change,
        folder=one.folder,
        state=one.problem or one.state,
        version=one.version,
        target=one.target,
        taken_at=one.taken_at,
        bytes=one.bytes,
        needed=_needed(host, one, core),
        keepers=one.keepers,
    )


def _needed(host: HostFolders, one: SavedChange, core: SavedChange | None) -> str:
    if not one.in_place:
        if host.lock.endswith(f" {one.change}"):
            return "its upgrade holds the host: it did not end, or was terminated"
        return ""
    if one.problem:
        return "it cannot be read, so nobody knows"
    if one == host.newest() or (core is not None and one.change >= core.change):
        return "it is the way back of what is in place"
    return ""
