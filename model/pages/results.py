"""The result of a large fleet: in pages for its report, and shortened for what a workflow returns."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import replace
from typing import Any

from model.facts import CoreFacts
from model.plan import Plan
from model.status import FleetResult, PlanPage, ResultPage, ServerOutcome

PAGE = 50
"""Servers in one page."""
DETAILED = 100
"""Servers up to which the result of a workflow and the request of a rollback have everything. The report always has."""
_LONGEST_DETAIL = 300


def is_large(servers: Sized) -> bool:
    """Whether the details of so many servers are too large for one payload."""
    return len(servers) > DETAILED


def pages_of(result: FleetResult, size: int = 0) -> tuple[FleetResult, ...]:
    """The result in parts of `size` servers, 0: PAGE. What does not grow with the fleet is in the first part."""
    plan = result.plan
    parts = [_chunks(items, size or PAGE) for items in (*_lists(result), *_plan_lists(plan))]
    found = []
    for number in range(max(1, *map(len, parts))):
        servers, warnings, refusals, facts, commands, steps = (
            part[number] if number < len(part) else () for part in parts
        )
        basis = result if number == 0 else _without_details(result)
        kept = basis.plan and replace(basis.plan, servers=facts, commands=commands, rollback_steps=steps)
        found.append(replace(basis, plan=kept, servers=servers, warnings=warnings, refusals=refusals))
    return tuple(found)


def joined(pages: Iterable[FleetResult]) -> FleetResult:
    """The result of all its parts, in their order."""
    whole, *others = pages
    for page in others:
        whole = replace(
            whole,
            plan=joined_plan((whole.plan, page.plan)) if whole.plan and page.plan else whole.plan,
            servers=whole.servers + page.servers,
            warnings=whole.warnings + page.warnings,
            refusals=whole.refusals + page.refusals,
        )
    return whole


def result_page(result: FleetResult, number: int) -> ResultPage:
    """The answer of the query `result_page`; numbers begin at 1. A number that does not exist returns the last page."""
    pages = pages_of(result)
    return ResultPage(result=pages[min(max(number, 1), len(pages)) - 1], pages=len(pages))


def plan_page(plan: Plan | None, number: int) -> PlanPage:
    """The answer of the query `plan_page`, like `result_page`."""
    if plan is None:
        return PlanPage()
    parts = [_chunks(items, PAGE) for items in _plan_lists(plan)]
    count = max(1, *map(len, parts))
    index = min(max(number, 1), count) - 1
    servers, commands, steps = (part[index] if index < len(part) else () for part in parts)
    basis = plan if index == 0 else _without_plan_details(plan)
    return PlanPage(plan=replace(basis, servers=servers, commands=commands, rollback_steps=steps), pages=count)


def joined_plan(plans: Iterable[Plan]) -> Plan:
    """The plan of all its parts, in their order."""
    whole, *others = plans
    for part in others:
        whole = replace(
            whole,
            servers=whole.servers + part.servers,
            commands=whole.commands + part.commands,
            rollback_steps=whole.rollback_steps + part.rollback_steps,
        )
    return whole


def shortened_plan(plan: Plan) -> Plan:
    """Of a large fleet without its servers. It keeps its digest."""
    return _without_servers(plan) if is_large(plan.servers) else plan


def shortened(result: FleetResult) -> FleetResult:
    """What a workflow returns: of a large fleet without facts, backups, logs and most of the warnings."""
    if not is_large(result.servers):
        return result
    return replace(
        result,
        plan=result.plan and _without_servers(result.plan),
        servers=tuple(without_backup(outcome) for outcome in result.servers),
        warnings=result.warnings[:DETAILED],
        refusals=result.refusals[:DETAILED],
    )


def without_backup(outcome: ServerOutcome) -> ServerOutcome:
    """State, versions and proof of one server."""
    return replace(outcome, backup=None, switched=None, detail=outcome.detail[:_LONGEST_DETAIL])


def _chunks(items: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _lists(result: FleetResult) -> tuple[tuple[Any, ...], ...]:
    return result.servers, result.warnings, result.refusals


def _plan_lists(plan: Plan | None) -> tuple[tuple[Any, ...], ...]:
    return (plan.servers, plan.commands, plan.rollback_steps) if plan else ((), (), ())


def _without_details(result: FleetResult) -> FleetResult:
    return FleetResult(
        fleet=result.fleet,
        target=result.target,
        change=result.change,
        state=result.state,
        started_at=result.started_at,
        ended_at=result.ended_at,
        plan=result.plan and _without_plan_details(result.plan),
    )


def _without_servers(plan: Plan) -> Plan:
    return replace(plan, servers=(), commands=(), rollback_steps=())


def _without_plan_details(plan: Plan) -> Plan:
    return Plan(fleet=plan.fleet, target=plan.target, core=CoreFacts(), servers=(), waves=())
