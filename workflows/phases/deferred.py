"""Servers that were offline: checked again after the others, and upgraded through a gate of their own on return."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import FailureError

from model.facts import ServerFacts, Severity
from model.fleet.spec import Approval, OfflinePolicy, slug
from model.gates import Gate, GateKind, Verdict
from model.plan import Wave
from model.planning import bind_with_steps, evaluate_key, is_unreachable, reject_shared_hosts, server_differs
from model.status import OfflineRequest, Phase, Returned, ServerOutcome, ServerState
from workflows.phases import rollout, schedule, staging
from workflows.phases.server_steps import survey_once
from workflows.runtime import messages
from workflows.runtime.failures import describe_failure
from workflows.runtime.upgrade_run import UpgradeRun


async def upgrade_returning(run: UpgradeRun) -> None:
    """Wait until all are back or `offline_for` is over; those still offline then are left on v1."""
    policy = run.fleet.rollout
    until = workflow.now()
    if policy.offline == OfflinePolicy.WAIT:
        until += policy.offline_for
    while run.offline:
        run.enter(Phase.ROLLOUT)
        found = await _find_returned(run, until)
        for facts in found:
            await _upgrade_returned(run, facts.name, facts)
        if not found and workflow.now() >= until:
            break
    for name in tuple(run.offline):
        _leave(run, name, f"offline, left on v1: {run.offline[name]}")


async def _find_returned(run: UpgradeRun, until: datetime) -> tuple[ServerFacts, ...]:
    """Wait for the first servers that answer. None: the time is over, or a pause, stop or rollback interrupts it."""
    every = run.fleet.rollout.offline_check
    for name in run.offline:
        run.update_line(name, step=f"offline; checked every {every} until {until:%Y-%m-%d %H:%M} UTC")
    request = OfflineRequest(
        fleet=replace(run.fleet, servers=tuple(run.fleet.server(name) for name in run.offline)),
        every=every,
        until=until,
        next_check=workflow.now(),
    )
    child = await workflow.start_child_workflow(
        "FindReturned",
        request,
        id=f"{workflow.info().workflow_id}/offline_servers/{workflow.uuid4().hex[:8]}",
        result_type=Returned,
        static_summary=f"check {len(run.offline)} offline servers",
    )
    await workflow.wait_condition(lambda: child.done() or run.gatekeeper.interrupted)
    child.cancel()
    try:
        found: Returned = await child
    except FailureError as error:
        if not run.gatekeeper.interrupted:
            run.warn("offline", "fleet", f"the checks of offline servers ended: {describe_failure(error).text}")
            await workflow.sleep(every, summary="check offline servers")
        found = Returned()
    for name in run.offline:
        run.update_line(name, step="")
    await run.gatekeeper.safe_point()
    return found.servers


async def _upgrade_returned(run: UpgradeRun, name: str, facts: ServerFacts) -> None:
    """Plan, approve and upgrade a server that answers again; set it aside again if it goes offline meanwhile."""
    why = run.offline[name]
    facts = _evaluate(run, facts)
    known = next((s for s in run.planned.servers if s.name == name), None)
    new = name not in run.backups or known is None or server_differs(known, facts)
    run.bring_back(name)
    if facts.current:
        run.set_outcome(
            ServerOutcome(name=name, state=ServerState.ALREADY_CURRENT, detail="found on the target on return")
        )
        return
    if new:
        _plan(run, name, facts)
    if not await _approve(run, name, why, new=new):
        return
    await schedule.wait_for_window(run)
    run.enter(Phase.ROLLOUT)
    if new:
        if name in run.backups:
            run.start_next_attempt(name)
        await staging.for_all(run, (name,), staging.BACK_UP)
        await staging.for_all(run, (name,), staging.STAGE)
    elif name in run.attempts or name in run.touched:
        run.start_next_attempt(name)
    if name in run.offline or name in run.skipped:
        return
    await rollout.upgrade_servers(run, (name,))
    await rollout.resolve_failures(run, name)


def _evaluate(run: UpgradeRun, facts: ServerFacts) -> ServerFacts:
    """Evaluate its key now that Core's key is known."""
    core = run.planned.core
    known = replace(core, public_key=run.key.public_key) if run.key else core
    return run.refuse_unapproved(evaluate_key(known, facts))


