"""Doubles that keep the state of the fleet, and record each step that must not run in that state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from model.facts import DumpLabel
from model.steps import CoreStep, DumpDatabase, DumpStep
from tests.workflows.doubles import Doubles, _target

V1, V2, HALF, DOWN = "v1", "v2", "half", "down"
READS = frozenset(
    {
        "survey_core", "survey_server", "recheck_core", "recheck_server", "check_rollback", "check_server_rollback",
        "notify", "verify_server", "read_core_key", "post_checks", "fingerprint_database", "check_auto_rollback",
        "save_report", "release_host", "watch_fleet", "save_watch", "scan_run_folders",
    }
)  # fmt: skip
_MEANS = {
    "switch_server": ("server", V2),
    "restore_server": ("server", V1),
    "stop_core": ("core", DOWN),
    "write_core_files": ("files", V2),
    "restore_core_files": ("files", V1),
    "restore_database": ("base", V1),
    "downgrade_database": ("base", V1),
}
"""The state that each step changes, and its new value; after a failed step the value is HALF."""


class World(Doubles):
    """One fleet that begins on v1."""

    def __init__(self, *servers: str) -> None:
        super().__init__()
        self.server = dict.fromkeys(servers, V1)
        self.agent = self.files = self.base = self.core_runs = V1
        self.wrong: list[str] = []
        self.switched: list[tuple[str, int, datetime]] = []
        """Server, attempt, and when: one line for each attempt."""
        self.touched: list[str] = []
        self.dumped: set[str] = set()
        self.number = 0
        self.meanwhile: dict[int, Callable[[], Awaitable[None]]] = {}
        """Messages that operators send while the n-th step runs."""

    async def _do(self, name: str, given: Any, usual: Callable[[Any], Any]) -> Any:
        target, attempt = _target(given)
        self._may(name, target, attempt, given)
        self.number += 1
        if act := self.meanwhile.pop(self.number, None):
            await act()
        try:
            answer = await super()._do(name, given, usual)
        except (Exception, asyncio.CancelledError):
            self._failed(name, target)
            raise
        self._done(name, target, given)
        return answer

    def runs(self, name: str) -> str:
        """Of a server, or of the agent in Core's project."""
        return self.server.get(name, self.agent)

    # --- preconditions of steps ---------------------------------------------------------------------------------------

    def _may(self, name: str, target: str, attempt: int, given: Any) -> None:
        if name not in READS and target not in self.touched:
            self.touched.append(target)
        if name == "switch_server":
            if (target, attempt) not in [(n, a) for n, a, _ in self.switched]:
                self.switched.append((target, attempt, datetime.now(UTC)))
            self._require(self.core_runs == V2, f"{target} is switched while Core is {self.core_runs}")
        if name == "back_up_server":
            self._require(self.runs(target) == V1, f"a backup of {target} is made where {self.runs(target)} lies")
        if name == "back_up_core":
            self._require(self.files == V1, f"a backup of Core is made where its files are {self.files}")
        if isinstance(given, CoreStep):
            self._core_may(name, given)

    def _core_may(self, name: str, step: CoreStep) -> None:
        if isinstance(step, DumpDatabase) and step.label is not DumpLabel.BEFORE:
            self._require(self.core_runs in (DOWN, HALF), f"dump {step.label} while Core {self.core_runs} runs")
        if isinstance(step, DumpDatabase) and step.label is DumpLabel.FINAL:
            self._require(self.base == V1, "a final dump of a database that v2 has touched")
        if name == "write_core_files":
            self._require("final" in self.dumped, "Core's files are written without a final dump")
        if name == "start_core":
            self._require(self.files == V2, f"v2 is started with files {self.files}")
        if name in ("restore_database", "downgrade_database"):
            self._require("pre_rollback" in self.dumped, "a database without a dump is replaced")
            self._require(self.core_runs == DOWN, f"a database is restored under a Core that is {self.core_runs}")
        if isinstance(step, DumpStep) and name == "restore_database":
            self._require(step.dump.label is DumpLabel.FINAL, f"{step.dump.label} is restored as v1's database")
        if name == "start_old_core":
            self._require((self.files, self.base) == (V1, V1), f"v1 starts: files {self.files}, data {self.base}")

    def _require(self, right: bool, words: str) -> None:
        if not right:
            self.wrong.append(words)

    # --- effects of steps ---------------------------------------------------------------------------------------------

    def _failed(self, name: str, target: str) -> None:
        what, _ = _MEANS.get(name, ("", ""))
        if what:
            self._set(what, target, HALF)
        if name == "start_core":
            self.base, self.core_runs = V2, HALF
        if name == "start_old_core":
            self.core_runs = HALF
        if name == "return_to_new_core":
            self.files = self.base = self.core_runs = HALF

    def _done(self, name: str, target: str, given: Any) -> None:
        what, becomes = _MEANS.get(name, ("", ""))
        if what:
            self._set(what, target, becomes)
        if name == "dump_database":
            self.dumped.add(given.label)
        if name == "start_core":
            self.base = self.core_runs = V2
        if name == "start_old_core":
            self.core_runs = V1
        if name == "return_to_new_core":
            self.files = self.base = self.core_runs = V2

    def _set(self, what: str, target: str, becomes: str) -> None:
        if what == "server" and target in self.server:
            self.server[target] = becomes
        elif what == "server":
            self.agent = becomes
        else:
            setattr(self, {"core": "core_runs"}.get(what, what), becomes)
