"""Contents of the run folders on the hosts: all that a rollback needs when Temporal's history is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from model.facts import Backup, CoreFacts, DumpFacts, ServerFacts
from model.fleet.spec import CoreSpec, FleetSpec, ServerSpec, Timing

CORE = "core"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedChange:
    """One run folder on one host, and whether the upgrade that made it is still in place."""

    change: str
    """UTC stamp of the upgrade, and the folder's name: "20261123T221500Z"."""
    folder: str
    in_place: bool = False
    """The files of this upgrade are still on the host, so a rollback would change something."""
    state: str = ""
    """As text: "in place since …", "restored at …", "nothing was switched"."""
    problem: str = ""
    """Why the folder cannot be used (made by a newer version, damaged). Empty: it can be used."""
    name: str = ""
    """The server's name when it was saved, or "core"."""
    version: str = ""
    """The version that was saved."""
    target: str = ""
    """The version that it was upgraded to."""
    taken_at: datetime | None = None
    bytes: int = 0
    attempt: int = 1
    """The highest attempt that ran on this host."""
    backup: Backup | None = None
    server: ServerFacts | None = None
    """The facts from which a server's upgrade was planned."""
    core: CoreFacts | None = None
    """The facts from which Core's upgrade was planned."""
    dump: DumpFacts | None = None
    """The final dump of the old version. None: the new Core was never started, so the database is unchanged."""
    agent_switched: bool = False
    """The agent in Core's own project was switched too."""
    image_pins: tuple[str, ...] = ()
    """Containers that are created but never started; they hold the images for a rollback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolders:
    """All run folders of one fleet on one host, oldest first."""

    name: str
    """A server's name, or "core"."""
    problem: str = ""
    """Why the host could not be read."""
    changes: tuple[SavedChange, ...] = ()
    running: str = ""
    """Version of the running agent, from its own journal; empty: unknown."""
    lock: str = ""
    """"<fleet> <change>" that holds the host's lock; empty: the lock is free."""

    def newest(self, change: str = "") -> SavedChange | None:
        """The newest folder whose upgrade is in place. `change`: only of that upgrade."""
        found = [c for c in self.changes if c.in_place and change in ("", c.change)]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFolders:
    """Result of the workflow `ScanRunFolders`."""

    core: HostFolders
    servers: tuple[HostFolders, ...] = ()

    def server(self, name: str) -> HostFolders:
        """The folders of this server. Raises KeyError."""
        for host in self.servers:
            if host.name == name:
                return host
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRequest:
    """Input of the workflow `ScanRunFolders`."""

    fleet: FleetSpec
    servers: tuple[str, ...]
    """Servers to scan in addition to Core."""
    brief: bool = False
    """Without facts, which a list does not need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanHost:
    """Input of the activity `scan_run_folders`: one host."""

    fleet: str
    timing: Timing = Timing()
    core: CoreSpec | None = None
    server: ServerSpec | None = None
    brief: bool = False
    change: str = ""
    """Only the folder of this run; empty: all folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted:
    """Run folders of one host to remove, and the containers that hold their images."""

    name: str
    changes: tuple[str, ...]
    image_pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRequest:
    """Input of the workflow `CleanFleet`."""

    fleet: FleetSpec
    change: str
    """Stamp of the cleaning itself, which owns the hosts' locks while it runs."""
    unwanted: tuple[Unwanted, ...]
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanHost:
    """Input of the activity `clean_host`."""

    fleet: str
    timing: Timing = Timing()
    change: str
    unwanted: Unwanted
    core: CoreSpec | None = None
    server: ServerSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """Result of one host."""

    name: str
    removed: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanResult:
    """Result of the workflow `CleanFleet`."""

    hosts: tuple[Cleaned, ...]
