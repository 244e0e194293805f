"""Follow a running upgrade: a live table on a terminal, lines elsewhere; ask at gates, or leave there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cli import gates, table
from cli.output import careful, data, is_live, say, wants_json
from cli.target import Target
from cli.upgrade import Upgrade
from model.decisions import Gate, Verdict
from model.errors import EndedByTemporal, NoWorker, TemporalUnavailable
from model.progress import FleetProgress, FleetResult

LOOK_EVERY = 1.0
LEFT_AT_GATE = 6
OUT_OF_TIME = 124
Decide = Callable[[Gate], Awaitable[Verdict | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How gates are met while following."""

    ask: bool = False
    """Ask on the terminal."""
    leave_at_gate: bool = True
    """Where nobody is asked: end with exit code 6; else go on following until somebody else answers."""
    decide: Decide | None = None
    """Answers by itself (the demo only)."""
    timeout: timedelta | None = None
    known_gate: str = ""
    """Not met as long as it stays the open one: the caller has just dealt with it."""
    every: float = 0.0
    """Seconds between two looks; 0: LOOK_EVERY."""
    summary: bool = True
    footer: str = ""
    """Below the live table, in place of what Ctrl-C does to a real upgrade."""


class Follower:
    """Follows one upgrade to its end, to a gate, or to the end of the time."""

    def __init__(self, upgrade: Upgrade, target: Target, manner: Manner) -> None:
        self.upgrade = upgrade
        self.target = target
        self.manner = manner
        self.result: FleetResult | None = None
        self._last: FleetProgress | None = None
        self._shown_gate = ""
        self._known_gate = manner.known_gate
        self._silent_since = 0.0
        self._live: Any = None

    async def follow(self) -> int:
        """The exit code."""
        end = asyncio.create_task(self.upgrade.result())
        deadline = time.monotonic() + self.manner.timeout.total_seconds() if self.manner.timeout else None
        try:
            while not end.done():
                left = await self._look()
                if left is not None:
                    return left
                if deadline is not None and time.monotonic() > deadline:
                    say("the time given by --timeout is over; the upgrade goes on")
                    return OUT_OF_TIME
                await asyncio.wait({end}, timeout=self.manner.every or LOOK_EVERY)
            self.result = await end
        except EndedByTemporal:
            self._stop_live()
            return await self._after_temporals_end()
        finally:
            self._stop_live()
            if not end.done():
                end.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await end
        if self.manner.summary:
            data(self.result, "\n".join(table.result_lines(self.result, self.target)))
        return self.result.state.exit_code

    async def _after_temporals_end(self) -> int:
        from cli import aftermath

        run = await self.upgrade.describe()
        if run.is_running or run.status == "completed":
            return await self.follow()  # the rollback that it had begun
        return await aftermath.show(self.upgrade, run, self.target)

    async def _look(self) -> int | None:
        try:
            progress = await self.upgrade.progress(steps=True)
        except (NoWorker, TemporalUnavailable) as error:
            if not self._silent_since:
                self._silent_since = time.monotonic()
            elif time.monotonic() - self._silent_since > 5:
                say(careful(f"{error.what}; still looking"))
                self._silent_since = time.monotonic() + 25
            return None
        self._silent_since = 0.0
        self._show(progress)
        self._last = progress
        gate = progress.gate
        if gate is None or gate.id != self._known_gate:
            self._known_gate = ""
        if gate is None or gate.id in (self._shown_gate, self._known_gate):
            return None
        return await self._meet(gate)

    async def _meet(self, gate: Gate) -> int | None:
        self._stop_live()
        if self.manner.decide is not None:
            verdict = await self.manner.decide(gate)
            if verdict is not None:
                await gates.send(self.upgrade, gate, verdict)
            return None
        if self.manner.ask:
            answer = gates.ask(gate, self.target)
            if answer is None:
                say(f"the gate stays open; come back with: komodo-upgrade watch {self.target.argument}".rstrip())
                return LEFT_AT_GATE
            await gates.send(self.upgrade, gate, answer[0])
            return None
        self._shown_gate = gate.id
        gates.show(gate, self.target)
        if self.manner.leave_at_gate:
            if wants_json():
                data(self._last, "")
            return LEFT_AT_GATE
        return None

    def _show(self, progress: FleetProgress) -> None:
        if is_live():
            if self._live is None:
                from rich.live import Live

                self._live = Live(auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(table.render(progress, self._footer()), refresh=True)
            return
        for line in table.changes(self._last, progress):
            say(line)

    def _footer(self) -> str:
        again = f"komodo-upgrade watch {self.target.argument}".rstrip()
        return self.manner.footer or f"Ctrl-C leaves the watching; the upgrade goes on. Back: {again}"

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
