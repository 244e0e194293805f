"""The texts of gates: the facts for each decision. Pure text, no rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from temporalio import workflow

from model.facts import Backup, DumpFacts, Finding
from model.fleet.spec import CoreFiles, DatabaseRollback, FleetSpec, OfflinePolicy, RolloutMode
from model.gates import WARNINGS, Gate, GateKind, Verdict
from model.plan import Plan, Wave
from model.status import FleetResult, RollbackRequest, ServerOutcome, ServerState
from model.text.outside import single_line
from model.text.plan import artifact_lines, switch_words
from model.text.versions import cut_off, old_name

_MOST_LINES = 12
"""Of one kind at a gate; the plan and the report have all of them."""
_CORE_RESTART = timedelta(minutes=1)
_PER_WAVE = timedelta(minutes=1)
_NAMED = (ServerState.LEFT_ON_V1, ServerState.UNVERIFIED, ServerState.ROLLBACK_INCOMPLETE)
"""States of servers that the notice of the end names."""


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
) -> dict[str, list[str]]:
    """Facts of gate `core`, by topic, in the order in which a person needs them.

    `since`: what changed since the gate was last open; `skipped`: servers left on the old version by a decision, and
    why; `key`: Core's public key, if it was created in advance.
    """
    waiting = [n for w in plan.waves for n in w.servers]
    happens = [*since, f"plan {plan.digest}: Core {plan.core.version or '(version unknown)'} -> {plan.target}"]
    happens += _with_this_approval(plan, key) if waiting else []
    happens.append(minutes_line(plan, dump))
    if fleet.core.files == CoreFiles.EXTERNAL:
        happens.append(f"first, others edit {_edited(plan)} with the patch of `plan --patch`, and do not start Core")
    if fleet.rollout.window:
        happens.append(f"Core and each wave begin only in the maintenance window: {', '.join(fleet.rollout.window)}")
    away = cut_off(plan.old, ", unreachable from Core afterwards")
    risks = [] if dump else ["there is NO dump of the database"]
    risks += [_meanwhile(plan, len(waiting))] if waiting else []
    risks += [f"left on {plan.old}{away}: {n}" + _why(skipped.get(n)) for n in plan.left_behind]
    risks += not_in_run_lines(plan)
    risks += offline_lines(fleet, plan)
    back = [f"rollback: {plan.rollback_steps[0]}"]
    if backup:
        back.append(f"rollback by hand on {fleet.core.host.address}: {backup.restore_command}")
        back += _some(f"backup: {note}" for note in backup.notes)
        back.append(f"the only dump is on Core's disk, in {backup.folder}")
    back += [dump_line(dump, now)] if dump else []
    back += [f"dump: {note}" for note in (dump.proof.notes if dump and dump.proof else ())]
    return {
        "What happens next": happens,
        "What is at risk": risks,
        WARNINGS: _some(f"warning: {f.subject}: {f.text}" for f in plan.warnings),
        "How to go back": back,
        "What is installed": list(artifact_lines(plan)),
    }


def not_in_run_lines(plan: Plan) -> list[str]:
    """The servers that `--limit` leaves out, on one line."""
    if not plan.not_in_run:
        return []
    away = cut_off(plan.old, f"; those on {plan.old} are unreachable from Core until a later run")
    return [f"{_servers(len(plan.not_in_run))} not in this run (--limit): {', '.join(plan.not_in_run)}{away}"]


def others_of_fleet(plan: Plan | None) -> str:
    """For the end of a sentence about the whole fleet."""
    return f"; not in this run: {', '.join(plan.not_in_run)}" if plan and plan.not_in_run else ""


def _edited(plan: Plan) -> str:
    return ", ".join(dict.fromkeys(edit.path for edit in plan.core.edits)) or "nothing"


def _meanwhile(plan: Plan, waiting: int) -> str:
    """What Core can do with the servers between its own upgrade and theirs."""
    return cut_off(
        plan.old,
        f"{_servers(waiting)} unmanaged until upgraded: no deploys, schedules, webhooks, stats; "
        "alerts will fire; containers keep running",
    ) or (
        f"{_servers(waiting)} on {plan.old} until upgraded: Core {plan.target} reaches them, but what is new in it may "
        "fail there"
    )


def _with_this_approval(plan: Plan, key: str) -> list[str]:
    names = ", ".join(plan.waves[0].servers)
    if plan.mode != RolloutMode.ALL_AT_ONCE:
        return [f"this approval includes the canary: {names}"]
    return [
        f"this approval switches all agents with Core, without a canary: {names}",
        f"every agent is staged and pins the key that Core will have: {key}",
        f"an agent that does not start is restored to {plan.old} and opens a gate; rollback undoes the whole upgrade",
    ]


def offline_lines(fleet: FleetSpec, plan: Plan) -> tuple[str, ...]:
    """Servers that are offline, and what happens to them."""
    if not plan.offline:
        return ()
    rollout, names = fleet.rollout, ", ".join(plan.offline)
    if rollout.offline == OfflinePolicy.LEAVE:
        away = cut_off(plan.old, ", unreachable from Core")
        then = f"checked once more after the others, then left on {plan.old}{away}"
    else:
        then = f"checked again after the others, every {rollout.offline_check}, for {rollout.offline_for} at most"
    return (f"offline, not planned yet: {names}: {then}; each that returns has a gate of its own",)


def returned_facts(plan: Plan, name: str, away: str, *, new: bool) -> tuple[str, ...]:
    """Facts of the gate of a server that was offline: its own plan, if it had none before."""
    facts = plan.server(name)
    lines = [f"it was set aside: {away.splitlines()[0]}"]
    if new:
        lines.append(f"plan {plan.digest}: {name} {facts.version or '(version unknown)'} -> {plan.target}")
        lines += _some(f"warning: {f.text}" for f in facts.findings)
        for edit in facts.edits:
            lines.append(f"writes {edit.path}: {'; '.join(edit.reasons) or 'see the plan'}")
            lines += _some(f"  {line}" for line in edit.diff.splitlines() if not line.startswith(("---", "+++")))
        lines.append(f"then: {switch_words(facts)}; it is backed up and staged first")
    else:
        lines.append("it has not changed since it was planned, backed up and staged")
    lines.append(f"skip: leave it on {old_name(facts.version)}{cut_off(facts.version, ', unreachable from Core')}")
    return tuple(lines)


def dump_line(dump: DumpFacts, now: datetime) -> str:
    """Age and proof of a dump."""
    age = max(int((now - dump.taken_at).total_seconds() // 60), 0)
    proven = f"proven by a restore in {dump.proof.seconds:.0f} s" if dump.proof else "counted, NOT proven by a restore"
    return (
        f"dump `{dump.label}`, {age} min old, {proven}: {dump.documents} documents "
        f"in {len(dump.collections)} collections, {size(dump.bytes)}, took {dump.seconds:.0f} s: {dump.path}"
    )


def minutes_line(plan: Plan, dump: DumpFacts | None) -> str:
    """How long it takes, from measured times."""
    away = _CORE_RESTART + timedelta(seconds=dump.seconds if dump else 0)
    if plan.mode == RolloutMode.ALL_AT_ONCE:
        return f"about {_minutes(away)} without Core; all servers are switched during that time"
    whole = away + len(plan.waves) * _PER_WAVE
    return (
        f"about {_minutes(away)} without Core, about {_minutes(whole)} for all {len(plan.waves)} waves, "
        "and the time at gates"
    )


def wave_facts(plan: Plan, wave: Wave, outcomes: dict[str, ServerOutcome], unmanaged: int) -> tuple[str, ...]:
    """Facts of gate `wave/N`: outcomes of the last wave, the next servers, how many are unmanaged."""
    before = next((w for w in plan.waves if w.number == wave.number - 1), None)
    lines = [outcome_line(outcomes[n]) for n in (before.servers if before else ()) if n in outcomes]
    bad = [o for o in outcomes.values() if o.state is not ServerState.UPGRADED and o.name not in plan.left_behind]
    lines += _some(outcome_line(o) for o in bad if before is None or o.name not in before.servers)
    lines.append(f"next: {', '.join(wave.servers)}")
    state = cut_off(plan.old, "unmanaged") or f"on {plan.old}"
    lines.append(f"{_servers(unmanaged)} still {state} until upgraded")
    return tuple(lines)


def continue_facts(fleet: FleetSpec, plan: Plan, wave: Wave, skipped: dict[str, str]) -> tuple[str, ...]:
    """Facts of gate `wave/1` of a run that finds Core on the target."""
    lines = [f"plan {plan.digest}: Core is on {plan.core.version} already, so its steps are omitted"]
    lines += _some(f"warning: {f.subject}: {f.text}" for f in plan.warnings)
    lines += [f"stays on {plan.old}: {n}" + _why(skipped.get(n)) for n in plan.left_behind]
    lines += not_in_run_lines(plan)
    lines += offline_lines(fleet, plan)
    lines.append(f"next: {', '.join((*plan.with_core, *wave.servers))}")
    lines.append(
        "a rollback also takes back Core and the servers of earlier runs, as far as their run folders allow; "
        "else these servers only"
    )
    return tuple(lines)


def failure_facts(outcome: ServerOutcome) -> tuple[str, ...]:
    """Facts of gate `failure/<server>/<attempt>` after the switch."""
    lines = [outcome_line(outcome)]
    if outcome.state is ServerState.UNVERIFIED:
        old, away = old_name(outcome.version_before), cut_off(outcome.version_before, " (unreachable then)")
        why = cut_off(outcome.version_before, ": a v1 agent cannot talk to v2 Core")
        lines.append(f"the new version runs there with its config and stays{why}")
        lines.append(
            f"retry: stage, restart and verify again; rollback: restore {old}{away}; skip: leave it on the new version"
        )
    else:
        lines.append("retry: survey it and try again; rollback: run its restore.sh again; skip: leave it as it is")
    if outcome.state is ServerState.UNVERIFIED and outcome.switched and outcome.switched.auto_rollback_at:
        at = outcome.switched.auto_rollback_at
        old = old_name(outcome.version_before)
        lines.append(f"automatic rollback: unless Core logs in, the host restores {old} at {at:%Y-%m-%d %H:%M:%S} UTC")
    if outcome.backup:
        lines.append(f"by hand on the server: {outcome.backup.restore_command}")
    return tuple(lines)


def rollback_gate(
    request: RollbackRequest,
    gate_id: str,
    *,
    unreachable: Mapping[str, str] | None = None,
    losses: tuple[str, ...] = (),
) -> Gate:
    """The only gate whose approval may cost data. Opened by a running upgrade and by a rollback on its own."""
    return Gate(
        id=gate_id,
        kind=GateKind.ROLLBACK,
        question=f"Roll {request.fleet.name} back?",
        facts=rollback_facts(request, now=workflow.now(), unreachable=unreachable, losses=losses),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=request.plan.digest,
        confirm=request.fleet.name,
        subject="fleet",
    )


def rollback_facts(
    request: RollbackRequest,
    *,
    now: datetime,
    unreachable: Mapping[str, str] | None = None,
    losses: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Facts of gate `rollback`: servers, versions, the database, what is lost, minutes, what is not restored.

    `losses`: what v1 cannot read of a database that is kept.
    """
    target, old = request.fleet.target, request.plan.core.version
    runs = tuple(dict.fromkeys((request.change, *request.changes)))
    core = f"back to Core {old} from {target}" if request.core else _servers_only(request)
    lines = [f"plan {request.plan.digest}: {core}", f"it undoes the upgrade {', '.join(runs)}"]
    lines.append(f"agents to restore, all at once: {_agents(request)}")
    if request.dump and request.database == DatabaseRollback.KEEP:
        lines.append(
            "kept: what was written to Komodo since the upgrade; the v2 database is dumped first, as `pre_rollback`, "
            "then converted to v1's form (km database v1-downgrade)"
        )
        lines.append("LOST: Updates and alerts that v1 cannot read, and what v2 keeps of servers (their keys)")
        lines += [f"LOST: {loss}" for loss in losses]
    elif request.dump:
        lines.append(
            f"LOST: everything written to Komodo since {request.dump.taken_at:%Y-%m-%d %H:%M:%S} UTC "
            f"({_minutes(now - request.dump.taken_at)} ago); the new version's database is dumped first, as "
            "`pre_rollback`"
        )
        lines.append(f"restored: {dump_line(request.dump, now)}")
    else:
        lines.append("nothing is lost: the database is not touched")
    lines += _some(
        f"unreachable, will be restored once it can be reached: {n}: {text}" for n, text in (unreachable or {}).items()
    )
    lines += _some(f"NOT restored: {one.name}: {one.why}" for one in request.not_restored if not one.harmless)
    lines += _some(f"not changed: {one.name}: {one.why}" for one in request.not_restored if one.harmless)
    lines.append(f"about {_minutes(rollback_time(request))}; a rollback that has begun is finished")
    return tuple(lines)


