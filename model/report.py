"""The report of an upgrade: Markdown for people, JSON for scripts. Pure text out of a FleetResult."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from model.decisions import Recorded
from model.facts import Backup, DumpFacts, Finding
from model.plain import moment, plain, span, to_json
from model.plan import Plan
from model.progress import FleetResult, FleetState, ServerOutcome, ServerState
from model.watch import WatchReport
from model.watch_report import render_watch
from model.way_back import keepers_kept

KEEP_BACKUPS = timedelta(days=14)
"""How long backups should stay: long enough for a monthly job, a weekly schedule and a holiday to have run on v2."""

_HEADLINES = {
    FleetState.ALREADY_CURRENT: "already current: there was nothing to do",
    FleetState.UPGRADED: "upgraded",
    FleetState.INCOMPLETE: "incomplete: not every server is upgraded and proven",
    FleetState.REFUSED: "refused: nothing was changed",
    FleetState.STOPPED: "stopped",
    FleetState.ROLLED_BACK: "rolled back",
    FleetState.ROLLBACK_INCOMPLETE: "rollback incomplete: read what is missing below",
}
_CHANGED = (
    ServerState.UPGRADED,
    ServerState.UNPROVEN,
    ServerState.PARKED,
    ServerState.ROLLED_BACK,
    ServerState.ROLLBACK_INCOMPLETE,
    ServerState.LEFT_ON_V1,
)


def render_json(result: FleetResult, watch: WatchReport | None = None) -> str:
    """The whole result; diffs are left to the plan, whose digest is named."""
    more = {"watch": plain(watch)} if watch else {}
    return to_json({"report": 1, "result": plain(replace(result, plan=_light(result.plan))), **more})


def render_markdown(result: FleetResult, watch: WatchReport | None = None) -> str:
    """What was done, what proves it, how it is undone, and what to look at tomorrow."""
    sections = [
        _head(result),
        _table(result),
        *(_server(outcome, result) for outcome in _shown(result)),
        _core(result),
        _database(result),
        _list("Decisions", [_decision(d) for d in result.decisions] + [_control(c) for c in _controls(result)]),
        _list("Refused because of", [_finding(f) for f in result.refusals]),
        _list("Warnings", [_finding(f) for f in result.warnings]),
        _list("Not verified", list(_unverified(result))),
        _list("Tomorrow", list(_tomorrow(result))),
        _list("Backups", list(_backups(result))),
        render_watch(watch).rstrip() if watch else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


# --- sections ---------------------------------------------------------------------------------------------------------


def _head(result: FleetResult) -> str:
    took = span(result.ended_at - result.started_at)
    lines = [
        f"# Komodo {result.fleet}: {_HEADLINES[result.state]}",
        "",
        f"- target: {result.target}",
        f"- began {moment(result.started_at)}, ended {moment(result.ended_at)} ({took})",
        f"- change: {result.change}" + (f", plan {result.plan.digest}" if result.plan else ""),
    ]
    if result.detail:
        lines.append(f"- {result.detail}")
    return "\n".join(lines)


def _table(result: FleetResult) -> str:
    rows = ["| server | state | version | seconds dark |", "|---|---|---|---|"]
    before = result.plan.core.version if result.plan else ""
    dark = _seconds(result.core_dark)
    rows.append(f"| **Core** | {result.core_state.value} | {_versions(before, result.core_version)} | {dark} |")
    for outcome in _outcomes(result):
        dark = _seconds(outcome.proof.dark) if outcome.proof else ""
        versions = _versions(outcome.version_before, outcome.version_after)
        rows.append(f"| {_cell(outcome.name)} | {outcome.state.value} | {versions} | {dark} |")
    left = result.plan.left_behind if result.plan else ()
    rows += [f"| {_cell(name)} | {ServerState.LEFT_ON_V1.value} (on purpose) | | |" for name in left]
    return "\n".join(rows)


def _server(outcome: ServerOutcome, result: FleetResult) -> str:
    lines = [f"## {outcome.name}: {outcome.state.value}", ""]
    if outcome.detail:
        lines += [*outcome.detail.splitlines(), ""]
    if outcome.proof and outcome.proof.line:
        by = "Core and the agent's log" if outcome.proof.by_core else "the agent's log alone"
        lines.append(f"- proof ({by}, confirmed {moment(outcome.proof.confirmed_at)}): `{outcome.proof.line}`")
    if outcome.switched:
        lines += [f"- its own log: `{line}`" for line in outcome.switched.lines]
        lines.append(f"- port silent for {span(outcome.switched.port_silent)}")
    if outcome.pinned_key:
        lines.append(f"- pinned key: `{outcome.pinned_key}`")
    if outcome.proof and outcome.proof.dark:
        lines.append(f"- out of Core's sight for {span(outcome.proof.dark)}")
    if outcome.attempt > 1:
        lines.append(f"- attempts: {outcome.attempt}")
    lines += _way_back(outcome.backup, done=outcome.state is ServerState.ROLLED_BACK)
    check = check_command(outcome, result)
    if check:
        lines.append(f"- look yourself: `{check}`")
    return "\n".join(lines)


def _core(result: FleetResult) -> str:
    lines = [f"## Core: {result.core_state.value}", ""]
    if result.core_detail:
        lines += [*result.core_detail.splitlines(), ""]
    if result.key:
        lines.append(f"- public key: `{result.key.public_key}` (agreed by {', '.join(result.key.sources)})")
    lines += [_dump(dump) for dump in result.dumps]
    lines += _way_back(result.core_backup, done=result.core_state is ServerState.ROLLED_BACK)
    return "\n".join(lines) if len(lines) > 2 else ""


def check_command(outcome: ServerOutcome, result: FleetResult) -> str:
    """What a person types on that host to see the proof; empty where nothing was switched."""
    if not outcome.switched:
        return ""
    since = outcome.switched.started_at
    wanted = "'version:|Logged in|using Passkeys'"
    if result.core_agent is not None and outcome.name == result.core_agent.name:
        stamp = since.isoformat()
        return f"docker logs --since {stamp} {outcome.switched.invocation[:12]} 2>&1 | grep -E {wanted}"
    unit = "periphery"
    if result.plan:
        known = [facts for facts in result.plan.servers if facts.name == outcome.name]
        unit = known[0].unit.removesuffix(".service") if known and known[0].unit else unit
    return f"journalctl -u {shlex.quote(unit)} --since @{int(since.timestamp())} | grep -E {wanted}"


def _unverified(result: FleetResult) -> Iterator[str]:
    seen: dict[str, list[str]] = {}
    for outcome in _outcomes(result):
        for text in outcome.proof.unverified if outcome.proof else ():
            seen.setdefault(text, []).append(outcome.name)
    for text, names in seen.items():
        yield f"{text} ({', '.join(names)})"
    if (
        result.plan
        and not result.plan.core.api
        and result.state not in (FleetState.REFUSED, FleetState.ALREADY_CURRENT)
    ):
        yield (
            "Core's own view: no API key was given. Open Komodo's Servers page and look for every server in state Ok "
            f"with version {result.target}"
        )


def _tomorrow(result: FleetResult) -> Iterator[str]:
    if result.state not in (FleetState.UPGRADED, FleetState.INCOMPLETE, FleetState.STOPPED):
        return
    if result.core_state is not ServerState.UPGRADED:
        return
    yield "the automated backup of Core's database ran (Procedures, `Backup Core Database`)"
    yield "every Server is Ok and its stats move; schedules and webhooks ran as on other days"
    yield "no host collects zombies: `ps -eo stat | grep -c ^Z` stays near zero"
    yield "Actions and Procedures that people rely on ran once without error"
    pending = [o.name for o in _outcomes(result) if o.state not in (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)]
    if pending:
        yield f"still to do: {', '.join(pending)} (`komodo-upgrade start` goes on from here)"


def _backups(result: FleetResult) -> Iterator[str]:
    places = [("Core", result.core_backup), *((o.name, o.backup) for o in _outcomes(result))]
    # The agent in Core's project shares Core's folder: each folder is named once.
    folders: dict[tuple[str, str], Backup] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for name, backup in places:
        if backup:
            folders.setdefault((backup.host, backup.folder), backup)
            names.setdefault((backup.host, backup.folder), []).append(name)
    for place, backup in folders.items():
        label = ", ".join(names[place])
        yield f"{label}: `{backup.folder}` on {backup.host}"
        yield from (f"{label}: {file.note}" for file in backup.files if file.note)
        yield from (f"{label}: {note}" for note in backup.notes)
    if not folders:
        return
    held = keepers_kept(result)
    if held and result.core_backup:
        yield (
            f"Core: {len(held)} containers that never run hold the images of both versions for the way back (Komodo "
            f"prunes unused images every day); on {result.core_backup.host}, together with the folder: "
            f"`docker rm {' '.join(held)}`"
        )
    when = result.ended_at + KEEP_BACKUPS
    seen = ", and until every point of Tomorrow was seen" if any(_tomorrow(result)) else ""
    yield (
        f"keep them until {when:%Y-%m-%d} at least{seen}; then remove these folders and the `*.bak_*` files beside "
        "the originals. After that there is no way back to the old version."
    )


# --- pieces -----------------------------------------------------------------------------------------------------------


def _outcomes(result: FleetResult) -> tuple[ServerOutcome, ...]:
    return result.servers + ((result.core_agent,) if result.core_agent else ())


def _shown(result: FleetResult) -> list[ServerOutcome]:
    return [o for o in _outcomes(result) if o.detail or o.proof or o.backup or o.state in _CHANGED]


def _way_back(backup: Backup | None, *, done: bool) -> list[str]:
    """`done`: it was gone already."""
    if backup is None:
        return []
    lines = [f"- backup: `{backup.folder}` ({len(backup.files)} files, {moment(backup.taken_at)})"]
    return lines if done else [*lines, f"- way back, typed on {backup.host}: `{backup.restore_command}`"]


def _dump(dump: DumpFacts) -> str:
    size = f"{dump.bytes / 1_000_000:.1f} MB"
    content = f"{dump.documents} documents in {len(dump.collections)} collections"
    line = f"- dump `{dump.label}`: `{dump.path}` ({size}, {content}, {moment(dump.taken_at)}, {dump.seconds:.0f} s)"
    if dump.proof is None:
        return f"{line}: counted, **not** proven by a restore"
    notes = "".join(f"; {note}" for note in dump.proof.notes)
    return f"{line}: restored beside its source and equal ({moment(dump.proof.at)}, {dump.proof.seconds:.0f} s){notes}"


def _database(result: FleetResult) -> str:
    """What Core's database held, moment by moment: documents and the beginning of the digest."""
    prints = result.fingerprints
    if not prints:
        return ""
    heads = " | ".join(f"{p.moment} ({moment(p.at)})" for p in prints)
    columns = [{c.name: f"{c.documents} · `{c.digest[:12]}`" for c in p.collections} for p in prints]
    names = sorted({name for column in columns for name in column})
    rows = [f"| {_cell(name)} | " + " | ".join(column.get(name, "") for column in columns) + " |" for name in names]
    return "\n".join(["## Database", "", f"| collection | {heads} |", "|---" * (len(prints) + 1) + "|", *rows])


