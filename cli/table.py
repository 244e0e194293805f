"""Progress as a table (on a terminal) and as lines (everywhere else)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.target import Target
from model.plain import span
from model.progress import FleetProgress, FleetResult, ServerProgress, ServerState

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_COLOURS = {
    ServerState.UPGRADED: "green",
    ServerState.ALREADY_CURRENT: "green",
    ServerState.PREPARING: "cyan",
    ServerState.UPGRADING: "cyan",
    ServerState.ROLLING_BACK: "cyan",
    ServerState.UNPROVEN: "yellow",
    ServerState.PARKED: "yellow",
    ServerState.OFFLINE: "yellow",
    ServerState.LEFT_ON_V1: "red",
    ServerState.ROLLBACK_INCOMPLETE: "red",
}


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
    """Whom it waits for, and since when; empty when no gate is open."""
    gate = progress.gate
    if gate is None:
        return ""
    takes = ", ".join(verdict.value for verdict in gate.verdicts)
    return f"waits for a person at gate {gate.id} since {span(now - gate.opened_at)}: {gate.question} ({takes})"


def lines(progress: FleetProgress, now: datetime | None = None) -> Iterator[str]:
    """For `status` and for pipes."""
    now = now or datetime.now(UTC)
    yield headline(progress)
    waits = gate_line(progress, now)
    if waits:
        yield waits
    width = max([len(s.name) for s in progress.servers] + [4])
    for server in (progress.core, *progress.servers):
        yield f"  {server.name:<{width}}  {server.state.value:<16} {_doing(server, now)}".rstrip()
    yield from (f"  warning: {text}" for text in progress.warnings)


def changes(before: FleetProgress | None, after: FleetProgress) -> Iterator[str]:
    """One line for each thing that is new: what a log wants instead of a table."""
    if before is None or before.phase is not after.phase:
        yield headline(after)
    if before is not None and before.paused != after.paused:
        yield "paused" if after.paused else "resumed"
    known = {s.name: s for s in (before.core, *before.servers)} if before else {}
    for server in (after.core, *after.servers):
        old = known.get(server.name, ServerProgress(name=server.name))
        if (old.state, old.step) != (server.state, server.step) and (server.step or old.state is not server.state):
            detail = f" — {server.detail.splitlines()[0]}" if server.detail and old.detail != server.detail else ""
            yield f"  {server.name}: {server.state.value}{f', {server.step}' if server.step else ''}{detail}"


def render(progress: FleetProgress, footer: str) -> Group:
    """The live table."""
    from rich.console import Group
    from rich.text import Text

    now = datetime.now(UTC)
    parts: list[Table | Text] = [Text(headline(progress), style="bold")]
    waits = gate_line(progress, now)
    if waits:
        parts.append(Text(waits, style="yellow"))
    parts.append(_table(progress, now))
    parts += [Text(f"warning: {text}", style="yellow") for text in progress.warnings]
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
        state = Text(server.state.value, style=_COLOURS.get(server.state, ""))
        table.add_row(Text(server.name), state, Text(doing), since, attempt)
    return table


def _doing(server: ServerProgress, now: datetime) -> str:
    if server.step:
        since = f" for {span(now - server.since)}" if server.since else ""
        attempt = f", attempt {server.attempt}" if server.attempt > 1 else ""
        return f"{server.step}{since}{attempt}"
    return server.detail.splitlines()[0] if server.detail else ""


def result_lines(result: FleetResult, target: Target) -> Iterator[str]:
    """The end, in a screen."""
    took = span(result.ended_at - result.started_at)
    yield f"{result.fleet} → {result.target}: {result.state.value} after {took}"
    if result.detail:
        yield result.detail
    rows = [("core", result.core_state.value, result.core_version, result.core_detail)]
    outcomes = result.servers + ((result.core_agent,) if result.core_agent else ())
    rows += [(o.name, o.told, o.version_after or o.version_before, o.detail) for o in outcomes]
    width = max(len(name) for name, *_ in rows)
    for name, state, version, detail in rows:
        first = detail.splitlines()[0] if detail else ""
        yield f"  {name:<{width}}  {state:<20} {version:<8} {first}".rstrip()
    untold = [f for f in result.refusals if f.text not in result.detail]
    yield from (f"  refused: {f.subject}: {f.text}{f' → {f.cure}' if f.cure else ''}" for f in untold)
    yield f"the whole report: komodo-upgrade report {target.argument}".rstrip()
