"""What an upgrade ended with, computed from what its run knows. Pure; also the answer of the query `result`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.facts import Finding, Severity
    from model.plan import Plan
    from model.progress import FleetResult, FleetState, ServerOutcome, ServerState
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows.preflight import slim_plan
    from workflows.state import Run

_DIFFS_UP_TO = 100
"""Servers. A result must stay below 2 MiB, and eight KiB of diff a server would not."""
_GOOD = (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)


def verdict(run: Run) -> tuple[FleetState, str]:
    """How an upgrade that went through all its headings ended."""
    agent = (run.core_agent,) if run.core_agent else ()
    bad = [o for o in (*run.outcomes.values(), *agent) if o.state not in _GOOD]
    if not bad:
        return FleetState.UPGRADED, f"{run.fleet.name} is on {run.fleet.target}"
    names = ", ".join(f"{o.name} ({o.told})" for o in bad)
    return (
        FleetState.INCOMPLETE,
        f"Core is on {run.fleet.target}; not upgraded: {names}; start again to go on from there",
    )


def result_of(run: Run) -> FleetResult:
    """The result as it stands now."""
    end, plan = run.end, run.plan
    state = end.state if end else FleetState.INCOMPLETE
    result = FleetResult(
        fleet=run.fleet.name,
        target=run.fleet.target,
        change=run.change,
        state=state,
        started_at=run.started_at,
        ended_at=workflow.now(),
        plan=_kept(plan) if plan else None,
        core_state=_core_state(run),
        core_version=run.core_version,
        core_detail=run.core_detail,
        core_dark=run.core_started.dark if run.core_started else timedelta(),
        core_attempt=run.core_attempt,
        core_begun=run.core_begun,
        keepers=run.keepers,
        key=run.key,
        servers=tuple(_outcome(run, name) for name in run.lines),
        core_agent=run.core_agent,
        core_backup=run.core_backup,
        dumps=tuple(run.dumps),
        fingerprints=tuple(run.prints),
        decisions=tuple(run.desk.recorded),
        controls=tuple(run.desk.controls),
        warnings=(*(plan.warnings if plan else ()), *run.warnings, *_ignored(run)),
        refusals=plan.refusals if plan and state is FleetState.REFUSED else (),
        detail=end.detail if end else "still running",
    )
    return _after_rollback(result, run.rolled_back) if run.rolled_back else result


def _after_rollback(result: FleetResult, back: FleetResult) -> FleetResult:
    """The upgrade's story with the rollback's end."""
    put_back = {o.name: o for o in back.servers}
    return replace(
        result,
        core_state=back.core_state,
        core_version=back.core_version,
        core_detail=back.core_detail,
        core_attempt=back.core_attempt,
        core_begun=back.core_begun,
        servers=tuple(put_back.get(o.name, o) for o in result.servers),
        core_agent=back.core_agent or result.core_agent,
        dumps=tuple({(d.label, d.path): d for d in (*result.dumps, *back.dumps)}.values()),
        fingerprints=(*result.fingerprints, *back.fingerprints),
        warnings=(*result.warnings, *back.warnings),
    )


def _kept(plan: Plan) -> Plan:
    return plan if len(plan.servers) <= _DIFFS_UP_TO else slim_plan(plan)


def _core_state(run: Run) -> ServerState:
    if run.core_state is not ServerState.PENDING:
        return run.core_state
    if run.plan and run.plan.core.current:
        return ServerState.ALREADY_CURRENT
    return ServerState.STOPPED if run.end and run.touched else ServerState.PENDING


def _outcome(run: Run, name: str) -> ServerOutcome:
    settled = run.outcomes.get(name)
    if settled:
        return settled
    line, plan = run.lines[name], run.plan
    facts = next((s for s in plan.servers if s.name == name), None) if plan else None
    version = facts.version if facts else ""
    basis = ServerOutcome(
        name=name,
        state=line.state,
        attempt=run.attempt(name),
        version_before=version,
        version_after=version,
        backup=run.backups.get(name),
    )
    if plan and name in plan.already_current:
        return replace(basis, state=ServerState.ALREADY_CURRENT)
    if name in run.offline and run.begun:
        return replace(basis, state=ServerState.LEFT_ON_V1, detail=run.offline[name], offline=True)
    if line.state is ServerState.UPGRADING:
        return replace(basis, version_after="", detail="its own workflow was still at it")
    if run.end and run.touched:
        dark = "; unreachable from v2 Core" if run.core_begun and not run.rolled_back else ""
        return replace(basis, state=ServerState.STOPPED, detail=f"not begun, because the upgrade ended before{dark}")
    return basis


def _ignored(run: Run) -> tuple[Finding, ...]:
    return tuple(
        Finding(code="message", severity=Severity.WARN, subject="fleet", text=text) for text in run.desk.ignored
    )