def _plan(run: UpgradeRun, name: str, facts: ServerFacts) -> None:
    """Add the server to the plan as a wave of its own; the plan gets a new digest."""
    plan = run.planned
    servers = reject_shared_hosts(plan.core, tuple(facts if s.name == name else s for s in plan.servers))
    rest = tuple(w for w in plan.waves if name not in w.servers)
    wave = Wave(number=1 + max((w.number for w in rest), default=0), servers=(name,))
    grown = replace(plan, servers=servers, waves=(*rest, wave), offline=tuple(n for n in plan.offline if n != name))
    run.plan = bind_with_steps(run.fleet, grown, run.change)
    run.show()


async def _approve(run: UpgradeRun, name: str, why: str, *, new: bool) -> bool:
    """Open its gate: always for a new plan, and for one that is approved already if `approve` asks about waves."""
    while refusals := [f for f in run.planned.server(name).findings if f.severity is Severity.REFUSE]:
        text = "; ".join(messages.finding_lines(refusals))
        run.update_line(name, state=ServerState.WAITING, detail=text)
        decision = (await run.gatekeeper.ask(_refused(run, name, text))).decision
        if decision.verdict is Verdict.SKIP:
            _leave(run, name, f"skipped by {decision.actor} on its return: {text}", offline=False)
            return False
        run.update_line(name, state=ServerState.PENDING, detail="")
        facts = _evaluate(run, await survey_once(run.fleet, name))
        if is_unreachable(facts):
            run.set_aside(name, facts.findings[0].text)
            return False
        _plan(run, name, facts)
    if not new and run.fleet.rollout.approve not in (Approval.EACH_SERVER, Approval.EACH_WAVE):
        await run.gatekeeper.safe_point()
        return True
    run.enter(Phase.GATE)
    decision = (await run.gatekeeper.ask(_gate(run, name, why, new=new))).decision
    if decision.verdict is Verdict.SKIP:
        _leave(
            run,
            name,
            f"skipped by {decision.actor} on its return" + (f": {decision.reason}" if decision.reason else ""),
            offline=False,
        )
        return False
    return True


def _gate(run: UpgradeRun, name: str, why: str, *, new: bool) -> Gate:
    number = next((w.number for w in run.planned.waves if name in w.servers), len(run.planned.waves))
    return Gate(
        id=run.gatekeeper.new_gate_id("wave", number),
        kind=GateKind.WAVE,
        question=f"{name} is back: upgrade it?",
        facts=messages.returned_facts(run.planned, name, why, new=new),
        verdicts=(Verdict.APPROVE, Verdict.SKIP),
        opened_at=workflow.now(),
        plan_digest=run.planned.digest if new else "",
        subject=name,
    )


def _refused(run: UpgradeRun, name: str, text: str) -> Gate:
    return Gate(
        id=run.gatekeeper.new_gate_id(f"failure/{slug(name)}", run.attempt(name)),
        kind=GateKind.FAILURE,
        question=f"{name} is back, but cannot be upgraded as it is: retry or skip?",
        facts=(
            text,
            "nothing was switched there",
            "retry: survey it again; skip: leave it on v1, unreachable from Core",
        ),
        verdicts=(Verdict.RETRY, Verdict.SKIP),
        opened_at=workflow.now(),
        subject=name,
    )


def _leave(run: UpgradeRun, name: str, why: str, *, offline: bool = True) -> None:
    run.set_outcome(replace(run.new_outcome(name, ServerState.LEFT_ON_V1, why), offline=offline))
