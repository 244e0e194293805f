"""Preflight and plan: look at every host in parallel, then bind what was found into one plan. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.facts import HELD, CoreFacts, Finding, PlannedEdit, ServerFacts, Severity
    from model.fleet import FleetSpec
    from model.plan import Plan, bind, waves
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps, texts
    from workflows.saga import each, trouble


AWAY = "unreachable"
"""Code of the finding of a server without a connection (the error's name)."""
OFFLINE = "offline"
"""The same, once the server was set aside for it."""
NOT_PROVEN = "not-proven"
"""Code of the finding that Core on the target does not see an agent which has all that it needs."""


async def survey(fleet: FleetSpec, names: Iterable[str]) -> tuple[CoreFacts, dict[str, ServerFacts]]:
    """Core and these servers, all at the same time. A survey that fails becomes a finding that refuses."""
    order = tuple(names)
    found: dict[str, ServerFacts] = {}

    async def one(name: str) -> None:
        found[name] = await survey_server(fleet, name)

    core, _ = await asyncio.gather(_survey_core(fleet), each(order, one))
    return core, {name: found[name] for name in order}


async def survey_server(fleet: FleetSpec, name: str) -> ServerFacts:
    """One server, as found. One that cannot be reached is looked at again before that is believed."""
    facts = await look_once(fleet, name)
    for pause in (fleet.clocks.retry, 2 * fleet.clocks.retry):
        if not is_away(facts):
            break
        await workflow.sleep(pause, summary=f"look at {name} again")
        facts = await look_once(fleet, name)
    return facts


def is_away(facts: ServerFacts) -> bool:
    """No connection, and nothing worse (a changed host key, a refused login)."""
    codes = [f.code for f in facts.findings if f.severity is Severity.REFUSE]
    return not facts.reachable and codes == [AWAY]


async def look_once(fleet: FleetSpec, name: str) -> ServerFacts:
    """One server, as found at the first look."""
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
    fleet: FleetSpec,
    change: str,
    core: CoreFacts,
    servers: dict[str, ServerFacts],
    skipped: Iterable[str] = (),
    away: Iterable[str] = (),
) -> Plan:
    """The plan, bound by its digest. `skipped` are servers that a person decided to leave on v1; `away` those that were
    set aside already.
    """
    left = tuple(skipped)
    # Planned again, the host is held by this very run.
    core = replace(core, findings=tuple(f for f in core.findings if f.code != HELD or change not in f.text))
    core = _agent_seen_by_core(core)
    facts = apart(core, tuple(judged(core, servers[s.name]) for s in fleet.servers if s.name in servers))
    facts, offline = _set_aside(fleet, facts, left, tuple(away))
    wanted = tuple(s.name for s in facts if not s.current and s.name not in (*left, *offline))
    plan = Plan(
        fleet=fleet.name,
        target=fleet.target,
        core=core,
        servers=facts,
        waves=waves(fleet, wanted),
        mode=fleet.rollout.mode,
        already_current=tuple(s.name for s in facts if s.current),
        left_behind=(*fleet.leave_behind, *left),
        offline=offline,
    )
    plan = replace(plan, commands=texts.commands(fleet, plan), way_back=texts.way_back(fleet, plan, change))
    return bind(plan)


def _set_aside(
    fleet: FleetSpec, facts: tuple[ServerFacts, ...], left: tuple[str, ...], away: tuple[str, ...]
) -> tuple[tuple[ServerFacts, ...], tuple[str, ...]]:
    """Servers that cannot be reached stop nobody else. With nobody else there, the way to them is broken."""
    offline = tuple(s.name for s in facts if s.name not in left and (s.name in away or is_away(s) or _aside(s)))
    others = [s for s in facts if s.name not in (*left, *offline) and not s.current]
    if fleet.rollout.offline == "refuse" or not others:
        return facts, tuple(name for name in offline if name in away)
    return tuple(_warned(s) if is_away(s) else s for s in facts), offline


def _aside(facts: ServerFacts) -> bool:
    return any(f.code == OFFLINE for f in facts.findings)


def _warned(facts: ServerFacts) -> ServerFacts:
    found = facts.findings[0]
    cure = "upgraded through a gate of its own when it returns"
    return _noted(replace(facts, findings=()), OFFLINE, Severity.WARN, f"offline, set aside: {found.text}", cure)


