"""The live table in Temporal's UI (`current details`): Markdown, bounded, most interesting servers first."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.progress import FleetProgress, ServerProgress, ServerState

_ROWS = 60
"""Temporal keeps 20,000 bytes."""
_CELL = 160
_DULL = (ServerState.PENDING, ServerState.UPGRADED, ServerState.ALREADY_CURRENT)


def markdown(progress: FleetProgress) -> str:
    """Phase, open gate, Core, servers."""
    lines = [f"**{progress.fleet}** to **{progress.target}**: {progress.phase}"]
    if progress.state:
        lines[0] += f", **{progress.state}**"
    if progress.paused:
        lines.append("**paused**")
    if progress.stopping:
        lines.append("**stopping**")
    if progress.gate:
        gate = progress.gate
        lines.append(f"**waiting at gate `{gate.id}`**: {gate.question} ({', '.join(gate.verdicts)})")
        lines += [f"- {_short(fact)}" for fact in gate.facts[:20]]
    lines += ["", _count(progress.servers), "", "| server | state | step | attempt |", "|---|---|---|---|"]
    lines += [_row(server) for server in (progress.core, *_interesting(progress.servers))]
    return "\n".join(lines)


def _count(servers: tuple[ServerProgress, ...]) -> str:
    counts: dict[str, int] = {}
    for server in servers:
        counts[server.state] = counts.get(server.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _interesting(servers: tuple[ServerProgress, ...]) -> list[ServerProgress]:
    if len(servers) <= _ROWS:
        return list(servers)
    return sorted(servers, key=lambda s: s.state in _DULL)[:_ROWS]


def _row(server: ServerProgress) -> str:
    cells = (server.name, server.state, server.step or server.detail, str(server.attempt))
    return "| " + " | ".join(_short(cell) for cell in cells) + " |"


def _short(text: str) -> str:
    plain = text.replace("\n", " ").replace("|", "/")
    return plain if len(plain) <= _CELL else plain[: _CELL - 1] + "…"
