"""What people read: the plan in words, and at every gate what an informed person needs. Pure text, no rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.facts import Backup, DumpFacts, Finding, PlannedEdit
    from model.fleet import TOGETHER, FleetSpec
    from model.plan import Plan, Wave
    from model.progress import RollbackRequest, ServerOutcome, ServerState
    from model.steps import KEEP, Operation

_MOST_LINES = 12
"""Of one kind at a gate; the plan and the report have them all."""
_CORE_RESTART = timedelta(minutes=1)
_PER_WAVE = timedelta(minutes=1)


# --- the plan ---------------------------------------------------------------------------------------------------------


def commands(fleet: FleetSpec, plan: Plan) -> tuple[str, ...]:
    """What will be done, in order."""
    lines = [] if plan.core.current else list(_core_commands(plan))
    for wave in plan.waves:
        name = wave_name(plan, wave)
        for server in wave.servers:
            facts = plan.server(server)
            config = ", ".join(e.path for e in facts.edits) or "no config file changes"
            timer = fleet.server(server).dead_man
            then = f"; it puts itself back after {timer} unless Core logs in" if timer else ""
            lines.append(f"{name}: {server}: write {config}; replace {facts.binary}; restart {facts.unit}{then}")
    if fleet.restart_stack:
        lines.append(f"at the end: restart the stack {fleet.restart_stack}, the end-to-end check you named")
    return tuple(lines)


def _core_commands(plan: Plan) -> Iterable[str]:
    core, project = plan.core, plan.core.project
    compose = " ".join((*project.command, "-p", project.name)) if project else "docker compose"
    service = core.core.service if core.core else "core"
    image = core.core.target_image if core.core else ""
    if plan.mode == TOGETHER and not core.public_key:
        place = f"{core.keys_dir}/core.key"
        yield f"core, while v1 still runs: km key generate by {image}; the private part stays on this host, for {place}"
    yield f"core: {compose} stop {service}"
    by_km = core.database and not core.database.has_mongodump
    tool = "km database backup, in a container of Core's own image" if by_km else "mongodump"
    yield f"core: {tool}, the final dump of the now quiet database"
    yield f"core: write {_paths(core.edits)}"
    yield f"core: {compose} up -d --no-deps {service} ({image})"
    if core.agent:
        yield f"core: {compose} up -d --no-deps {core.agent.service} with Core's public key"


def wave_name(plan: Plan, wave: Wave) -> str:
    """What people call it."""
    if plan.mode == TOGETHER:
        return "all together" if plan.core.current else "with Core"
    return "canary" if wave.number == 1 else f"wave {wave.number}"


def _paths(edits: tuple[PlannedEdit, ...]) -> str:
    return ", ".join(dict.fromkeys(e.path for e in edits)) or "nothing"


def way_back(fleet: FleetSpec, plan: Plan, change: str) -> tuple[str, ...]:
    """How all of it is undone, by the tool and by hand."""
    op = Operation(change=change, fleet=fleet.name, target="core")
    data = "take the database to v1's form (what was written since is kept)"
    if fleet.database.rollback != KEEP:
        data = "restore the final dump"
    lines = [f"komodo-upgrade rollback: stop Core, {data}, v1 Core, then every agent in parallel"]
    if not plan.core.current:
        folder = op.folder(fleet.core.host.state_dir)
        lines.append(f"by hand on {fleet.core.host.address}: sh {folder}/restore.sh (first with --dry-run)")
    lines += [
        f"by hand on {spec.host.address} ({name}): sh {op.folder(spec.host.state_dir)}/restore.sh"
        for name in (n for w in plan.waves for n in w.servers)
        for spec in (fleet.server(name),)
    ]
    return tuple(lines)


# --- gates ------------------------------------------------------------------------------------------------------------


def core_facts(
    fleet: FleetSpec,
    plan: Plan,
    *,
    now: datetime,
    dump: DumpFacts | None,
    backup: Backup | None,
    skipped: dict[str, str],
    since: Iterable[str] = (),
    key: str = "",
) -> tuple[str, ...]:
    """Gate `core`. `since`: what changed since it was asked last; `skipped`: left on v1 by a decision, and why.

    `key`: Core's public key, where it was made beforehand.
    """
    waiting = [n for w in plan.waves for n in w.servers]
    lines = [*since, f"plan {plan.digest}: Core {plan.core.version or '(version unknown)'} -> {plan.target}"]
    lines.append(dump_line(dump, now) if dump else "there is NO dump of the database")
    lines += [f"dump: {note}" for note in (dump.proof.notes if dump and dump.proof else ())]
    lines += _some(f"warning: {f.subject}: {f.text}" for f in plan.warnings)
    lines += [f"left on v1, unreachable from Core afterwards: {n}" + _why(skipped.get(n)) for n in plan.left_behind]
    lines += offline_lines(fleet, plan)
    lines.append(minutes_line(plan, dump))
    lines.append(f"way back: {plan.way_back[0]}")
    if backup:
        lines.append(f"way back by hand on {fleet.core.host.address}: {backup.restore_command}")
        lines += _some(f"backup: {note}" for note in backup.notes)
        lines.append(f"the only dump lies on Core's disk, in {backup.folder}")
    if waiting:
        lines.append(
            f"from now on {_servers(len(waiting))} unmanaged until upgraded: no deploys, schedules, webhooks, stats; "
            "alerts will fire; containers keep running"
        )
        lines += _with_this_approval(plan, key)
    return tuple(lines)


def _with_this_approval(plan: Plan, key: str) -> list[str]:
    names = ", ".join(plan.waves[0].servers)
    if plan.mode != TOGETHER:
        return [f"with this approval follow at once, as canary: {names}"]
    return [
        f"with this approval all are switched together with Core, without a canary: {names}",
        f"every agent is staged, and pins the key that Core will have: {key}",
        "an agent that does not start goes back to v1 by itself and is asked about; rollback undoes the whole",
    ]


def offline_lines(fleet: FleetSpec, plan: Plan) -> tuple[str, ...]:
    """Who is away, and what becomes of them."""
    if not plan.offline:
        return ()
    rollout, names = fleet.rollout, ", ".join(plan.offline)
    if rollout.offline == "leave":
        then = "looked at once more after the others, then left on v1, unreachable from Core"
    else:
        then = f"looked at again after the others, every {rollout.offline_look}, for {rollout.offline_for} at most"
    return (f"offline, nothing is planned for them yet: {names}: {then}; each returns through a gate of its own",)


def returned_facts(plan: Plan, name: str, away: str, *, new: bool) -> tuple[str, ...]:
    """The gate of a server that was away: its own plan where it had none before."""
    facts = plan.server(name)
    lines = [f"it was set aside: {away.splitlines()[0]}"]
    if new:
        lines.append(f"plan {plan.digest}: {name} {facts.version or '(version unknown)'} -> {plan.target}")
        lines += _some(f"warning: {f.text}" for f in facts.findings)
        for edit in facts.edits:
            lines.append(f"writes {edit.path}: {'; '.join(edit.reasons) or 'see the plan'}")
            lines += _some(f"  {line}" for line in edit.diff.splitlines() if not line.startswith(("---", "+++")))
        lines.append(f"replaces {facts.binary}; restarts {facts.unit}; its files are saved and its binary staged first")
    else:
        lines.append("it is as it was planned, saved and staged")
    lines.append("skip: leave it on v1, unreachable from Core")
    return tuple(lines)


def dump_line(dump: DumpFacts, now: datetime) -> str:
    """Age and verdict of a dump."""
    age = max(int((now - dump.taken_at).total_seconds() // 60), 0)
    proven = f"proven by a restore in {dump.proof.seconds:.0f} s" if dump.proof else "counted, NOT proven by a restore"
    return (
        f"dump `{dump.label}`, {age} min old, {proven}: {dump.documents} documents "
        f"in {len(dump.collections)} collections, {size(dump.bytes)}, took {dump.seconds:.0f} s: {dump.path}"
    )


def minutes_line(plan: Plan, dump: DumpFacts | None) -> str:
    """What it costs, from what was measured."""
    away = _CORE_RESTART + timedelta(seconds=dump.seconds if dump else 0)
    if plan.mode == TOGETHER:
        return f"about {_minutes(away)} without Core, and all servers at once with it"
    whole = away + len(plan.waves) * _PER_WAVE
    return (
        f"about {_minutes(away)} without Core, about {_minutes(whole)} for all {len(plan.waves)} waves, "
        "and the time people take at gates"
    )


def wave_facts(plan: Plan, wave: Wave, outcomes: dict[str, ServerOutcome], dark: tuple[str, ...]) -> tuple[str, ...]:
    """Gate `wave/N`: the last wave's proofs, the next names, how many are still dark."""
    before = next((w for w in plan.waves if w.number == wave.number - 1), None)
    lines = [outcome_line(outcomes[n]) for n in (before.servers if before else ()) if n in outcomes]
    bad = [o for o in outcomes.values() if o.state is not ServerState.UPGRADED and o.name not in plan.left_behind]
    lines += _some(outcome_line(o) for o in bad if before is None or o.name not in before.servers)
    lines.append(f"next: {', '.join(wave.servers)}")
    lines.append(f"still dark: {_servers(len(dark))} without Core until upgraded")
    return tuple(lines)


