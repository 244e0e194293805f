"""Planning: from the facts of the surveys to one plan, bound by its digest. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.facts import (
    HELD,
    ContainerFacts,
    CoreFacts,
    CoreRef,
    Finding,
    Install,
    PlannedEdit,
    ServerFacts,
    ServiceFacts,
    Severity,
)
from model.fleet.spec import AgentInstall, CoreSpec, DatabaseRollback, FleetSpec, OfflinePolicy, RolloutMode, ServerSpec
from model.plan import Plan, bind, not_in_run, waves, with_ignored
from model.steps import Operation, ServerStep
from model.text.plan import commands, rollback_steps

UNREACHABLE = "unreachable"
"""Code of the finding for a server without a connection (the name of the error)."""
OFFLINE = "offline"
"""Code of the finding for an unreachable server that was set aside."""
INLINE_PIN = "inline-pin"
"""Code of the finding that a v2 agent has Core's key in its config, where a rotation of Core's keys cuts it off."""
MANY_WAVES, MOST_WAVES = 300, 1_000
"""Waves from which a rollout is warned about, and refused."""
NOT_PROVEN = "not-proven"
"""Code of the finding that Core on the target version does not see an agent which is configured correctly."""


def make_plan(
    fleet: FleetSpec,
    change: str,
    core: CoreFacts,
    servers: dict[str, ServerFacts],
    skipped: Iterable[str] = (),
    away: Iterable[str] = (),
) -> Plan:
    """Build the plan and bind it by its digest.

    `skipped`: servers that a person decided to leave on the old version. `away`: servers that were set aside earlier.
    """
    left = tuple(skipped)
    # When a run plans again, the host is locked by this very run.
    core = replace(core, findings=tuple(f for f in core.findings if f.code != HELD or change not in f.text))
    core = _warn_of_unseen_agent(core)
    surveyed = (servers[s.name] for s in fleet.servers if s.name in servers)
    evaluated = tuple(evaluate_key(core, facts) for facts in surveyed if not facts.in_core_project)
    evaluated = reject_different_artifacts(core, reject_shared_hosts(core, evaluated))
    evaluated = tuple(_require_connectable(fleet, core, s) for s in evaluated)
    facts, offline = _set_aside(fleet, evaluated, left, tuple(away))
    found = core_agent(fleet, core)
    agent = (found[1],) if found else ()
    wanted = tuple(s.name for s in facts if not s.current and s.name not in (*left, *offline))
    rollout = waves(fleet, wanted)
    plan = Plan(
        fleet=fleet.name,
        target=fleet.target,
        core=_limit_waves(core, len(rollout)),
        servers=(*facts, *agent),
        waves=rollout,
        mode=fleet.rollout.mode,
        already_current=tuple(s.name for s in (*facts, *agent) if s.current),
        with_core=tuple(s.name for s in agent if not s.current and s.name not in left),
        left_behind=(*fleet.leave_behind, *left),
        not_in_run=not_in_run(fleet, core),
        offline=offline,
    )
    return bind_with_steps(fleet, with_ignored(fleet, plan) if fleet.ignored_checks else plan, change)


def bind_with_steps(fleet: FleetSpec, plan: Plan, change: str) -> Plan:
    """Describe the plan's commands and its rollback, then compute its digest."""
    return bind(replace(plan, commands=commands(fleet, plan), rollback_steps=rollback_steps(fleet, plan, change)))


# --- the size of a run ------------------------------------------------------------------------------------------------


def _limit_waves(core: CoreFacts, count: int) -> CoreFacts:
    """Temporal ends a workflow at 51,200 events; a wave with a gate and its reminders takes about 30 of them."""
    if count <= MANY_WAVES:
        return core
    severity = Severity.REFUSE if count > MOST_WAVES else Severity.WARN
    text = f"the rollout has {count} waves, and each adds to the history of the run: up to {MANY_WAVES} are intended"
    hint = 'set a larger `wave` under [rollout], such as wave = "50"'
    finding = Finding(code="many-waves", severity=severity, subject="fleet", text=text, hint=hint)
    return replace(core, findings=(*(f for f in core.findings if f.code != finding.code), finding))


# --- servers that cannot be reached -----------------------------------------------------------------------------------


def is_unreachable(facts: ServerFacts) -> bool:
    """True without a connection and without a worse finding (a changed host key, a refused login)."""
    codes = [f.code for f in facts.findings if f.severity is Severity.REFUSE]
    return not facts.reachable and codes == [UNREACHABLE]


