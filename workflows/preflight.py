"""Preflight and plan: look at every host in parallel, then bind what was found into one plan. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.facts import CoreFacts, Finding, PlannedEdit, ServerFacts, Severity
    from model.fleet import FleetSpec
    from model.plan import Plan, bind, waves
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps, texts
    from workflows.saga import each, trouble


async def survey(fleet: FleetSpec, names: Iterable[str]) -> tuple[CoreFacts, dict[str, ServerFacts]]:
    """Core and these servers, all at the same time. A survey that fails becomes a finding that refuses."""
    order = tuple(names)
    found: dict[str, ServerFacts] = {}

    async def one(name: str) -> None:
        found[name] = await survey_server(fleet, name)

    core, _ = await asyncio.gather(_survey_core(fleet), each(order, one))
    return core, {name: found[name] for name in order}


async def survey_server(fleet: FleetSpec, name: str) -> ServerFacts:
    """One server, as found."""
    try:
        return await steps.survey_server(fleet, fleet.server(name))
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        return ServerFacts(name=name, findings=(_not_seen(name, error),))


async def _survey_core(fleet: FleetSpec) -> CoreFacts:
    try:
        return await steps.survey_core(fleet)
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        return CoreFacts(findings=(_not_seen("core", error),))


def _not_seen(subject: str, error: FailureError) -> Finding:
    return Finding(code="survey-failed", severity=Severity.REFUSE, subject=subject, text=trouble(error).text)


def assemble(
    fleet: FleetSpec, change: str, core: CoreFacts, servers: dict[str, ServerFacts], skipped: Iterable[str] = ()
) -> Plan:
    """The plan, bound by its digest. `skipped` are servers that a person decided to leave on v1."""
    left = tuple(skipped)
    facts = tuple(servers[s.name] for s in fleet.servers if s.name in servers)
    wanted = tuple(s.name for s in facts if not s.current and s.name not in left)
    plan = Plan(
        fleet=fleet.name,
        target=fleet.target,
        core=core,
        servers=facts,
        waves=waves(fleet, wanted),
        already_current=tuple(s.name for s in facts if s.current),
        left_behind=(*fleet.leave_behind, *left),
    )
    plan = replace(plan, commands=texts.commands(fleet, plan), way_back=texts.way_back(fleet, plan, change))
    return bind(plan)


def agent_pending(plan: Plan) -> bool:
    """Core's own project has an agent that is known to be on another version than the target."""
    agent = plan.core.agent
    return agent is not None and agent.version not in ("", plan.target)


def all_current(plan: Plan) -> bool:
    """Nothing to do."""
    return plan.core.current and not plan.waves and not agent_pending(plan)


def differs(old: ServerFacts, new: ServerFacts) -> bool:
    """What was backed up and staged for `old` is not good for `new`."""
    return _bound(old) != _bound(new)


def core_differs(old: CoreFacts, new: CoreFacts) -> bool:
    """The same for Core."""
    images = [(c.core.image, c.core.image_id, c.core.target_image) if c.core else () for c in (old, new)]
    return images[0] != images[1] or old.version != new.version or _edits(old.edits) != _edits(new.edits)


def _bound(facts: ServerFacts) -> tuple[object, ...]:
    return (facts.version, facts.binary, facts.binary_sha256, facts.config_paths, _edits(facts.edits))


def _edits(edits: tuple[PlannedEdit, ...]) -> list[tuple[str, str, str]]:
    return [(e.path, e.base_sha256, e.result_sha256) for e in edits]


def slim_server(facts: ServerFacts) -> ServerFacts:
    """Without the diffs: steps compute the edit again, and eight KiB a step and server would fill the history."""
    return replace(facts, edits=tuple(replace(e, diff="") for e in facts.edits))


def slim_core(facts: CoreFacts) -> CoreFacts:
    """The same for Core."""
    return replace(facts, edits=tuple(replace(e, diff="") for e in facts.edits))


def slim_plan(plan: Plan) -> Plan:
    """The same for a whole plan. Its digest does not depend on diffs."""
    return replace(plan, core=slim_core(plan.core), servers=tuple(slim_server(s) for s in plan.servers))


def only(fleet: FleetSpec, name: str) -> FleetSpec:
    """The fleet as far as one server needs it: what travels in its inputs does not grow with the fleet."""
    return replace(fleet, servers=(fleet.server(name),))


def plan_of(plan: Plan, name: str) -> Plan:
    """The plan as far as one server needs it. The digest is that of the whole plan."""
    known = tuple(s for s in plan.core.servers if s.name == name)
    core = replace(plan.core, servers=known, edits=(), findings=(), sources=())
    facts = (slim_server(plan.server(name)),)
    return replace(plan, core=core, servers=facts, waves=(), commands=(), way_back=())
