"""The content of a report, made from a FleetResult: sections that each format shows in this order."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from model.facts import Backup, DumpFacts, Finding
from model.gates import Control, Recorded
from model.rollback import image_pins_kept
from model.serialization import moment, span
from model.status import FleetResult, FleetState, Phase, ServerOutcome, ServerState
from model.text.watch import HEADING, report_lines
from model.watch import WatchReport

KEEP_BACKUPS = timedelta(days=14)
"""How long to keep backups: long enough for weekly schedules to run on v2, and for an operator's holiday."""

HEADLINES = {
    FleetState.ALREADY_CURRENT: "already current: there was nothing to do",
    FleetState.UPGRADED: "upgraded",
    FleetState.INCOMPLETE: "incomplete: not every server is upgraded and verified",
    FleetState.REFUSED: "refused: nothing was changed",
    FleetState.STOPPED: "stopped",
    FleetState.ROLLED_BACK: "rolled back",
    FleetState.ROLLBACK_INCOMPLETE: "rollback incomplete: the missing parts are listed below",
}
_CHANGED = (
    ServerState.UPGRADED,
    ServerState.UNVERIFIED,
    ServerState.WAITING,
    ServerState.ROLLED_BACK,
    ServerState.ROLLBACK_INCOMPLETE,
    ServerState.LEFT_ON_V1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells may hold `code`."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with a paragraph, a list and a table, each of them optional."""

    title: str
    text: str = ""
    """Lines, also such as a host has written."""
    lines: tuple[str, ...] = ()
    """Points of a list; `code` is in backticks."""
    table: Table | None = None
    is_host: bool = False
    """It is about one host; a report of many hosts may fold it."""
    is_timeline: bool = False


def sections(result: FleetResult, watch: WatchReport | None = None) -> tuple[Section, ...]:
    """The outcome, what happened when, the proofs, how to roll back, and what to check the next day."""
    found = (
        _outcome(result),
        _timeline(result),
        _core(result),
        *(_server(outcome, result) for outcome in _shown(result)),
        _list("Decisions", [*map(_decision, result.decisions), *map(_control, result.controls)]),
        _list("Refused because of", map(_finding, result.refusals)),
        _list("Warnings", map(_finding, result.warnings)),
        _list("Ignored checks", _ignored(result)),
        _list("Not verified", _unverified(result)),
        _database(result),
        _list("How to roll back", _how_to_roll_back(result)),
        _list("Tomorrow", _tomorrow(result)),
        _list("Backups", _backups(result)),
        Section(title=HEADING.removeprefix("## "), lines=report_lines(watch)) if watch else None,
    )
    return tuple(section for section in found if section)


# --- outcome and timeline ---------------------------------------------------------------------------------------------


def _outcome(result: FleetResult) -> Section:
    took = span(result.ended_at - result.started_at)
    lines = [
        f"target: {result.target}",
        f"began {moment(result.started_at)}, ended {moment(result.ended_at)} ({took})",
        f"change: {result.change}" + (f", plan {result.plan.digest}" if result.plan else ""),
        *([result.detail] if result.detail else []),
    ]
    before = result.plan.core.version if result.plan else ""
    rows = [
        (
            "**Core**",
            result.core_state.value,
            _versions(before, result.core_version),
            _seconds(result.core_downtime),
        )
    ]
    for outcome in result.servers:
        unmanaged = _seconds(outcome.proof.unmanaged) if outcome.proof else ""
        versions = _versions(outcome.version_before, outcome.version_after)
        rows.append((outcome.name, outcome.reported, versions, unmanaged))
    left = result.plan.left_behind if result.plan else ()
    old = result.plan.old if result.plan else ""
    rows += [(name, f"left on {old} (on purpose)", "", "") for name in left]
    others = result.plan.not_in_run if result.plan else ()
    shown = [outcome.name for outcome in result.servers]  # a rollback of Core takes those of earlier runs along
    rows += [(name, "not in this run", "", "") for name in others if name not in shown]
    table = Table(heads=("server", "state", "version", "seconds unmanaged"), rows=tuple(rows))
    return Section(title=f"Komodo {result.fleet}: {HEADLINES[result.state]}", lines=tuple(lines), table=table)


def _timeline(result: FleetResult) -> Section | None:
    ends = [*(begun.at for begun in result.phases[1:]), result.ended_at]
    entries: list[tuple[datetime, str]] = [
        (begun.at, f"{begun.phase.value} ({span(end - begun.at)})")
        for begun, end in zip(result.phases, ends, strict=False)
        if begun.phase is not Phase.DONE
    ]
    for recorded in result.decisions:
        if recorded.opened_at:
            waited = span(recorded.at - recorded.opened_at)
            entries.append((recorded.opened_at, f"gate {recorded.decision.gate} opened; answered after {waited}"))
    entries.sort(key=lambda entry: entry[0])
    lines = tuple(f"{moment(at)} {text}" for at, text in entries)
    return Section(title="Timeline", lines=lines, is_timeline=True) if lines else None


# --- proofs -----------------------------------------------------------------------------------------------------------


def _server(outcome: ServerOutcome, result: FleetResult) -> Section:
    lines = []
    if outcome.proof and outcome.proof.line:
        by = "Core and the agent's log" if outcome.proof.by_core else "the agent's log alone"
        lines.append(f"proof ({by}, confirmed {moment(outcome.proof.confirmed_at)}): `{outcome.proof.line}`")
    if outcome.switched:
        lines += [f"its own log: `{line}`" for line in outcome.switched.lines]
        lines.append(f"port downtime: {span(outcome.switched.port_downtime)}")
    if outcome.pinned_key:
        lines.append(f"pinned key: `{outcome.pinned_key}`")
    if outcome.proof and outcome.proof.unmanaged:
        lines.append(f"unmanaged for {span(outcome.proof.unmanaged)}")
    if outcome.attempt > 1:
        lines.append(f"attempts: {outcome.attempt}")
    lines += _restore_lines(outcome.backup, done=outcome.state is ServerState.ROLLED_BACK)
    check = check_command(outcome, result)
    if check:
        lines.append(f"check it yourself: `{check}`")
    title = f"{outcome.name}: {outcome.reported}"
    return Section(title=title, text=outcome.detail, lines=tuple(lines), is_host=True)


def _core(result: FleetResult) -> Section | None:
    lines = []
    if result.key:
        lines.append(f"public key: `{result.key.public_key}` (agreed by {', '.join(result.key.sources)})")
    lines += [_dump(dump) for dump in result.dumps]
    lines += _restore_lines(result.core_backup, done=result.core_state is ServerState.ROLLED_BACK)
    if not lines and not result.core_detail:
        return None
    title = f"Core: {result.core_state.value}"
    return Section(title=title, text=result.core_detail, lines=tuple(lines), is_host=True)


def check_command(outcome: ServerOutcome, result: FleetResult) -> str:
    """The command that shows the proof on that host; empty if nothing was switched."""
    if outcome.switched is None:
        return ""
    since = outcome.switched.started_at
    wanted = "'version:|Logged in|using Passkeys'"
    facts = next((s for s in result.plan.servers if s.name == outcome.name), None) if result.plan else None
    if facts and facts.container:
        stamp = since.isoformat()
        return f"docker logs --since {stamp} {outcome.switched.invocation[:12]} 2>&1 | grep -E {wanted}"
    unit = facts.unit.removesuffix(".service") if facts and facts.unit else "periphery"
    return f"journalctl -u {shlex.quote(unit)} --since @{int(since.timestamp())} | grep -E {wanted}"


def _unverified(result: FleetResult) -> Iterator[str]:
    seen: dict[str, list[str]] = {}
    for outcome in result.servers:
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
            "Core's own view: no API key was given. Open Komodo's Servers page and check that every server is in state "
            f"Ok with version {result.target}"
        )