def _set_aside(
    fleet: FleetSpec, facts: tuple[ServerFacts, ...], left: tuple[str, ...], away: tuple[str, ...]
) -> tuple[tuple[ServerFacts, ...], tuple[str, ...]]:
    """An unreachable server does not stop the others. If no server is reachable, the network is the likely cause."""
    offline = tuple(
        s.name for s in facts if s.name not in left and (s.name in away or is_unreachable(s) or _is_set_aside(s))
    )
    others = [s for s in facts if s.name not in (*left, *offline) and not s.current]
    if fleet.rollout.offline == OfflinePolicy.REFUSE or not others:
        return facts, tuple(name for name in offline if name in away)
    return tuple(_mark_offline(s) if is_unreachable(s) else s for s in facts), offline


def _is_set_aside(facts: ServerFacts) -> bool:
    return any(f.code == OFFLINE for f in facts.findings)


def _mark_offline(facts: ServerFacts) -> ServerFacts:
    found = facts.findings[0]
    hint = "it is upgraded through a gate of its own when it returns"
    return replace(facts, findings=()).with_finding(OFFLINE, Severity.WARN, f"offline, set aside: {found.text}", hint)


def reject_shared_hosts(core: CoreFacts, servers: tuple[ServerFacts, ...]) -> tuple[ServerFacts, ...]:
    """Refuse servers that are one machine under two names and would keep their backups in one folder.

    The fleet file already separates hosts that are written alike; the surveys report which machine a folder is on.
    """
    owner = {core.state_place: "core"}
    found = []
    for facts in servers:
        other = owner.get(facts.state_place, "") if facts.state_place else ""
        if other and not facts.current:
            text = f"{facts.name} and {other} are one machine, and both would keep their backups in one folder"
            hint = (
                f"write the host of both alike in the fleet file, or give {facts.name} a folder of its own: "
                f'state_dir = "/var/lib/komodo-upgrade-{facts.name}"'
            )
            facts = facts.with_finding("one-folder", Severity.REFUSE, text, hint)
        owner.setdefault(facts.state_place, facts.name)
        found.append(facts)
    return tuple(found)


def reject_different_artifacts(core: CoreFacts, servers: tuple[ServerFacts, ...]) -> tuple[ServerFacts, ...]:
    """Refuse servers that would get different binaries of one architecture, or different images of one name."""
    first: dict[str, tuple[str, str]] = {}
    if core.agent and core.agent.target_digest and not core.current:
        first[f"image {core.agent.target_image}"] = core.agent.target_digest, core.agent_name
    found = []
    for facts in servers:
        subject, digest, hint = _artifact(facts)
        if digest and not facts.current:
            other, name = first.setdefault(subject, (digest, facts.name))
            if other != digest:
                text = f"its new {subject} would have the digest {digest}, but {other} on {name}"
                facts = facts.with_finding("artifacts-differ", Severity.REFUSE, text, hint)
        found.append(facts)
    return tuple(found)


def _artifact(facts: ServerFacts) -> tuple[str, str, str]:
    """What would be installed, its digest (empty: unknown), and what to do if it is not the same on all hosts."""
    if facts.container:
        service = facts.container.service
        hint = f"the registry changes its answer: write {service.target_image}@sha256:… in the compose file"
        return f"image {service.target_image}", service.target_digest, hint
    hint = f'the download changes: add sha256 = {{ {facts.arch} = "…" }} under [agent] in the fleet file'
    return f"binary for {facts.arch}", facts.artifact_sha256, hint


def _require_connectable(fleet: FleetSpec, core: CoreFacts, facts: ServerFacts) -> ServerFacts:
    """Refuse a change of the connection that could not be made, or not be undone."""
    if not facts.connect_to:
        return facts
    text = hint = ""
    if not core.api:
        text, hint = "only Core's API can change this", "give an API key of an admin ([core] api_key_env, …)"
    elif fleet.rollout.mode == RolloutMode.ALL_AT_ONCE:
        text, hint = "agents are changed one by one, after Core has seen them in v2", '[rollout] mode = "waves"'
    elif fleet.database.rollback == DatabaseRollback.KEEP:
        text = "a rollback that keeps the database would keep the Server without its address"
        hint = '[database] rollback = "restore"'
    if not text:
        return facts
    what = f"it is to connect to Core, but {text}"
    return facts.with_finding("not-connectable", Severity.REFUSE, what, hint)


# --- Core's key and Core's view ---------------------------------------------------------------------------------------