def judged(core: CoreFacts, facts: ServerFacts) -> ServerFacts:
    """A survey knows that some key is pinned; here it is known whether it is Core's. Judging again changes nothing.

    While Core is still v1 its key is not known, so nothing that is pinned counts: the config gets the key, or turns out
    to have it (then only the agent is restarted).
    """
    pinned, key = facts.pinned_keys, core.public_key
    if not pinned:
        return facts
    if key in pinned or (facts.current and _core_logs_in(core, facts)):
        return _seen_by_core(core, replace(facts, edits=()))
    if key:
        return _pins_another(facts)
    if core.current and facts.current:
        text = "Core's public key could not be read, so it was not compared with the key that its agent pins"
        return _noted(replace(facts, edits=()), "key-not-compared", Severity.WARN, text, "give an API key of an admin")
    return replace(facts, current=False)


def apart(core: CoreFacts, servers: tuple[ServerFacts, ...]) -> tuple[ServerFacts, ...]:
    """Refuses subjects that are one machine under two names and would keep their backups in one folder.

    The fleet file parts those that are written alike; here the machines themselves have said where their folder lies.
    """
    owner = {core.state_place: "core"}
    found = []
    for facts in servers:
        other = owner.get(facts.state_place, "") if facts.state_place else ""
        if other and not facts.current:
            text = f"{facts.name} and {other} are one machine, and both would keep their backups in one folder"
            cure = (
                f"write the host of both alike in the fleet file, or give {facts.name} a folder of its own: "
                f'state_dir = "/var/lib/komodo-upgrade-{facts.name}"'
            )
            facts = _noted(facts, "one-folder", Severity.REFUSE, text, cure)
        owner.setdefault(facts.state_place, facts.name)
        found.append(facts)
    return tuple(found)


def _core_logs_in(core: CoreFacts, facts: ServerFacts) -> bool:
    """What a `file:` form pins cannot be compared; but with any key pinned nobody logs in by passkey."""
    known = next((s for s in core.servers if s.name == facts.name), None)
    seen = known is not None and known.state == "Ok" and known.version == facts.version
    return core.current and seen and any(k.startswith("file:") for k in facts.pinned_keys)


def _not_ok(core: CoreFacts, name: str) -> str:
    """What Core on the target says of this Server, where that is not `Ok`; nothing where it cannot be asked."""
    known = next((s for s in core.servers if s.name == name), None)
    return known.state if core.current and known and known.enabled and known.state not in ("", "Ok") else ""


def _seen_by_core(core: CoreFacts, facts: ServerFacts) -> ServerFacts:
    """With all that it needs, but not `Ok`: as an earlier run leaves one that is unproven. Now it is to be proven."""
    if not facts.current or not (state := _not_ok(core, facts.name)):
        return facts
    text = f"its agent {facts.version} has Core's key, but Core says {state}: it counts as upgraded once it is proven"
    return _noted(replace(facts, current=False), NOT_PROVEN, Severity.WARN, text, "the upgrade restarts and proves it")


def _agent_seen_by_core(core: CoreFacts) -> CoreFacts:
    """The agent in Core's project is not made anew for that, but it is said."""
    if core.agent is None or not (state := _not_ok(core, core.agent_server)):
        return core
    text = f"Core says {state} of its own project's agent"
    cure = f"`docker logs {core.agent.container}` on Core's host"
    finding = Finding(code=NOT_PROVEN, severity=Severity.WARN, subject=core.agent_server, text=text, cure=cure)
    return replace(core, findings=(*(f for f in core.findings if f.code != finding.code), finding))


def _pins_another(facts: ServerFacts) -> ServerFacts:
    if facts.version.startswith("1."):
        return facts
    text = (
        f"its agent {facts.version} pins another key than Core's, so Core cannot log in: {', '.join(facts.pinned_keys)}"
    )
    if facts.edits:
        cure = "the upgrade puts Core's key beside it"
        return _noted(replace(facts, current=False), "another-key", Severity.WARN, text, cure)
    cure = "its config cannot be edited safely: put Core's key into core_public_keys by hand, and restart the agent"
    return _noted(replace(facts, current=False), "another-key", Severity.REFUSE, text, cure)


def _noted(facts: ServerFacts, code: str, severity: Severity, text: str, cure: str) -> ServerFacts:
    finding = Finding(code=code, severity=severity, subject=facts.name, text=text, cure=cure)
    return replace(facts, findings=(*(f for f in facts.findings if f.code != code), finding))


def agent_pending(plan: Plan) -> bool:
    """Core's own project has an agent that is known to be on another version than the target, or without Core's key."""
    agent, core = plan.core.agent, plan.core
    if agent is None:
        return False
    return agent.version not in ("", plan.target) or (bool(core.public_key) and any(e.with_key for e in core.edits))


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
