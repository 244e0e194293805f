"""Plans as text: findings by host with their hints, sources of paths, diffs, commands, and rollbacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from cli.output import bad, careful, data, faint, good, strong
from komodo.checks.all import find
from model.facts import Finding, PlannedEdit, ServerFacts, Severity
from model.fleet.spec import FleetSpec, RolloutMode
from model.plan import Plan, Wave
from model.planning import all_current
from model.serialization import moment, span
from model.status import RollbackRequest
from model.text.plan import artifact_lines
from workflows.runtime.messages import rollback_facts, rollback_time, size

_MARKS = {Severity.REFUSE: ("✗", bad), Severity.WARN: ("!", careful), Severity.INFO: ("·", faint)}
_ORDER = (Severity.REFUSE, Severity.WARN, Severity.INFO)

NO_API_KEY = (
    "no API key is set: Core's own view of the servers cannot be checked. An admin creates one in Komodo under "
    "Settings → Profile → API Keys; then set api_key_env and api_secret_env in [core]"
)


def check_text(plan: Plan, fleet: FleetSpec) -> str:
    """For `check`: every host with its findings, and where paths come from."""
    return "\n".join([*_survey(plan, fleet), _verdict(plan)])


def plan_text(plan: Plan, fleet: FleetSpec) -> str:
    """For `plan`: everything that would be done, in order."""
    lines = _survey(plan, fleet)
    for subject, edits in _edits(plan):
        for edit in edits:
            lines += ["", strong(f"{subject}: {edit.path}"), *(faint(f"  because {reason}") for reason in edit.reasons)]
            lines += [_coloured(line) for line in edit.diff.splitlines()]
    lines += _section("Order", _order(plan))
    lines += _section("Artifacts", artifact_lines(plan))
    lines += _section("Commands", plan.commands)
    lines += _section("Rollback", plan.rollback_steps)
    lines += ["", f"plan digest: {strong(plan.digest)}", _verdict(plan)]
    return "\n".join(lines)


def has_changes(plan: Plan) -> bool:
    """Whether anything would be done."""
    return not all_current(plan)


def _survey(plan: Plan, fleet: FleetSpec) -> list[str]:
    lines = [strong(f"{fleet.name} → {plan.target}"), ""]
    for title, sources, findings in _hosts(plan):
        lines.append(title)
        lines += [f"    {line}" for line in _findings(findings)]
        lines += [faint(f"    {source}") for source in sources]
    return [*lines, "", *_others(plan), *_api(fleet)]


def _hosts(plan: Plan) -> Iterator[tuple[str, tuple[str, ...], tuple[Finding, ...]]]:
    core = plan.core
    state = f"Komodo {core.version}" if core.version else "version unknown"
    state += ", already current" if core.current else ""
    yield f"{strong('core')}  {state if core.reachable else 'not reachable'}", core.sources, core.findings
    for server in plan.servers:
        yield f"{strong(server.name)}  {_state(server)}", server.sources, server.findings


def _state(server: ServerFacts) -> str:
    if not server.reachable:
        return "not reachable"
    parts = [f"agent {server.version}" if server.version else "agent's version unknown"]
    parts += [text for text in (server.arch, server.os_name) if text]
    parts += ["already current"] if server.current else []
    return ", ".join(parts)


def _findings(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in sorted(findings, key=lambda f: _ORDER.index(f.severity)):
        mark, colour = _MARKS[finding.severity]
        first, *rest = finding.text.splitlines() or [""]
        check = find(finding.code)
        name = f"[{finding.code}]" + (f" {check.id}" if check else "")
        yield f"{colour(mark)} {first} {faint(name)}"
        yield from (f"  {line}" for line in rest)
        yield from (f"  → {line}" if i == 0 else f"    {line}" for i, line in enumerate(finding.hint.splitlines()))


def _others(plan: Plan) -> list[str]:
    lines = []
    if plan.already_current:
        lines.append(f"already current: {', '.join(plan.already_current)}")
    if plan.offline:
        lines.append(f"offline, deferred: {', '.join(plan.offline)}")
    if plan.left_behind:
        lines.append(f"left on v1 on purpose: {', '.join(plan.left_behind)}")
    if plan.not_in_run:
        lines.append(f"not in this run (--limit): {', '.join(plan.not_in_run)}")
    return lines


def _api(fleet: FleetSpec) -> list[str]:
    return [] if fleet.core.api_key else [f"{careful('!')} {NO_API_KEY}"]


def _verdict(plan: Plan) -> str:
    refusals, warnings = len(plan.refusals), len(plan.warnings)
    if refusals:
        return bad(f"refused: {refusals} {'problem' if refusals == 1 else 'problems'} to solve first (✗ above)")
    if not has_changes(plan):
        return good("already current: nothing to do")
    servers = sum(len(wave.servers) for wave in plan.waves)
    also = f", {warnings} {'warning' if warnings == 1 else 'warnings'} to read" if warnings else ""
    return good(f"ready: Core and {servers} {'server' if servers == 1 else 'servers'}{also}")


def _edits(plan: Plan) -> Iterator[tuple[str, tuple[PlannedEdit, ...]]]:
    yield "core", plan.core.edits
    for server in plan.servers:
        yield server.name, server.edits


def _order(plan: Plan) -> list[str]:
    lines = [] if plan.core.current else [f"Core {plan.core.version} → {plan.target}"]
    return [*lines, *(f"{_title(plan, wave)}: {', '.join(wave.servers)}" for wave in plan.waves)]


def _title(plan: Plan, wave: Wave) -> str:
    if plan.mode == RolloutMode.ALL_AT_ONCE:
        return "all at once" if plan.core.current else "all at once, with Core"
    return "canary" if wave.number == 1 else f"wave {wave.number}"


def _section(title: str, items: Iterable[str]) -> list[str]:
    lines = list(items)
    return ["", strong(title), *(f"  {line}" for line in lines)] if lines else []


def _coloured(line: str) -> str:
    if line.startswith("+") and not line.startswith("+++"):
        return good(line)
    if line.startswith("-") and not line.startswith("---"):
        return bad(line)
    return line


# --- rollbacks --------------------------------------------------------------------------------------------------------


def show_rollback(request: RollbackRequest) -> None:
    """Print what a rollback would do."""
    data(_rollback_values(request), "\n".join(rollback_lines(request)))


def _rollback_values(request: RollbackRequest) -> dict[str, Any]:
    """For `-o json`: scripts rely on these names."""
    versions = {facts.name: facts.version for facts in request.plan.servers}
    dump = request.dump
    return {
        "change": request.change,
        "core": request.core,
        "core_version": {"from": request.fleet.target, "to": request.plan.core.version} if request.core else None,
        "servers": [
            {
                "name": name,
                "from": request.fleet.target,
                "to": versions.get(name, ""),
                "change": request.change_of(name),
                "folder": backup.folder,
            }
            for name, backup in request.backups_by_server().items()
        ],
        "database": {
            "method": {"keep": "downgrade"}.get(request.database, "final dump") if dump else "unchanged",
            "path": dump.path if dump else "",
            "taken_at": dump.taken_at if dump else None,
            "documents": dump.documents if dump else 0,
        },
        "lost_since": dump.taken_at if dump and request.database != "keep" else None,
        "minutes": max(1, round(rollback_time(request).total_seconds() / 60)),
        "not_restored": [{"name": one.name, "why": one.why} for one in request.not_restored if not one.harmless],
        "unchanged": [{"name": one.name, "why": one.why} for one in request.not_restored if one.harmless],
        "digest": request.plan.digest,
        "facts": rollback_facts(request, now=datetime.now(UTC)),
    }


def rollback_lines(request: RollbackRequest) -> list[str]:
    """Versions after the rollback, the database, what is lost, the duration, and what cannot be restored."""
    versions = {facts.name: facts.version for facts in request.plan.servers}
    runs = tuple(dict.fromkeys((request.change, *request.changes)))
    found = [strong(f"rollback of {request.fleet.name}: undo the upgrade {', '.join(runs)}"), ""]
    rows = []
    if request.core:
        folder = request.core_backup.folder if request.core_backup else ""
        rows.append(("core", f"{request.fleet.target} → {request.plan.core.version}", folder))
    rows += [
        (name, f"{request.fleet.target} → {versions.get(name) or '?'}", backup.folder)
        for name, backup in request.backups_by_server().items()
    ]
    wide = max((len(name) for name, *_ in rows), default=0)
    found += [
        f"  {name:<{wide}}  {versions_text:<16}  {faint(folder)}".rstrip() for name, versions_text, folder in rows
    ]
    found += [f"  {bad('✗')} {one.name}: {one.why}" for one in request.not_restored if not one.harmless]
    found += [faint(f"  · {one.name}: {one.why}") for one in request.not_restored if one.harmless]
    found += ["", *_database_lines(request)]
    if not request.core and not request.core_is_back:
        found.append(f"Core stays on {request.fleet.target}: these servers are then unreachable from it")
    found.append(f"about {span(rollback_time(request))}; nothing is changed before gate rollback is approved")
    return found


def _database_lines(request: RollbackRequest) -> list[str]:
    dump = request.dump
    if dump is None:
        return ["database: unchanged, nothing is lost"]
    if request.database == "keep":
        return [
            "database: dumped as `pre_rollback`, then converted to v1's form: what was written since is kept",
            "LOST: Updates and alerts that v1 cannot read, and v2's data of servers (their keys)",
            "      gate rollback names what else v1 cannot read",
        ]
    holds = f"{dump.documents} documents in {len(dump.collections)} collections, {size(dump.bytes)}"
    return [
        f"database: dropped and restored from the final dump of {moment(dump.taken_at)}: {holds}",
        f"          {dump.path}",
        f"LOST: everything written to Komodo since {moment(dump.taken_at)}; it is dumped first, as `pre_rollback`",
    ]