def evaluate_key(core: CoreFacts, facts: ServerFacts) -> ServerFacts:
    """Decide whether the key that an agent pins is Core's. Idempotent.

    While Core is on v1 its key is unknown, so a pinned key does not count yet: the config gets Core's key, or turns
    out to have it (then the agent is only restarted).
    """
    pinned, key = facts.pinned_keys, core.public_key
    if not pinned:
        return facts
    if any(f.code == INLINE_PIN for f in facts.findings):
        return facts
    if key and key in pinned:
        return _change_pin(_require_proof(core, replace(facts, edits=facts.edits_without_pin)))
    if (key and key in facts.file_keys) or (facts.current and _logs_in_with_file_key(core, facts)):
        return _require_proof(core, replace(facts, edits=facts.edits_without_pin))
    if key:
        return _replace_pinned_key(facts)
    if core.current and facts.current:
        text = "Core's public key could not be read, so it was not compared with the key that the agent pins"
        hint = "give an API key of an admin"
        return replace(facts, edits=facts.edits_without_pin).with_finding("key-not-compared", Severity.WARN, text, hint)
    return replace(facts, current=False)


def _change_pin(facts: ServerFacts) -> ServerFacts:
    """Warn of a v2 agent that has Core's key in its config; where the fleet file says so, the upgrade changes it."""
    if facts.version.startswith("1."):
        return facts
    text = "Core's key is written in its config: if Core rotates its keys, the agent refuses Core at its next start"
    hint = "the upgrade pins it by a file, which a rotation replaces"
    if not facts.repin:
        hint = (
            'pin = "file" in [agent], or `komodo-upgrade edit --pin file`, pins it by a file, which a rotation replaces'
        )
    return replace(facts, edits=facts.repin or facts.edits, repin=()).with_finding(
        INLINE_PIN, Severity.WARN, text, hint
    )


def _logs_in_with_file_key(core: CoreFacts, facts: ServerFacts) -> bool:
    """A `file:` key cannot be compared, but with any key pinned no Core logs in by passkey."""
    known = next((s for s in core.servers if s.name == facts.name), None)
    seen = known is not None and known.state == "Ok" and known.version == facts.version
    return core.current and seen and any(k.startswith("file:") for k in facts.pinned_keys)


def _state_not_ok(core: CoreFacts, name: str) -> str:
    """The state that Core on the target reports for this Server; empty if it is Ok, disabled or unknown."""
    known = next((s for s in core.servers if s.name == name), None)
    return known.state if core.current and known and known.enabled and known.state not in ("", "Ok") else ""


def _require_proof(core: CoreFacts, facts: ServerFacts) -> ServerFacts:
    """An agent with the right version and key that Core does not see was left unverified by an earlier run."""
    if not facts.current or not (state := _state_not_ok(core, facts.name)):
        return facts
    text = f"agent {facts.version} has Core's key, but Core reports {state}: it counts as upgraded once it is proven"
    hint = "the upgrade restarts and proves it"
    return replace(facts, current=False).with_finding(NOT_PROVEN, Severity.WARN, text, hint)


def _warn_of_unseen_agent(core: CoreFacts) -> CoreFacts:
    """The agent in Core's project is not re-created because Core does not see it; a warning names it."""
    if core.agent is None or not (state := _state_not_ok(core, core.agent_server)):
        return core
    text = f"Core reports {state} for the agent in its own project"
    hint = f"`docker logs {core.agent.container}` on Core's host"
    finding = Finding(code=NOT_PROVEN, severity=Severity.WARN, subject=core.agent_server, text=text, hint=hint)
    return replace(core, findings=(*(f for f in core.findings if f.code != finding.code), finding))


def _replace_pinned_key(facts: ServerFacts) -> ServerFacts:
    if facts.version.startswith("1."):
        return facts
    text = (
        f"its agent {facts.version} pins another key than Core's, so Core cannot log in: {', '.join(facts.pinned_keys)}"
    )
    severity, hint = Severity.WARN, "the upgrade adds Core's key to it"
    if facts.edits == facts.edits_without_pin:
        severity = Severity.REFUSE
        hint = "its config cannot be edited safely: add Core's key to core_public_keys by hand and restart the agent"
    return replace(facts, current=False).with_finding("another-key", severity, text, hint)


# --- the agent in Core's own project ----------------------------------------------------------------------------------