# --- afterwards -------------------------------------------------------------------------------------------------------


def _how_to_roll_back(result: FleetResult) -> Iterator[str]:
    changed = [o.name for o in result.servers if o.backup and o.state in (ServerState.UPGRADED, ServerState.UNVERIFIED)]
    if not result.core_begun and not changed:
        return
    command = f"komodo-upgrade rollback {result.fleet}"
    yield f"everything: `{command}`, first with `--plan`, which shows what would be lost; it asks before it begins"
    if changed:
        yield f"one server: `{command} --server {changed[0]}`; v2 Core cannot reach it afterwards"
    yield "without this tool: the `restore.sh` of each host, named above; Core first"


def _tomorrow(result: FleetResult) -> Iterator[str]:
    if result.state not in (FleetState.UPGRADED, FleetState.INCOMPLETE, FleetState.STOPPED):
        return
    if result.core_state is not ServerState.UPGRADED:
        return
    yield "the automated backup of Core's database ran (Procedures, `Backup Core Database`)"
    yield "every Server is Ok and its stats are updated; schedules and webhooks ran as usual"
    yield "no host collects zombies: `ps -eo stat | grep -c ^Z` stays near zero"
    yield "important Actions and Procedures ran once without error"
    pending = [o.name for o in result.servers if o.state not in (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)]
    if pending:
        yield f"still to do: {', '.join(pending)} (`komodo-upgrade start` continues from here)"


