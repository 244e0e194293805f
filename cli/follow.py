"""Follow a run: a live table on a terminal, lines elsewhere; ask at gates or end there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from cli import gates, table
from cli.output import careful, data, is_live, say, wants_json
from cli.target import Target
from model.errors import EndedByTemporal, NoWorker, TemporalUnavailable, UpgradeAlreadyRunning
from model.fleet.spec import slug
from model.gates import Gate, GateKind, Verdict
from model.status import FleetProgress, FleetResult, FleetState, ServerState
from service.answers import Answer
from service.client import Upgrade
from service.history import result_of
from service.operation import pending
from service.upgrades import Run, servers_at_work

POLL_SECONDS = 1.0
LONGEST_UNDO = timedelta(minutes=10)
WAITING_AT_GATE = 6
IN_PROGRESS = 9
TIMED_OUT = 124
Decide = Callable[[Gate], Awaitable[Verdict | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What to do at gates, and when to end."""

    ask: bool = False
    """Ask on the terminal."""
    end_at_gate: bool = True
    """If not asked: end with exit code 6, rather than wait for an answer from another terminal."""
    decide: Decide | None = None
    """Answers the gates (the demo only); None: somebody else answers this one."""
    confirmed: GateKind | None = None
    """The fleet's name was given with --confirm: the first gate of this kind is approved."""
    timeout: timedelta | None = None
    known_gate: str = ""
    """A gate that the caller has just answered: it is not shown again while it stays open."""
    every: float = 0.0
    """Seconds between two queries; 0: POLL_SECONDS."""
    summary: bool = True
    footer: str = ""
    """The line below the live table; empty: what Ctrl-C does, and how to return."""


class Follower:
    """Follows one run until it ends, waits at a gate, or the timeout is over."""

    def __init__(self, upgrade: Upgrade, target: Target, mode: Mode) -> None:
        self.upgrade = upgrade
        self.target = target
        self.mode = mode
        self.result: FleetResult | None = None
        self._last: FleetProgress | None = None
        self._confirmed = mode.confirmed
        self._shown_gate = ""
        self._known_gate = mode.known_gate
        self._unanswered_since = 0.0
        self._live: Any = None

    async def follow(self) -> int:
        """The exit code."""
        end = asyncio.create_task(self.upgrade.result())
        deadline = time.monotonic() + self.mode.timeout.total_seconds() if self.mode.timeout else None
        try:
            while not end.done():
                code = await self._poll()
                if code is not None:
                    return code
                if deadline is not None and time.monotonic() > deadline:
                    say("the --timeout is over; the upgrade continues")
                    return TIMED_OUT
                await asyncio.wait({end}, timeout=self.mode.every or POLL_SECONDS)
            self.result = await end
        except EndedByTemporal:
            self._stop_live()
            return await self._ended_by_temporal()
        finally:
            self._stop_live()
            if not end.done():
                end.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await end
        if self.mode.summary:
            data(self.result, "\n".join(table.result_lines(self.result, self.target)))
        return self.result.state.exit_code

    async def _ended_by_temporal(self) -> int:
        run = await self.upgrade.describe()
        if run.is_running or run.status == "completed":
            return await self.follow()  # the rollback that it had started
        return await show_ended(self.upgrade, run, self.target)

    async def _poll(self) -> int | None:
        try:
            progress = await self.upgrade.progress(steps=True)
        except (NoWorker, TemporalUnavailable) as error:
            if not self._unanswered_since:
                self._unanswered_since = time.monotonic()
            elif time.monotonic() - self._unanswered_since > 5:
                say(careful(f"{error.what}; still trying"))
                for line in pending.lines(await pending.pending(self.upgrade.client, self.upgrade.handle.id)):
                    say(line)
                self._unanswered_since = time.monotonic() + 25
            return None
        self._unanswered_since = 0.0
        self._show(progress)
        self._last = progress
        gate = progress.gate
        if gate is None or gate.id != self._known_gate:
            self._known_gate = ""
        if gate is None or gate.id in (self._shown_gate, self._known_gate):
            return None
        return await self._at_gate(gate)

    async def _at_gate(self, gate: Gate) -> int | None:
        self._stop_live()
        if self.mode.decide is not None:
            verdict = await self.mode.decide(gate)
            if verdict is None:
                self._shown_gate = gate.id
            else:
                await gates.send(self.upgrade, gate, Answer(verdict=verdict))
            return None
        if self._confirmed is gate.kind and gate.confirm:
            self._confirmed = None  # once: a gate that opens again shows another plan
            gates.show(gate, self.target, commands=False)
            await gates.send(self.upgrade, gate, Answer(verdict=Verdict.APPROVE, confirm=gate.confirm))
            return None
        if self.mode.ask:
            answer = gates.ask(gate, self.target)
            if answer is None:
                say(f"the gate stays open; to return: komodo-upgrade watch {self.target.argument}".rstrip())
                return WAITING_AT_GATE
            await gates.send(self.upgrade, gate, answer)
            return None
        self._shown_gate = gate.id
        gates.show(gate, self.target)
        if self.mode.end_at_gate:
            if wants_json():
                data(self._last, "")
            return WAITING_AT_GATE
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
        return self.mode.footer or f"Ctrl-C ends this view, not the upgrade. To return: {again}"

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


