"""The state of a run as a table (on a terminal) and as lines (elsewhere)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cli.target import Target
from model.serialization import span
from model.status import FleetProgress, FleetResult, ServerOutcome, ServerProgress, ServerState
from model.text.outside import single_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_COLOURS = {
    ServerState.UPGRADED: "green",
    ServerState.ALREADY_CURRENT: "green",
    ServerState.PREPARING: "cyan",
    ServerState.UPGRADING: "cyan",
    ServerState.ROLLING_BACK: "cyan",
    ServerState.UNVERIFIED: "yellow",
    ServerState.WAITING: "yellow",
    ServerState.OFFLINE: "yellow",
    ServerState.LEFT_ON_V1: "red",
    ServerState.ROLLBACK_INCOMPLETE: "red",
}

_URGENCY = {"red": 0, "yellow": 1, "cyan": 2}
ONE_SCREEN = 20
"""Servers with a line each: more are shown by state."""
_NAMES = 80


def headline(progress: FleetProgress) -> str:
    """`prod → 2.3.2: rolling out, 3 of 5 servers done`."""
    done = sum(s.state in (ServerState.UPGRADED, ServerState.ALREADY_CURRENT) for s in progress.servers)
    text = (
        f"{progress.fleet} → {progress.target}: {progress.phase.value}, {done} of {len(progress.servers)} servers done"
    )
    if progress.paused:
        text += ", paused"
    if progress.stopping:
        text += ", stopping"
    return text


def gate_line(progress: FleetProgress, now: datetime) -> str:
    """The open gate, and since when it is open; empty if there is none."""
    gate = progress.gate
    if gate is None:
        return ""
    takes = ", ".join(verdict.value for verdict in gate.verdicts)
    return f"waiting at gate {gate.id} for {span(now - gate.opened_at)}: {gate.question} ({takes})"


def waiting_line(progress: FleetProgress, now: datetime) -> str:
    """When it continues, if it waits for a time; empty if it does not."""
    waiting = progress.waiting
    return f"{waiting.line}, in {span(max(waiting.until - now, timedelta()))}" if waiting else ""


def lines(progress: FleetProgress, now: datetime | None = None) -> Iterator[str]:
    """For `status`."""
    now = now or datetime.now(UTC)
    yield headline(progress)
    yield from filter(None, (waiting_line(progress, now), gate_line(progress, now)))
    width = max([len(s.name) for s in progress.servers] + [4])
    shown, grouped = _on_one_screen(progress.servers)
    for server in (progress.core, *shown):
        yield f"  {server.name:<{width}}  {server.reported:<16} {_doing(server, now)}".rstrip()
    yield from (f"  {len(names)} {state}: {_some_names(names)}" for state, names in grouped.items())
    yield from (f"  warning: {text}" for text in progress.warnings)


def _on_one_screen(
    servers: tuple[ServerProgress, ...],
) -> tuple[list[ServerProgress], dict[str, list[str]]]:
    """Servers with a line each, those that need a person first; in a large fleet the others by state."""
    if len(servers) <= ONE_SCREEN:
        return list(servers), {}
    order = sorted(servers, key=lambda s: _URGENCY.get(_COLOURS.get(s.state, ""), len(_URGENCY)))
    busy = [s for s in order if _COLOURS.get(s.state, "") in _URGENCY]
    grouped: dict[str, list[str]] = {}
    for server in [*busy[ONE_SCREEN:], *(s for s in order if s not in busy)]:
        grouped.setdefault(server.reported, []).append(server.name)
    return busy[:ONE_SCREEN], grouped


def _some_names(names: list[str]) -> str:
    """As many as fit on a line."""
    text = ", ".join(names)
    if len(text) <= _NAMES:
        return text
    kept = text[:_NAMES].rpartition(", ")[0]
    return f"{kept} and {len(names) - kept.count(', ') - 1} more"


def changes(before: FleetProgress | None, after: FleetProgress) -> Iterator[str]:
    """One line per change, for a log."""
    if before is None or before.phase is not after.phase:
        yield headline(after)
    if before is not None and before.paused != after.paused:
        yield "paused" if after.paused else "resumed"
    if after.waiting and (before is None or before.waiting != after.waiting):
        yield after.waiting.line
    known = {s.name: s for s in (before.core, *before.servers)} if before else {}
    for server in (after.core, *after.servers):
        old = known.get(server.name, ServerProgress(name=server.name))
        if (old.state, old.step) != (server.state, server.step) and (server.step or old.state is not server.state):
            detail = f" — {server.detail.splitlines()[0]}" if server.detail and old.detail != server.detail else ""
            yield f"  {server.name}: {server.reported}{f', {server.step}' if server.step else ''}{detail}"


def render(progress: FleetProgress, footer: str) -> Group:
    """The live table."""
    from rich.console import Group
    from rich.text import Text

    now = datetime.now(UTC)
    parts: list[Table | Text] = [Text(single_line(headline(progress)), style="bold")]
    waits = filter(None, (waiting_line(progress, now), gate_line(progress, now)))
    parts += [Text(single_line(line), style="yellow") for line in waits]
    parts.append(_table(progress, now))
    parts += [Text(single_line(f"warning: {text}"), style="yellow") for text in progress.warnings]
    parts.append(Text(footer, style="dim"))
    return Group(*parts)


def _table(progress: FleetProgress, now: datetime) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("server", "state", "step", "for", "attempt"):
        table.add_column(title, no_wrap=title in ("server", "state"))
    for server in (progress.core, *progress.servers):
        since = span(now - server.since) if server.since and server.step else ""
        attempt = str(server.attempt) if server.attempt > 1 else ""
        doing = server.step or (server.detail.splitlines()[0] if server.detail else "")
        state = Text(server.reported, style=_COLOURS.get(server.state, ""))
        table.add_row(Text(single_line(server.name)), state, Text(single_line(doing)), since, attempt)
    return table


def _doing(server: ServerProgress, now: datetime) -> str:
    if server.step:
        since = f" for {span(now - server.since)}" if server.since else ""
        attempt = f", attempt {server.attempt}" if server.attempt > 1 else ""
        return f"{server.step}{since}{attempt}"
    return server.detail.splitlines()[0] if server.detail else ""


def _cut_off(outcome: ServerOutcome) -> str:
    """For how long the agent was down, and the server unmanaged."""
    down = outcome.switched.port_downtime if outcome.switched else None
    unmanaged = outcome.proof.unmanaged if outcome.proof else None
    parts = [f"down for {span(down)}"] if down else []
    parts += [f"unmanaged for {span(unmanaged)}"] if unmanaged else []
    return ", ".join(parts)


def result_lines(result: FleetResult, target: Target) -> Iterator[str]:
    """The result on one screen."""
    took = span(result.ended_at - result.started_at)
    yield f"{result.fleet} → {result.target}: {result.state.value} after {took}"
    if result.detail:
        yield result.detail
    core = f"down for {span(result.core_downtime)}" if result.core_downtime else ""
    rows = [("core", result.core_state.value, result.core_version, core, result.core_detail)]
    rows += [(o.name, o.reported, o.version_after or o.version_before, _cut_off(o), o.detail) for o in result.servers]
    width = max(len(name) for name, *_ in rows)
    wide = max(len(times) for *_, times, _ in rows)
    for name, state, version, times, detail in rows:
        first = detail.splitlines()[0] if detail else ""
        yield f"  {name:<{width}}  {state:<20} {version:<8} {times:<{wide}} {first}".rstrip()
    unreported = [f for f in result.refusals if f.text not in result.detail]
    yield from (f"  refused: {f.subject}: {f.text}{f' → {f.hint}' if f.hint else ''}" for f in unreported)
    yield f"full report: komodo-upgrade report {target.argument}".rstrip()
