"""What was found, as text: findings by host with their cures, sources of paths, diffs, commands, the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cli.output import bad, careful, faint, good, strong
from model.facts import Finding, PlannedEdit, ServerFacts, Severity
from model.fleet import TOGETHER, FleetSpec
from model.plan import Plan, Wave

_MARKS = {Severity.REFUSE: ("✗", bad), Severity.WARN: ("!", careful), Severity.INFO: ("·", faint)}
_ORDER = (Severity.REFUSE, Severity.WARN, Severity.INFO)

NO_API_KEY = (
    "no API key is given: Core's own view of the servers cannot be checked. An admin makes one in Komodo under "
    "Settings → Profile → API Keys; then set api_key_env and api_secret_env in [core]"
)


def check_text(plan: Plan, fleet: FleetSpec) -> str:
    """For `check`: every host with what stands in the way, and where things were found."""
    lines = [strong(f"{fleet.name} → {plan.target}"), ""]
    for title, sources, findings in _hosts(plan):
        lines.append(title)
        lines += [f"    {line}" for line in _findings(findings)]
        lines += [faint(f"    {source}") for source in sources]
    lines += ["", *_others(plan), *_api(fleet), _verdict(plan)]
    return "\n".join(lines)


def plan_text(plan: Plan, fleet: FleetSpec) -> str:
    """For `plan`: everything that would be done, in order."""
    lines = [strong(f"{fleet.name} → {plan.target}"), ""]
    for title, sources, findings in _hosts(plan):
        lines.append(title)
        lines += [f"    {line}" for line in _findings(findings)]
        lines += [faint(f"    {source}") for source in sources]
    lines += ["", *_others(plan), *_api(fleet)]
    for subject, edits in _edits(plan):
        for edit in edits:
            lines += ["", strong(f"{subject}: {edit.path}"), *(faint(f"  because {reason}") for reason in edit.reasons)]
            lines += [_coloured(line) for line in edit.diff.splitlines()]
    lines += _section("Order", _order(plan))
    lines += _section("Commands", plan.commands)
    lines += _section("Way back", plan.way_back)
    lines += ["", f"plan digest: {strong(plan.digest)}", _verdict(plan)]
    return "\n".join(lines)


def refusal_lines(findings: Iterable[Finding]) -> list[str]:
    """Refusals grouped by host."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.subject, []).append(finding)
    lines = []
    for subject, group in grouped.items():
        lines.append(strong(subject))
        lines += [f"    {line}" for line in _findings(group)]
    return lines


def has_changes(plan: Plan) -> bool:
    """Anything at all would be done."""
    return bool(plan.waves) or not plan.core.current


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
        yield f"{colour(mark)} {first} {faint(f'[{finding.code}]')}"
        yield from (f"  {line}" for line in rest)
        yield from (f"  → {line}" if i == 0 else f"    {line}" for i, line in enumerate(finding.cure.splitlines()))


def _others(plan: Plan) -> list[str]:
    lines = []
    if plan.already_current:
        lines.append(f"already current: {', '.join(plan.already_current)}")
    if plan.offline:
        lines.append(f"offline, set aside: {', '.join(plan.offline)}")
    if plan.left_behind:
        lines.append(f"left on v1 on purpose: {', '.join(plan.left_behind)}")
    return lines


def _api(fleet: FleetSpec) -> list[str]:
    return [] if fleet.core.api_key else [f"{careful('!')} {NO_API_KEY}"]


def _verdict(plan: Plan) -> str:
    refusals, warnings = len(plan.refusals), len(plan.warnings)
    if refusals:
        return bad(f"refused: {refusals} {'thing stands' if refusals == 1 else 'things stand'} in the way (✗ above)")
    if not has_changes(plan):
        return good("already current: nothing to do")
    told = f", {warnings} {'warning' if warnings == 1 else 'warnings'} to read" if warnings else ""
    return good(f"ready: {sum(len(w.servers) for w in plan.waves)} servers and Core{told}")


def _edits(plan: Plan) -> Iterator[tuple[str, tuple[PlannedEdit, ...]]]:
    yield "core", plan.core.edits
    for server in plan.servers:
        yield server.name, server.edits


def _order(plan: Plan) -> list[str]:
    lines = [] if plan.core.current else [f"Core {plan.core.version} → {plan.target}"]
    return [*lines, *(f"{_title(plan, wave)}: {', '.join(wave.servers)}" for wave in plan.waves)]


def _title(plan: Plan, wave: Wave) -> str:
    if plan.mode == TOGETHER:
        return "all together" if plan.core.current else "together with Core"
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
