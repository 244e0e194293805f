"""The plan in words: what will be done, in order, and how it is undone."""

from __future__ import annotations

from collections.abc import Iterable

from model.facts import PlannedEdit, ServerFacts
from model.fleet.spec import CoreFiles, DatabaseRollback, FleetSpec, RolloutMode
from model.plan import Plan, Wave
from model.steps import Operation


def commands(fleet: FleetSpec, plan: Plan) -> tuple[str, ...]:
    """What will be done, in order."""
    external = fleet.core.files == CoreFiles.EXTERNAL
    lines = [] if plan.core.current else list(_core_commands(plan, "expect" if external else "write"))
    for wave in plan.waves:
        name = wave_name(plan, wave)
        for server in wave.servers:
            facts = plan.server(server)
            write = f"write {_paths(facts.edits)}; " if facts.edits else ""
            if facts.connect_to:
                write += f"at the end core_addresses and connect_as for {facts.connect_to}; "
            timer = fleet.server(server).auto_rollback
            then = f"; the host restores it after {timer} unless Core logs in" if timer else ""
            lines.append(f"{name}: {server}: {write}{switch_words(facts)}{then}")
    if fleet.soak:
        lines.append(f"after each wave: its servers are watched for {fleet.soak} before the next one begins")
    if fleet.restart_stack:
        lines.append(f"at the end: restart the stack {fleet.restart_stack}, the end-to-end check you named")
    return tuple(lines)


def switch_words(facts: ServerFacts) -> str:
    """What replaces the old version of an agent."""
    if facts.container is None:
        return f"replace {facts.binary}; restart {facts.unit}"
    project, service = facts.container.project, facts.container.service
    compose = " ".join((*project.command, "-p", project.name))
    return f"{compose} up -d --no-deps {service.service} ({service.target_image})"


def artifact_lines(plan: Plan) -> tuple[str, ...]:
    """Which images and which agent binaries are installed: a line for each image and for each architecture."""
    return (*_image_lines(plan), *_binary_lines(plan))


def _image_lines(plan: Plan) -> Iterable[str]:
    servers = [plan.server(name) for name in (*plan.with_core, *(n for wave in plan.waves for n in wave.servers))]
    services = [plan.core.core] if plan.core.core and not plan.core.current else []
    services += [s.container.service for s in servers if s.container]
    for service in {s.target_image: s for s in services}.values():
        known = f"{service.target_digest}, {service.target_digest_source}"
        digest = known if service.target_digest else "digest unknown until it is pulled"
        yield f"image {service.target_image}: {digest}"
    database = plan.core.database
    if services and database and database.image_id:
        yield f"image {database.image}: {database.image_id}, the database's, which stays"


def _binary_lines(plan: Plan) -> Iterable[str]:
    servers = [plan.server(name) for wave in plan.waves for name in wave.servers]
    lines = [f"agent {plan.target} for {s.arch}: sha256 {s.artifact_sha256}, {s.artifact_source}" for s in servers]
    return tuple(dict.fromkeys(line for line, s in zip(lines, servers, strict=True) if s.artifact_sha256))


def _core_commands(plan: Plan, verb: str) -> Iterable[str]:
    core, project = plan.core, plan.core.project
    compose = " ".join((*project.command, "-p", project.name)) if project else "docker compose"
    service = core.core.service if core.core else "core"
    image = core.core.target_image if core.core else ""
    if plan.mode == RolloutMode.ALL_AT_ONCE and not core.public_key:
        path = f"{core.keys_dir}/core.key"
        yield f"core, while v1 still runs: km key generate by {image}; the private key stays on this host, for {path}"
    yield f"core: {compose} stop {service}"
    by_km = core.database and not core.database.has_mongodump
    tool = "km database backup, in a container of Core's own image" if by_km else "mongodump"
    yield f"core: {tool}, the final dump, with no Core running"
    yield from (
        f"core: copy the key pair inside of {s.container} to {s.keys_to}"
        for s in (core.core, core.agent)
        if s and s.keys_to
    )
    yield f"core: {verb} {_paths(core.edits)}"
    yield f"core: {compose} up -d --no-deps {service} ({image})"
    if core.agent:
        key = " with Core's public key" if any(e.with_key for e in core.edits) else ""
        yield f"core: {compose} up -d --no-deps {core.agent.service}{key} ({core.agent.target_image})"


def wave_name(plan: Plan, wave: Wave) -> str:
    """The name of a wave in the plan and at gates."""
    if plan.mode == RolloutMode.ALL_AT_ONCE:
        return "all at once" if plan.core.current else "with Core"
    return "canary" if wave.number == 1 else f"wave {wave.number}"


def _paths(edits: tuple[PlannedEdit, ...]) -> str:
    return ", ".join(dict.fromkeys(e.path for e in edits)) or "nothing"


def rollback_steps(fleet: FleetSpec, plan: Plan, change: str) -> tuple[str, ...]:
    """How everything is undone, by the tool and by hand."""
    op = Operation(change=change, fleet=fleet.name, target="core")
    data = "restore the final dump"
    if fleet.database.rollback == DatabaseRollback.KEEP:
        data = "convert the database to v1's form (what was written since is kept)"
    old = f"Core {plan.core.version}" if plan.core.version else "the old Core"
    lines = [f"komodo-upgrade rollback: stop Core, {data}, start {old}, then restore every agent in parallel"]
    if not plan.core.current:
        folder = op.folder(fleet.core.host.state_dir)
        lines.append(f"by hand on {fleet.core.host.address}: sh {folder}/restore.sh (first with --dry-run)")
    lines += [
        f"by hand on {spec.host.address} ({name}): sh {op.folder(spec.host.state_dir)}/restore.sh"
        for name in (n for w in plan.waves for n in w.servers)
        for spec in (fleet.server(name),)
    ]
    return tuple(lines)
