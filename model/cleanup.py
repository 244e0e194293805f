"""Which run folders may go: those that no rollback needs any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from model.run_folders import FleetFolders, HostFolders, SavedChange, Unwanted


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
    image_pins: tuple[str, ...] = ()

    def age(self, now: datetime) -> timedelta | None:
        """Since it was saved."""
        return now - self.taken_at if self.taken_at else None


def rows(seen: FleetFolders, change: str = "") -> tuple[FolderRow, ...]:
    """Every folder of every host that could be read: Core's first, oldest first. `change`: only of that upgrade."""
    core = seen.core.newest()
    return tuple(
        _row(host, one, core)
        for host in (seen.core, *seen.servers)
        for one in host.changes
        if change in ("", one.change)
    )


def unwanted(found: tuple[FolderRow, ...], *, also_needed: bool = False) -> tuple[Unwanted, ...]:
    """The folders to remove, host by host."""
    names = dict.fromkeys(row.name for row in found)
    by_host = {name: [r for r in found if r.name == name and (also_needed or not r.needed)] for name in names}
    return tuple(
        Unwanted(
            name=name,
            changes=tuple(r.change for r in mine),
            image_pins=tuple(image_pin for r in mine for image_pin in r.image_pins),
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
        image_pins=one.image_pins,
    )


def _needed(host: HostFolders, one: SavedChange, core: SavedChange | None) -> str:
    if not one.in_place:
        if host.lock.endswith(f" {one.change}"):
            return "its upgrade holds the lock of the host: it has not ended, or it was terminated"
        return ""
    if one.problem:
        return "it cannot be read, so it may be needed"
    if one == host.newest() or (core is not None and one.change >= core.change):
        return "a rollback of the version in place needs it"
    return ""
