"""Faults by name: what can go wrong on a simulated fleet, on demand.

| fault | host | options | what it does |
|---|---|---|---|
| unreachable | any | | the SSH port refuses, open connections are cut |
| hang | any | | new connections are accepted and never answered, commands never end |
| host-key-changed | any | | the host shows another key from now on |
| connection-drop | any | at=1, when="start"/"end" | the connection is cut at the n-th command; what it began lives on |
| connection-drop | any | on="systemctl stop" | the same, when a stand-in's command begins like this |
| clock-jump | any | seconds=3600 | `date` is that far off from now on (journal and docker are not) |
| slow | any | seconds=1, command="" | every stand-in (or the named one) takes that much longer |
| sudo-wrong | any | | the sudo password is not any more what it was |
| disk-full | any | path="", at=1 | from the n-th write below `path` on all fail, and leave a part; `df` says 0 |
| read-only | any | path="", at=1 | from the n-th change below `path` on nothing can be changed there any more |
| crash-loop | server, core | version="2", after=0.2 | the agent of that major version exits 1 after so many seconds |
| start-fails | server | version="2" | `systemctl start` of the agent of that major version fails, exit 1 |
| agent-ignores-config | server | version="2" | the agent starts as if it had no config file |
| old-libc | server | | agent binaries of v2 do not run there |
| wrong-key | core | | Core's key pair is replaced behind the pinned agents' backs at its next start |
| wrong-key | server | stale=2 | Core's key is refused as if another were pinned, behind a stale Ok of so many seconds |
| agent-silent | server | | the agent stays logged in, Core calls it Ok, and it answers no request |
| stats-frozen | server | | the agent's statistics stay as they are |
| core-never-up | core | version="2" | Core of that major version never answers |
| core-v2-broken | core | | v2 answers /version; every server stays NotOk with `err: null`, for ever |
| no-mongodump | core | | the database's image has no mongodump |
| dump-empty | core | | mongodump of a wrong database: exit 0, nothing in it |
| dump-truncated | core | | mongodump exits 0, half of the archive is missing |
| dump-loses | core | | mongodump exits 0 and counts all, one document is not in the archive |
| dump-of-another | core | database="admin" | mongodump dumps another database than it was asked for |
| dump-meanwhile | core | what="update"/"insert"/"delete" | somebody writes right after mongodump has read |
| km-fails | core | | km does not reach the database |
| dump-hangs | core | | mongodump never ends |
| dump-fails | core | | mongodump cannot connect, exit 1 |
| restore-fails | core | | mongorestore stops half way, exit 1 |
| download-403 | any | | the release site says 403 |
| download-wrong-file | any | | the release site gives a page instead of the binary |
| download-hangs | any | seconds=60 | the download brings nothing: it ends with `--speed-time`, else never |
| pull-fails | core | | the registry does not answer |
| up-keeps-old | core | | `docker compose up` ends well and starts the old container: nothing was pulled |
| up-does-nothing | core | | `docker compose up` fails without having done anything |

Options of every fault: times=N (it heals itself after N strikes). Of crash-loop on a server: until="rolled-back" (it
heals itself once another version was started there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KNOWN = frozenset(
    line.split("|")[1].strip()
    for line in (__doc__ or "").splitlines()
    if line.startswith("| ") and not line.startswith(("| fault", "|---"))
)


@dataclass(slots=True)
class Fault:
    """One fault that is on."""

    name: str
    host: str
    options: dict[str, Any] = field(default_factory=dict)
    struck: int = 0

    def covers(self, version: str) -> bool:
        """Whether a program of this version is hit: the option `version` names a major version, "" any."""
        wanted = str(self.options.get("version", "2"))
        return not wanted or version.split(".")[0] == wanted


class Faults:
    """Those that are on, by name and host. Host "" means every host."""

    def __init__(self) -> None:
        self._on: list[Fault] = []

    def set(self, name: str, host: str, options: dict[str, Any]) -> Fault:
        """Switch one on. Raises ValueError for a name that is not in the table."""
        if name not in KNOWN:
            raise ValueError(f"no fault named {name!r}; there are: {', '.join(sorted(KNOWN))}")
        fault = Fault(name, host, options)
        self._on.append(fault)
        return fault

    def heal(self, name: str = "", host: str = "") -> list[Fault]:
        """Switch off what matches; both empty: everything."""
        gone = [f for f in self._on if name in ("", f.name) and host in ("", f.host)]
        self._on = [f for f in self._on if f not in gone]
        return gone

    def on(self, name: str, host: str) -> Fault | None:
        """The fault, if it is on for this host, without counting a strike."""
        for fault in self._on:
            if fault.name == name and fault.host in ("", host):
                return fault
        return None

    def any(self, host: str) -> bool:
        """Whether any fault is on for this host."""
        return any(fault.host in ("", host) for fault in self._on)

    def strike(self, name: str, host: str) -> Fault | None:
        """The fault, if it is on for this host; counts, and heals one with `times`."""
        fault = self.on(name, host)
        if fault is None:
            return None
        fault.struck += 1
        times = int(fault.options.get("times", 0))
        if times and fault.struck >= times:
            self._on.remove(fault)
        return fault