def _finding(finding: Finding) -> str:
    cure = f" — {finding.cure}" if finding.cure else ""
    return f"{finding.subject}: {finding.text}{cure} [{finding.code}]"


def _decision(recorded: Recorded) -> str:
    decision = recorded.decision
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{moment(recorded.at)} gate {decision.gate}: {decision.verdict.value} by {decision.actor}{reason}"


def _controls(result: FleetResult) -> list[tuple[str, str, str]]:
    return [(c.verb.value, c.actor, c.reason) for c in result.controls]


def _control(control: tuple[str, str, str]) -> str:
    verb, actor, reason = control
    return f"{verb} by {actor}" + (f": {reason}" if reason else "")


def _list(title: str, items: list[str]) -> str:
    lines = [f"- {' '.join(item.split())}" for item in items]
    return "\n".join([f"## {title}", "", *lines]) if lines else ""


def _versions(before: str, after: str) -> str:
    if before and after and before != after:
        return f"{before} → {after}"
    return after or before


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.0f}" if duration else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _light(plan: Plan | None) -> Plan | None:
    if plan is None:
        return None
    core = replace(plan.core, edits=tuple(replace(edit, diff="") for edit in plan.core.edits))
    servers = tuple(replace(s, edits=tuple(replace(e, diff="") for e in s.edits)) for s in plan.servers)
    return replace(plan, core=core, servers=servers)