def continue_facts(fleet: FleetSpec, plan: Plan, wave: Wave, skipped: dict[str, str]) -> tuple[str, ...]:
    """Gate `wave/1` of a run that finds Core on the target already."""
    lines = [f"plan {plan.digest}: Core is on {plan.core.version} already, its steps are left out"]
    lines += _some(f"warning: {f.subject}: {f.text}" for f in plan.warnings)
    lines += [f"stays on v1: {n}" + _why(skipped.get(n)) for n in plan.left_behind]
    lines += offline_lines(fleet, plan)
    lines.append(f"next: {', '.join(wave.servers) or 'the agent in Core’s project'}")
    lines.append("the way back of this run: these servers only; Core belongs to the run that upgraded it")
    return tuple(lines)


def failure_facts(outcome: ServerOutcome) -> tuple[str, ...]:
    """Gate `failure/<server>/<attempt>` after its switch was tried."""
    lines = [outcome_line(outcome)]
    if outcome.state is ServerState.UNPROVEN:
        lines.append("v2 runs there with its config, and stays: a v1 agent cannot talk to v2 Core anyway")
        lines.append("retry: stage, restart, prove again; rollback: v1 there, unreachable from Core; skip: leave it so")
    else:
        lines.append("retry: look at it again and try again; rollback: run its restore.sh once more; skip: leave it so")
    if outcome.state is ServerState.UNPROVEN and outcome.switched and outcome.switched.puts_itself_back_at:
        at = outcome.switched.puts_itself_back_at
        lines.append(f"dead-man timer: unless Core logs in to it, it puts itself back at {at:%Y-%m-%d %H:%M:%S} UTC")
    if outcome.backup:
        lines.append(f"by hand on it: {outcome.backup.restore_command}")
    return tuple(lines)


