"""What lies in the run folders on the hosts: all that a way back needs once Temporal's history is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from model.facts import Backup, CoreFacts, DumpFacts, ServerFacts
from model.fleet import CoreSpec, FleetSpec, ServerSpec

CORE = "core"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedChange:
    """One run folder on one host, and what has become of what was saved there."""

    change: str
    """UTC stamp of the upgrade, and the folder's name: "20261123T221500Z"."""
    folder: str
    in_place: bool = False
    """What this upgrade put there is still there: undoing it would change something."""
    state: str = ""
    """In words: "in place since …", "put back at …", "nothing was switched"."""
    problem: str = ""
    """Why the folder cannot be used: made by a newer version, damaged. Empty: it can."""
    name: str = ""
    """The server's name when it was saved, or "core"."""
    version: str = ""
    """That was saved."""
    target: str = ""
    """That it was upgraded to."""
    taken_at: datetime | None = None
    bytes: int = 0
    attempt: int = 1
    """The highest that ran on this host."""
    backup: Backup | None = None
    server: ServerFacts | None = None
    """Of a server's folder: the facts that the upgrade was planned with."""
    core: CoreFacts | None = None
    """The same for Core's."""
    dump: DumpFacts | None = None
    """The final dump of the old version. None: the new Core was never started, so the database is as it was."""
    agent_switched: bool = False
    """The agent in Core's own project was taken along."""
    keepers: tuple[str, ...] = ()
    """Created, never started containers that hold the images of the way back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolders:
    """All run folders of one fleet on one host, oldest first."""

    name: str
    """A server's name, or "core"."""
    problem: str = ""
    """Why the host could not be looked at."""
    changes: tuple[SavedChange, ...] = ()
    running: str = ""
    """Version of the agent that runs there now, as its own journal says; empty: not known."""
    lock: str = ""
    """"<fleet> <change>" of who holds the host; empty: nobody."""

    def newest(self, change: str = "") -> SavedChange | None:
        """The newest one that is in place, or `change` where that is."""
        found = [c for c in self.changes if c.in_place and change in ("", c.change)]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFolders:
    """Result of the workflow `LookBack`."""

    core: HostFolders
    servers: tuple[HostFolders, ...] = ()

    def server(self, name: str) -> HostFolders:
        """Of the server of this name. Raises KeyError."""
        for host in self.servers:
            if host.name == name:
                return host
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBackRequest:
    """Input of the workflow `LookBack`."""

    fleet: FleetSpec
    servers: tuple[str, ...]
    """To look at, beside Core."""
    brief: bool = False
    """Without facts: for a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtFolders:
    """Input of the activity `look_at_folders`: one host."""

    fleet: str
    core: CoreSpec | None = None
    server: ServerSpec | None = None
    brief: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted:
    """Run folders of one host that are to go, with what holds their images."""

    name: str
    changes: tuple[str, ...]
    keepers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRequest:
    """Input of the workflow `CleanFleet`."""

    fleet: FleetSpec
    change: str
    """Of the cleaning itself: owner of the hosts' locks meanwhile."""
    unwanted: tuple[Unwanted, ...]
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanHost:
    """Input of the activity `clean_host`."""

    fleet: str
    change: str
    unwanted: Unwanted
    core: CoreSpec | None = None
    server: ServerSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """One host afterwards."""

    name: str
    removed: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanResult:
    """Result of the workflow `CleanFleet`."""

    hosts: tuple[Cleaned, ...]
