"""What the pages show, made from the same data as the command line shows (model/status.py, model/plan.py)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from model.facts import PlannedEdit
from model.gates import WARNINGS, Gate, GateKind, Verdict
from model.plan import Plan
from model.status import FleetProgress, FleetState, Phase, ServerProgress, ServerState

_KINDS = {
    ServerState.UPGRADED: "good",
    ServerState.ALREADY_CURRENT: "good",
    ServerState.ROLLED_BACK: "good",
    ServerState.PREPARING: "busy",
    ServerState.UPGRADING: "busy",
    ServerState.ROLLING_BACK: "busy",
    ServerState.UNVERIFIED: "warn",
    ServerState.WAITING: "warn",
    ServerState.OFFLINE: "warn",
    ServerState.STOPPED: "warn",
    ServerState.LEFT_ON_V1: "bad",
    ServerState.ROLLBACK_INCOMPLETE: "bad",
}
_FLEET_KINDS = {
    FleetState.UPGRADED: "good",
    FleetState.ALREADY_CURRENT: "good",
    FleetState.ROLLED_BACK: "good",
    FleetState.STOPPED: "warn",
}
_ORDER = ("bad", "warn", "busy", "rest", "good")
"""What needs a person comes first."""
_UPGRADE = (Phase.PREFLIGHT, Phase.PLAN, Phase.BACKUP, Phase.STAGE, Phase.CORE, Phase.ROLLOUT, Phase.POST_CHECKS)
_LABELS = {
    Verdict.APPROVE: "Approve",
    Verdict.REJECT: "Reject",
    Verdict.RETRY: "Retry",
    Verdict.SKIP: "Skip",
    Verdict.ROLLBACK: "Roll back",
}
_MEANINGS = {
    (GateKind.CORE, Verdict.APPROVE): "upgrades Core and the canary",
    (GateKind.CORE, Verdict.REJECT): "changes nothing and ends the upgrade",
    (GateKind.WAVE, Verdict.APPROVE): "upgrades the next servers",
    (GateKind.WAVE, Verdict.REJECT): "ends the rollout here; the other servers stay on v1",
    (GateKind.FAILURE, Verdict.RETRY): "tries again",
    (GateKind.FAILURE, Verdict.SKIP): "leaves it as it is and continues",
    (GateKind.FAILURE, Verdict.ROLLBACK): "restores the old version",
    (GateKind.ROLLBACK, Verdict.APPROVE): "restores the old version everywhere",
    (GateKind.ROLLBACK, Verdict.REJECT): "changes nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server."""

    name: str
    state: str
    kind: str
    """good | warn | bad | busy | rest: its colour."""
    step: str
    detail: str
    since: datetime | None
    unmanaged_since: datetime | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One phase of the guide."""

    name: str
    kind: str
    """done | now | next"""
    seconds: float = 0.0
    since: datetime | None = None
    """Of the phase that runs now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One button of a gate."""

    verdict: Verdict
    label: str
    meaning: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The same change of a file on one or more hosts."""

    path: str
    hosts: tuple[str, ...]
    reasons: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    """CSS class and text of each line of the masked diff."""


def kind_of(state: ServerState | FleetState) -> str:
    """The colour of a state."""
    if isinstance(state, FleetState):
        return _FLEET_KINDS.get(state, "bad")
    return _KINDS.get(state, "rest")


def rows(progress: FleetProgress) -> tuple[Row, ...]:
    """Core, then the servers, those that need a person first."""
    servers = [_row(server, progress) for server in progress.servers]
    return (_row(progress.core, progress), *sorted(servers, key=lambda row: _ORDER.index(row.kind)))


def _row(server: ServerProgress, progress: FleetProgress) -> Row:
    kind = kind_of(server.state)
    stopped = progress.core_stopped_at
    unmanaged = stopped is not None and server is not progress.core and kind != "good"
    return Row(
        name=server.name,
        state=server.reported,
        kind=kind,
        step=server.step,
        detail="" if server.step else server.detail.partition("\n")[0],
        since=server.since if server.step else None,
        unmanaged_since=stopped if unmanaged else None,
        attempt=server.attempt,
    )


def unmanaged_count(progress: FleetProgress) -> int:
    """Servers that Core cannot manage now."""
    return sum(row.unmanaged_since is not None for row in rows(progress))


def done_count(progress: FleetProgress) -> int:
    """Servers that are finished."""
    return sum(kind_of(server.state) == "good" for server in progress.servers)


def stages(progress: FleetProgress) -> tuple[Stage, ...]:
    """The phases with the time that each took; waiting at gates, and for a time, are phases of their own."""
    spent: dict[Phase, float] = {}
    for begun, following in zip_longest(progress.phases, progress.phases[1:]):
        length = (following.at - begun.at).total_seconds() if following else 0.0
        spent[begun.phase] = spent.get(begun.phase, 0.0) + length
    planned: tuple[Phase, ...] = (Phase.ROLLBACK,) if progress.phase is Phase.ROLLBACK else _UPGRADE
    waits = (Phase.SCHEDULED, Phase.GATE)
    names: list[Phase] = [*(phase for phase in spent if phase not in (*waits, Phase.DONE))]
    names += [phase for phase in planned if phase not in names]
    names += [phase for phase in waits if phase in spent]
    return tuple(_stage(phase, progress, spent) for phase in names)


def _stage(phase: Phase, progress: FleetProgress, spent: dict[Phase, float]) -> Stage:
    if phase is progress.phase and not progress.state:
        return Stage(name=phase.value, kind="now", since=progress.since)
    return Stage(name=phase.value, kind="done" if phase in spent else "next", seconds=spent.get(phase, 0.0))


def choices(gate: Gate) -> tuple[Choice, ...]:
    """The answers that this gate takes."""
    found = []
    for place, verdict in enumerate(gate.verdicts):
        danger = verdict is Verdict.ROLLBACK or (gate.kind is GateKind.ROLLBACK and verdict is Verdict.APPROVE)
        style = "danger" if danger else "main" if place == 0 else ""
        meaning = _MEANINGS.get((gate.kind, verdict), "")
        found.append(Choice(verdict=verdict, label=_LABELS[verdict], meaning=meaning, style=style))
    return tuple(found)


def topics(gate: Gate, *, with_plan: bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The facts by topic. Where the plan is shown, its warnings are shown with their hints instead."""
    return tuple((topic, facts) for topic, facts in gate.by_topic() if not (with_plan and topic == WARNINGS))


def changes(plan: Plan) -> tuple[Change, ...]:
    """Every file that will change; hosts with the same change share an entry."""
    hosts: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for name, edits in (("core", plan.core.edits), *((s.name, s.edits) for s in plan.servers)):
        for edit in edits:
            hosts.setdefault(_content(edit), []).append(name)
    return tuple(
        Change(path=path, hosts=tuple(names), reasons=reasons, lines=tuple(_line(text) for text in diff.splitlines()))
        for (path, diff, reasons), names in hosts.items()
    )


def _content(edit: PlannedEdit) -> tuple[str, str, tuple[str, ...]]:
    return edit.path, edit.diff, edit.reasons


def _line(text: str) -> tuple[str, str]:
    if text.startswith(("+++", "---")):
        return "", text
    return {"+": "plus", "-": "minus"}.get(text[:1], ""), text