def rollback_facts(
    request: RollbackRequest, *, now: datetime, unreachable: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Gate `rollback`: servers, versions, the database's way, what is lost, minutes, what stays as it is."""
    target, old = request.fleet.target, request.plan.core.version
    runs = tuple(dict.fromkeys((request.change, *request.changes)))
    of = f"undone: the upgrade {', '.join(runs)}"
    core = f"back to Core {old} from {target}" if request.core else _servers_only(request)
    lines = [f"plan {request.plan.digest}: {core}", of]
    lines.append(f"agents put back, all at once: {_agents(request)}")
    if request.dump and request.database == "keep":
        lines.append(
            "kept: what was written to Komodo since the upgrade; the v2 database is dumped first, as `pre_rollback`, "
            "then taken to v1's form (km database v1-downgrade)"
        )
        lines.append(
            "LOST: Updates and alerts that v1 cannot read, and what v2 keeps of servers (their keys); Procedures and "
            "Stacks that were edited in v2 may use what v1 does not know"
        )
    elif request.dump:
        lines.append(
            f"LOST: everything written to Komodo since {request.dump.taken_at:%Y-%m-%d %H:%M:%S} UTC "
            f"({_minutes(now - request.dump.taken_at)} ago); the v2 database is dumped first, as `pre_rollback`"
        )
        lines.append(f"restored: {dump_line(request.dump, now)}")
    else:
        lines.append("nothing is lost: the database is not touched")
    lines += _some(
        f"cannot be reached now, and is put back once it can be: {n}: {text}" for n, text in (unreachable or {}).items()
    )
    lines += _some(f"NOT put back: {one.name}: {one.why}" for one in request.left if not one.harmless)
    lines += _some(f"stays: {one.name}: {one.why}" for one in request.left if one.harmless)
    lines.append(f"about {_minutes(rollback_time(request))}; a rollback once begun is finished")
    return tuple(lines)


def rollback_time(request: RollbackRequest) -> timedelta:
    """How long a rollback takes, from what was measured."""
    core = _CORE_RESTART * 2 + timedelta(seconds=4 * request.dump.seconds if request.dump else 0)
    return core if request.core else _CORE_RESTART


def _agents(request: RollbackRequest) -> str:
    versions = {s.name: s.version for s in request.plan.servers}
    names = ", ".join(f"{n} {versions[n]}" if versions.get(n) else n for n in request.servers)
    return f"{len(request.servers)} ({names or 'none'})"


def _servers_only(request: RollbackRequest) -> str:
    if request.core_is_back:
        return f"Core runs {request.plan.core.version} already; these servers follow, and it has to see them again"
    return (
        f"Core stays as it is; the servers go back alone and are then unreachable from Core {request.fleet.target}: "
        "no deploys, schedules, webhooks, stats; their containers keep running"
    )


def lost_line(dump: DumpFacts | None) -> str:
    """What the verdict `rollback` at a failure gate of Core means."""
    if dump is None:
        return "rollback: Core's v1 files and v1 Core again; the database is not touched"
    return (
        "rollback: v1 Core again with the final dump restored; LOST is everything written to Komodo "
        f"since {dump.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    )


# --- small words ------------------------------------------------------------------------------------------------------


def outcome_line(outcome: ServerOutcome) -> str:
    """One server in one line: what it is, and by what proof."""
    proof = outcome.proof
    said = (proof.line or "seen by Core") if proof else outcome.detail
    return f"{outcome.name}: {outcome.state}" + (f": {said}" if said else "")


def finding_lines(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Findings with their cures."""
    return tuple(f"{f.subject}: {f.text}" + (f" — {f.cure}" if f.cure else "") for f in findings)


def size(count: int) -> str:
    """Bytes for people."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _servers(count: int) -> str:
    return "1 server is" if count == 1 else f"{count} servers are"


def _minutes(time: timedelta) -> str:
    return f"{max(1, round(time.total_seconds() / 60))} min"


def _why(text: str | None) -> str:
    return f" ({text})" if text else ""


def _some(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = len(every) - _MOST_LINES
    return every if more <= 0 else [*every[:_MOST_LINES], f"… and {more} more, in the plan"]
