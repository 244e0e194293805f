"""The parts of a page that change while it is open. Each is made for the page itself and for its live updates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from model.plan import Plan
from model.status import FleetState
from model.text.findings import Common, by_severity
from web import views
from web.access.guard import Visitor
from web.data import FleetView, Listed
from web.render import page

_STATES = {state.value: views.kind_of(state) for state in FleetState}


@dataclass(frozen=True, slots=True)
class Part:
    """HTML of one element, and a key that differs when its content does (a growing duration is no content)."""

    html: Markup
    key: str


Parts = dict[str, Part]
"""By the id of the element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """A plan on a page."""

    plan: Plan
    findings: tuple[tuple[str, tuple[Common, ...]], ...]
    changes: tuple[views.Change, ...]


def of_plan(plan: Plan) -> PlanView:
    """Findings by severity, and the changes of files."""
    return PlanView(plan=plan, findings=by_severity(plan.findings), changes=views.changes(plan))


def of_index(found: list[Listed], base: str, now: datetime | None) -> Parts:
    """The list of fleets."""
    return {"fleets": _part("part_fleets.html", now, found=found, base=base, kinds=_STATES)}


def of_fleet(view: FleetView, visitor: Visitor, base: str, now: datetime | None) -> Parts:
    """A running fleet. `now` is None for live updates: the script fills durations in."""
    progress = view.progress
    values: dict[str, object] = {"view": view, "progress": progress, "visitor": visitor, "base": base}
    if progress is None:
        return {"state": _part("part_ended.html", now, kinds=_STATES, **values)}
    gate = progress.gate
    plan = of_plan(view.plan) if view.plan and gate and gate.plan_digest else None
    return {
        "state": _part(
            "part_state.html",
            now,
            stages=views.stages(progress),
            done=views.done_count(progress),
            unmanaged=views.unmanaged_count(progress),
            **values,
        ),
        "gate": _part(
            "part_gate.html",
            now,
            gate=gate,
            choices=views.choices(gate) if gate else (),
            topics=views.topics(gate, with_plan=plan is not None) if gate else (),
            plan=plan,
            **values,
        ),
        "servers": _part("part_servers.html", now, rows=views.rows(progress), **values),
        "log": _part("part_log.html", now, **values),
    }


def _part(template: str, now: datetime | None, **values: object) -> Part:
    def made(when: datetime | None) -> str:
        return page(template, now=when, **values)

    stable = made(None)
    key = hashlib.sha256(stable.encode()).hexdigest()[:16]
    return Part(Markup(made(now) if now else stable), key)  # noqa: S704 - made of an escaping template