def core_agent(fleet: FleetSpec, core: CoreFacts) -> tuple[ServerSpec, ServerFacts] | None:
    """The agent in Core's own Compose project as a server like any other. None: the project has none.

    The survey of Core found it, so the fleet file does not name it.
    """
    if core.agent is None or core.project is None:
        return None
    pin = next((e for e in core.edits if e.with_key), None)
    older = core.agent.version not in ("", fleet.target)
    facts = ServerFacts(
        name=core.agent_name,
        install=Install.CONTAINER,
        reachable=True,
        current=core.current and not older and not (core.public_key and pin),
        version=core.agent.version,
        container=ContainerFacts(
            in_core_project=True,
            project=core.project,
            service=core.agent,
            pin=pin,
            services=tuple(s.service for s in (core.core, core.agent) if s and s.service),
        ),
    )
    return ServerSpec(name=core.agent_name, host=fleet.core.host, install=AgentInstall.CONTAINER), facts


def with_core_agent(fleet: FleetSpec, core: CoreFacts) -> FleetSpec:
    """The fleet with the agent in Core's own project among its servers. Idempotent."""
    found = core_agent(fleet, core)
    if found is None or any(s.name == found[0].name for s in fleet.servers):
        return fleet
    return replace(fleet, servers=(*fleet.servers, found[0]))


# --- comparisons ------------------------------------------------------------------------------------------------------


def all_current(plan: Plan) -> bool:
    """True if there is nothing to upgrade."""
    return plan.core.current and not plan.waves and not plan.with_core


def server_differs(old: ServerFacts, new: ServerFacts) -> bool:
    """True if what was backed up and staged for `old` does not fit `new`."""
    return _bound(old) != _bound(new)


def core_differs(old: CoreFacts, new: CoreFacts) -> bool:
    """The same for Core."""
    images = [[_image(s) for s in (c.core, c.agent) if s] for c in (old, new)]
    return images[0] != images[1] or old.version != new.version or _edits(old.edits) != _edits(new.edits)


def _image(facts: ServiceFacts) -> tuple[str, ...]:
    return facts.image, facts.image_id, facts.target_image, facts.target_digest


def _bound(facts: ServerFacts) -> tuple[object, ...]:
    image = (facts.container.service.container, *_image(facts.container.service)) if facts.container else ()
    artifacts = facts.binary_sha256, facts.artifact_sha256, image
    return (facts.version, facts.binary, *artifacts, facts.config_paths, _edits(facts.edits))


def _edits(edits: tuple[PlannedEdit, ...]) -> list[tuple[str, str, str]]:
    return [(e.path, e.base_sha256, e.result_sha256) for e in edits]


# --- excerpts: inputs of activities and children stay small and do not grow with the fleet ----------------------------


def server_without_diffs(facts: ServerFacts) -> ServerFacts:
    """Drop the diffs: activities compute each edit again, and 8 KiB per step and server would fill the history."""
    return replace(facts, edits=tuple(replace(e, diff="", hunks=()) for e in facts.edits), repin=())


def core_without_diffs(facts: CoreFacts) -> CoreFacts:
    """The same for Core."""
    return replace(facts, edits=tuple(replace(e, diff="", hunks=()) for e in facts.edits))


def plan_without_diffs(plan: Plan) -> Plan:
    """The same for a whole plan. Its digest does not depend on diffs."""
    return replace(
        plan, core=core_without_diffs(plan.core), servers=tuple(server_without_diffs(s) for s in plan.servers)
    )


def server_step(fleet: FleetSpec, plan: Plan, op: Operation) -> ServerStep:
    """Input of a step on the server that the operation names, or the basis of one."""
    return ServerStep(
        op=op,
        server=fleet.server(op.target),
        facts=server_without_diffs(plan.server(op.target)),
        target=fleet.target,
        agent=fleet.agent,
        timing=fleet.timing,
    )


def fleet_for_server(fleet: FleetSpec, name: str) -> FleetSpec:
    """The fleet with this server alone."""
    return replace(fleet, servers=(fleet.server(name),))


def core_for_server(core: CoreFacts, name: str) -> CoreFacts:
    """What a proof of this server needs to know about Core."""
    known = tuple(s for s in core.servers if s.name == name)
    return replace(core, servers=known, edits=(), findings=(), sources=())


def core_access(spec: CoreSpec, core: CoreFacts, facts: ServerFacts) -> CoreRef | None:
    """For a server that is to connect to Core; None: nothing is changed in Core for it."""
    return CoreRef(spec=spec, facts=core_for_server(core, facts.name)) if facts.connect_to else None


def plan_for_server(plan: Plan, name: str) -> Plan:
    """The plan with this server alone. It keeps the digest of the whole plan."""
    facts = (server_without_diffs(plan.server(name)),)
    core = core_for_server(plan.core, name)
    return replace(plan, core=core, servers=facts, waves=(), commands=(), rollback_steps=())