def rollback_time(request: RollbackRequest) -> timedelta:
    """How long a rollback takes, from measured times."""
    core = _CORE_RESTART * 2 + timedelta(seconds=4 * request.dump.seconds if request.dump else 0)
    return core if request.core else _CORE_RESTART


def _agents(request: RollbackRequest) -> str:
    versions = {s.name: s.version for s in request.plan.servers}
    names = ", ".join(f"{n} {versions[n]}" if versions.get(n) else n for n in request.servers)
    return f"{len(request.servers)} ({names or 'none'})"


def _servers_only(request: RollbackRequest) -> str:
    if request.core_is_back:
        return f"Core runs {request.plan.core.version} already; these servers follow, and Core has to reach them again"
    away = cut_off(
        (s.version for s in request.plan.servers if s.name in request.servers),
        f"; the restored servers are then unreachable from Core {request.fleet.target}: "
        "no deploys, schedules, webhooks, stats; their containers keep running",
    )
    return f"Core stays as it is{away}"


def lost_line(dump: DumpFacts | None, old: str) -> str:
    """Describe the verdict `rollback` at a failure gate of Core. `old`: the version before."""
    if dump is None:
        return f"rollback: restore the files of Core {old} and start it; the database is not touched"
    return (
        f"rollback: restore Core {old} and the final dump; LOST: everything written to Komodo "
        f"since {dump.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    )


# --- lines ------------------------------------------------------------------------------------------------------------


def outcome_line(outcome: ServerOutcome) -> str:
    """The state of a server and its proof, in one line."""
    proof = outcome.proof
    detail = (proof.line or "seen by Core") if proof else outcome.detail
    return f"{outcome.name}: {outcome.state}" + (f": {detail}" if detail else "")


def finding_lines(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Findings with their hints."""
    return tuple(f"{f.subject}: {f.text}" + (f" — {f.hint}" if f.hint else "") for f in findings)


def size(count: int) -> str:
    """A number of bytes in a readable unit."""
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


def end_notice(result: FleetResult) -> tuple[str, str]:
    """Subject and text of the notice that a run has ended."""
    states = Counter(outcome.state.value for outcome in result.servers)
    lines = [result.detail, f"servers: {', '.join(f'{n} {state}' for state, n in states.items()) or 'none'}"]
    lines += [f"{o.name}: {o.state}: {single_line(o.detail, 300)}" for o in result.servers if o.state in _NAMED][:20]
    if result.warnings:
        lines.append(f"warnings: {len(result.warnings)}")
    lines.append(f"komodo-upgrade report {result.fleet}")
    return f"{result.fleet} to {result.target}: {result.state}", "\n".join(line for line in lines if line)