def _backups(result: FleetResult) -> Iterator[str]:
    places = [("Core", result.core_backup), *((o.name, o.backup) for o in result.servers)]
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
    held = image_pins_kept(result)
    if held and result.core_backup:
        yield (
            f"Core: {len(held)} containers that never run hold the images of both versions for a rollback (Komodo "
            f"prunes unused images every day); remove them together with the folder, on {result.core_backup.host}: "
            f"`docker rm {' '.join(held)}`"
        )
    when = result.ended_at + KEEP_BACKUPS
    checked = ", and until every point of Tomorrow was checked" if any(_tomorrow(result)) else ""
    yield (
        f"keep them until {when:%Y-%m-%d} at least{checked}; then remove these folders and the `*.bak_*` files next to "
        "the originals. After that a rollback to the old version is not possible."
    )


# --- pieces -----------------------------------------------------------------------------------------------------------


def _shown(result: FleetResult) -> list[ServerOutcome]:
    return [o for o in result.servers if o.detail or o.proof or o.backup or o.state in _CHANGED]


def _restore_lines(backup: Backup | None, *, done: bool) -> list[str]:
    """`done`: the rollback has already been made."""
    if backup is None:
        return []
    lines = [f"backup: `{backup.folder}` ({len(backup.files)} files, {moment(backup.taken_at)})"]
    return lines if done else [*lines, f"rollback, typed on {backup.host}: `{backup.restore_command}`"]


def _dump(dump: DumpFacts) -> str:
    size = f"{dump.bytes / 1_000_000:.1f} MB"
    content = f"{dump.documents} documents in {len(dump.collections)} collections"
    line = f"dump `{dump.label}`: `{dump.path}` ({size}, {content}, {moment(dump.taken_at)}, {dump.seconds:.0f} s)"
    if dump.proof is None:
        return f"{line}: counted, **not** proven by a restore"
    notes = "".join(f"; {note}" for note in dump.proof.notes)
    return f"{line}: restored next to its source and equal ({moment(dump.proof.at)}, {dump.proof.seconds:.0f} s){notes}"


def _database(result: FleetResult) -> Section | None:
    """The contents of Core's database at each moment: document counts and the beginning of the digests."""
    prints = result.fingerprints
    if not prints:
        return None
    columns = [{c.name: f"{c.documents} · `{c.digest[:12]}`" for c in p.collections} for p in prints]
    names = sorted({name for column in columns for name in column})
    rows = tuple((name, *(column.get(name, "") for column in columns)) for name in names)
    heads = ("collection", *(f"{p.moment} ({moment(p.at)})" for p in prints))
    return Section(title="Database", table=Table(heads=heads, rows=rows))


def _ignored(result: FleetResult) -> Iterable[str]:
    findings = result.plan.findings if result.plan else ()
    return (f"{_finding(one)}: ignored because {one.ignored}" for one in findings if one.ignored)


def _finding(finding: Finding) -> str:
    hint = f" — {finding.hint}" if finding.hint else ""
    return f"{finding.subject}: {finding.text}{hint} [{finding.code}]"


def _decision(recorded: Recorded) -> str:
    decision = recorded.decision
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{moment(recorded.at)} gate {decision.gate}: {decision.verdict.value} by {decision.actor}{reason}"


def _control(control: Control) -> str:
    return f"{control.verb.value} by {control.actor}" + (f": {control.reason}" if control.reason else "")


def _list(title: str, items: Iterable[str]) -> Section | None:
    lines = tuple(" ".join(item.split()) for item in items)
    return Section(title=title, lines=lines) if lines else None


def _versions(before: str, after: str) -> str:
    if before and after and before != after:
        return f"{before} → {after}"
    return after or before


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.0f}" if duration else ""
