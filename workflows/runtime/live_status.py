"""The live status in Temporal: a Markdown table in its UI (`current details`), and search attributes."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from model.status import FleetProgress, ServerProgress, ServerState
from model.text.outside import markdown

_ROWS = 60
"""Temporal keeps 20,000 bytes."""
_CELL = 160
FLEET = SearchAttributeKey.for_keyword("KomodoFleet")
PHASE = SearchAttributeKey.for_keyword("KomodoPhase")
GATE = SearchAttributeKey.for_keyword("KomodoGate")
WAITING_SINCE = SearchAttributeKey.for_datetime("KomodoWaitingSince")
FAILED = SearchAttributeKey.for_keyword_list("KomodoFailed")
KEYS: tuple[SearchAttributeKey[Any], ...] = (FLEET, PHASE, GATE, WAITING_SINCE, FAILED)
"""Temporal never encrypts them: they hold names and times."""
_MOST_FAILED = 20
_FAILED = (
    ServerState.WAITING,
    ServerState.UNVERIFIED,
    ServerState.LEFT_ON_V1,
    ServerState.ROLLBACK_INCOMPLETE,
)
_SETTLED_WELL = (ServerState.PENDING, ServerState.UPGRADED, ServerState.ALREADY_CURRENT)


def render_markdown(progress: FleetProgress) -> str:
    """Phase, open gate, Core, servers; if there are too many, servers that need attention come first."""
    lines = [f"**{progress.fleet}** to **{progress.target}**: {progress.phase}"]
    if progress.state:
        lines[0] += f", **{progress.state}**"
    if progress.paused:
        lines.append("**paused**")
    if progress.stopping:
        lines.append("**stopping**")
    if progress.waiting:
        lines.append(f"**{progress.waiting.line}**")
    if progress.gate:
        gate = progress.gate
        lines.append(f"**waiting at gate `{gate.id}`**: {gate.question} ({', '.join(gate.verdicts)})")
        lines += [f"- {_short(fact)}" for fact in gate.facts[:20]]
    lines += ["", _count(progress.servers), "", "| server | state | step | attempt |", "|---|---|---|---|"]
    lines += [_row(server) for server in (progress.core, *_select(progress.servers))]
    return markdown("\n".join(lines))


def update_search_attributes(progress: FleetProgress) -> None:
    """Set those that have changed.

    Only in runs that were started with `KomodoFleet`, which a client sets where all of them are registered: an unknown
    attribute would suspend the workflow.
    """
    known = workflow.info().typed_search_attributes
    if known.get(FLEET) is None:
        return
    failed = [server.name for server in progress.servers if server.state in _FAILED][:_MOST_FAILED]
    gate = progress.gate
    wanted: tuple[tuple[SearchAttributeKey[Any], Any], ...] = (
        (PHASE, str(progress.state or progress.phase)),
        (GATE, gate.id if gate else None),
        (WAITING_SINCE, gate.opened_at if gate else None),
        (FAILED, failed or None),
    )
    changed = [
        key.value_unset() if value is None else key.value_set(value) for key, value in wanted if known.get(key) != value
    ]
    if changed:
        workflow.upsert_search_attributes(changed)


def for_child(fleet: str) -> TypedSearchAttributes | None:
    """What a child that has gates of its own is started with."""
    if workflow.info().typed_search_attributes.get(FLEET) is None:
        return None
    return TypedSearchAttributes([SearchAttributePair(FLEET, fleet)])


def _count(servers: tuple[ServerProgress, ...]) -> str:
    counts: dict[str, int] = {}
    for server in servers:
        counts[server.state] = counts.get(server.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _select(servers: tuple[ServerProgress, ...]) -> list[ServerProgress]:
    if len(servers) <= _ROWS:
        return list(servers)
    return sorted(servers, key=lambda s: s.state in _SETTLED_WELL)[:_ROWS]


def _row(server: ServerProgress) -> str:
    cells = (server.name, server.state, server.step or server.detail, str(server.attempt))
    return "| " + " | ".join(_short(cell) for cell in cells) + " |"


def _short(text: str) -> str:
    plain = text.replace("\n", " ").replace("|", "/")
    return plain if len(plain) <= _CELL else plain[: _CELL - 1] + "…"