# --- runs that Temporal ended -----------------------------------------------------------------------------------------


async def wait_for_servers(client: Client, fleet: str) -> None:
    """Wait until no server of a terminated upgrade is still undoing its switch.

    When an upgrade is terminated, its servers undo their switch on their own. A new run must not meet them half way.
    Raises UpgradeAlreadyRunning after LONGEST_UNDO.
    """
    shown: tuple[str, ...] = ()
    end = time.monotonic() + LONGEST_UNDO.total_seconds()
    while names := tuple(sorted([server async for server in servers_at_work(client, fleet)])):
        if names != shown:
            say(f"{', '.join(names)}: still rolling back after its upgrade was terminated; waiting …")
            shown = names
        if time.monotonic() > end:
            raise UpgradeAlreadyRunning(
                f"{', '.join(names)}: the server's workflow of a terminated upgrade does not end",
                residue="nothing was started",
                hint=f"is its host down? To abandon it: temporal workflow terminate -w komodo-upgrade/{fleet}/…",
            )
        await asyncio.sleep(POLL_SECONDS)


def _corrected(result: FleetResult | None, run: Run) -> FleetResult | None:
    """The last state of a run that Temporal ended, with how and when it ended."""
    if result is None or run.status == "completed":
        return result
    if run.status == "canceled" and result.state is not FleetState.INCOMPLETE:
        return replace(result, detail=f"cancelled through Temporal; {result.detail}")
    how = {"terminated": "terminated", "canceled": "cancelled"}.get(run.status, run.status.replace("_", " "))
    text = f"{how} through Temporal: no step was started after that"
    return replace(result, state=FleetState.INCOMPLETE, detail=text, ended_at=run.ended_at or result.ended_at)


def _ended_lines(result: FleetResult | None, run: Run, target: Target, at_work: tuple[str, ...]) -> Iterator[str]:
    argument = target.argument or target.name
    if result is None:
        yield f"the upgrade of {target.name} was {run.status} through Temporal; no worker answers what its state was"
    else:
        yield from list(table.result_lines(result, target))[:-1]
        for name in [s.name for s in result.servers if s.state is ServerState.UPGRADING]:
            now = "is rolling back" if slug(name) in at_work else "has rolled back or completed"
            yield f"{name} was being upgraded; it {now}"
    yield f"see what is in place on the hosts: komodo-upgrade rollback {argument} --plan"
    yield f"continue from there: komodo-upgrade start {target.argument}".rstrip()
    yield f"roll everything back: komodo-upgrade rollback {argument}"


async def show_ended(upgrade: Upgrade, run: Run, target: Target) -> int:
    """Show the state of a run that Temporal ended, and what to type next. Returns the exit code."""
    at_work = tuple([name async for name in servers_at_work(upgrade.client, upgrade.fleet)])
    result = _corrected(await result_of(upgrade.client, run), run)
    data(
        {"status": run.status, "result": result, "at_work": at_work},
        "\n".join(_ended_lines(result, run, target, at_work)),
    )
    return result.state.exit_code if result else FleetState.INCOMPLETE.exit_code
