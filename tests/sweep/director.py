"""Decides where a worker dies: it is asked at every moment of every activity call, and keeps the record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEFORE, DURING, AFTER = "before", "during", "after"
POINTS = (BEFORE, DURING, AFTER)
KILL, CUT, SERVER = "kill", "cut", "server"
MOST_TRIES = 4
"""No call is interrupted in its last try (workflows/runtime/steps.py: five), nor while another one is in its last."""
HELD = 0.7
"""Seconds for which a job on a host is held once the next attempt has begun, so that this one attaches to it."""


@dataclass
class Seen:
    """One activity call, with all its attempts."""

    key: str
    activity: str
    operations: list[tuple[str, str]] = field(default_factory=list)
    """What it did on hosts in an undisturbed run: (job | run | push | forward, name of the script)."""
    tries: int = 0
    armed: bool = False
    """It began after `arm`."""

    @property
    def jobs(self) -> list[str]:
        """Names of the scripts that ran detached."""
        return [name for kind, name in self.operations if kind == "job"]

    def points(self, how: str) -> list[str]:
        """Where it can be interrupted: before, during each of its jobs (else of its first read), after."""
        during = [f"{DURING} {name}" for name in dict.fromkeys(self.jobs)]
        if not during and self.operations:
            during = [f"{DURING} {self.operations[0][1] or self.operations[0][0]}"]
        if how == SERVER:
            # Once for each call; where there is a job, while it runs.
            return during[:1] or [AFTER]
        return [BEFORE, *during, AFTER]


@dataclass(frozen=True)
class Wanted:
    """How a cell is interrupted."""

    how: str = KILL
    job: bool = False
    """The call runs a job, so a connection that is cut after it is cut at the job's end."""


@dataclass
class Hit:
    """One interruption."""

    cell: str
    at: float
    late: bool = False
    """The interruption came just after the intended moment."""
    back_after: float = 0.0
    """Seconds until the call had ended well."""


@dataclass
class Director:
    """Listens on a unix socket. `cells` say what is interrupted, and how; without them it only keeps the record."""

    cut: Callable[[str], None]
    """Cut the SSH connections to a host."""
    kill_server: Callable[[], Awaitable[None]]
    cells: dict[str, Wanted] = field(default_factory=dict)
    armed: bool = False
    early: tuple[str, ...] = ()
    """Activities that are swept from the beginning on."""
    calls: dict[str, Seen] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    _keys: dict[tuple[str, str], str] = field(default_factory=dict)
    _in_flight: dict[tuple[str, str], int] = field(default_factory=dict)
    _stopped: dict[str, int] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    async def start(self, socket: Path) -> None:
        """Listen."""
        self._listener = await asyncio.start_unix_server(self._serve, socket)

    async def stop(self) -> None:
        """Release every job that is still held."""
        for key in list(self._stopped):
            self._go_on(key)
        if self._listener:
            self._listener.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if line := await reader.readline():
                answer = await self.asked(json.loads(line))
                writer.write(answer.encode() + b"\n")
                await writer.drain()
        writer.close()

    async def asked(self, reported: dict[str, Any]) -> str:
        """Record one moment of a call, and answer whether its worker dies now."""
        call = self._call(reported)
        moment, place = reported["moment"], (reported["run"], reported["id"])
        if moment == BEFORE:
            call.tries = max(call.tries, reported["try"])
            self._in_flight[place] = reported["try"]
            if call.key in self._stopped:
                self._later(HELD, call.key)
        elif moment == DURING and reported["try"] == 1:
            call.operations.append((reported["kind"], reported["name"]))
        elif moment == AFTER:
            self._ended(call, reported)
            self._in_flight.pop(place, None)
        cell = self._cell(call, reported)
        if cell is None:
            return "on"
        others = [tries for where, tries in self._in_flight.items() if where != place]
        if any(tries >= MOST_TRIES for tries in others) or reported["try"] >= MOST_TRIES:
            return "on"
        return await self._strike(cell, call, reported)

    # --- which call, which cell ---------------------------------------------------------------------------------------

    def _call(self, reported: dict[str, Any]) -> Seen:
        place = (reported["run"], reported["id"])
        if place not in self._keys:
            words = [reported["activity"], reported["target"], reported["label"]]
            name = " ".join(w for w in words if w) + (f" ({reported['round']})" if reported["round"] > 1 else "")
            if reported["workflow"] not in {"UpgradeFleet", "UpgradeServer"}:
                name = f"{name} in {reported['workflow']}"
            number = sum(key == name or key.startswith(f"{name} #") for key in self.calls)
            key = f"{name} #{number + 1}" if number else name
            self._keys[place] = key
            self.calls[key] = Seen(key, reported["activity"], armed=self.armed or reported["activity"] in self.early)
        return self.calls[self._keys[place]]

    def _cell(self, call: Seen, reported: dict[str, Any]) -> str | None:
        """The wanted cell that this moment is; None: none, or it was hit already."""
        moment = reported["moment"]
        point = moment
        if moment == DURING:
            point = f"{DURING} {reported['name'] or reported['kind']}"
        elif moment == "ended":
            point = AFTER
        cell = f"{call.key} | {point}"
        if cell not in self.cells or any(hit.cell == cell for hit in self.hits):
            return None
        wanted = self.cells[cell]
        if wanted.how == CUT and point == AFTER and (moment == AFTER) == wanted.job:
            # The host is done and its answer is on the way: of a job that is its end, else there is only the answer.
            return None
        if wanted.how != CUT and moment == "ended":
            return None
        return cell

    def _ended(self, call: Seen, reported: dict[str, Any]) -> None:
        if reported.get("raised"):
            self.raised.append(f"{call.key}, try {reported['try']}: {reported['raised']}: {reported.get('text', '')}")
            return
        for hit in self.hits:
            if hit.cell.startswith(f"{call.key} | ") and not hit.back_after:
                hit.back_after = time.monotonic() - hit.at

    # --- what is done to them -----------------------------------------------------------------------------------------

    async def _strike(self, cell: str, call: Seen, reported: dict[str, Any]) -> str:
        self.hits.append(Hit(cell, time.monotonic(), bool(reported.get("late"))))
        job = reported.get("place", "") if reported["moment"] == DURING and not reported.get("late") else ""
        if job:
            self._hold(call.key, Path(job))
        how = self.cells[cell].how
        if how == KILL:
            self._in_flight.clear()
            self._later(10.0, call.key)
            return "die"
        self._later(HELD, call.key)
        if how == CUT:
            self.cut(reported["target"])
        else:
            await self.kill_server()
        return "on"

    def _hold(self, key: str, job: Path) -> None:
        """Stop the job's processes for a while: it is in the middle of its work when the next attempt comes."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            group = int((job / "pid").read_text().split()[4])
            if group > 1 and not any(job.glob("rc.*")):
                os.killpg(group, signal.SIGSTOP)
                self._stopped[key] = group

    def _go_on(self, key: str) -> None:
        if group := self._stopped.pop(key, 0):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGCONT)

    def _later(self, seconds: float, key: str) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            if key in self._stopped:
                self._go_on(key)

        task = asyncio.ensure_future(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
