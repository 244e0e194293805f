"""Roll out: the canary, then waves with gates between them; a child workflow per server; failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import Severity
from model.fleet.spec import Approval, OfflinePolicy, slug
from model.gates import Gate, GateKind, Verdict
from model.pages.servers import Failure, PageStep, ServerResult
from model.plan import Wave
from model.planning import evaluate_key, server_differs
from model.status import FleetState, Phase, ServerOutcome, ServerState
from model.text.versions import cut_off
from workflows.phases import schedule
from workflows.phases.server_steps import run_on_servers, survey_server
from workflows.phases.soak import soak
from workflows.runtime import auto_rollback, messages
from workflows.runtime.failures import FailureKind, describe_failure
from workflows.runtime.run import Ended, child_id
from workflows.runtime.steps import run_step, run_undo
from workflows.runtime.upgrade_run import GOOD, UpgradeRun


async def roll_out(run: UpgradeRun) -> None:
    """The guide's third heading, for all servers."""
    run.enter(Phase.ROLLOUT)
    waves = run.planned.waves or (Wave(number=1, servers=()),)
    if not run.planned.core.current:
        await _switch_with_core(run)
    for wave in waves:
        await _gate(run, wave)
        if wave.number > 1 or run.planned.core.current:
            await schedule.wait_for_window(run)  # the first wave belongs to Core's switch
        run.begun = True
        run.enter(Phase.ROLLOUT)
        if wave.number == 1 and run.planned.core.current:
            await _switch_with_core(run)
        await _upgrade(run, wave)
        for name in wave.servers:
            await resolve_failures(run, name)
        await soak(run, wave, resolve_failures)
    if not run.gatekeeper.stopping:
        await run.gatekeeper.safe_point()


async def _switch_with_core(run: UpgradeRun) -> None:
    """The agent in Core's own project, right after Core; all at once, it was switched while Core was started."""
    for name in run.planned.with_core:
        if name not in run.outcomes:
            await upgrade_servers(run, (name,))
        await resolve_failures(run, name)


async def _gate(run: UpgradeRun, wave: Wave) -> None:
    """Open the gate of this wave, if it has one. Raises Ended on reject, Stopped on stop."""
    first = wave.number == 1
    asked = {
        Approval.EACH_SERVER: not first,
        Approval.EACH_WAVE: not first,
        Approval.CANARY: wave.number == 2,
    }
    continuing = first and run.planned.core.current
    if not continuing and not asked.get(run.fleet.rollout.approve, False):
        await run.gatekeeper.safe_point()
        return
    run.enter(Phase.GATE)
    recorded = await run.gatekeeper.ask(_continue_gate(run, wave) if continuing else _wave_gate(run, wave))
    decision = recorded.decision
    if decision.verdict is Verdict.REJECT:
        why = f": {decision.reason}" if decision.reason else ""
        text = f"gate {decision.gate} was rejected by {decision.actor}{why}; run start again to continue"
        raise Ended(FleetState.STOPPED, text)


def _wave_gate(run: UpgradeRun, wave: Wave) -> Gate:
    waiting = (*run.planned_servers, *(n for n in run.offline if n not in run.planned_servers))
    unmanaged = sum(1 for n in waiting if n not in run.outcomes or run.outcomes[n].state not in GOOD)
    return Gate(
        id=run.gatekeeper.new_gate_id("wave", wave.number),
        kind=GateKind.WAVE,
        question=f"Upgrade wave {wave.number}: {', '.join(wave.servers)}?",
        facts=messages.wave_facts(run.planned, wave, run.outcomes, unmanaged),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        subject=f"wave {wave.number}",
    )


def _continue_gate(run: UpgradeRun, wave: Wave) -> Gate:
    """The first gate of a run that finds Core on the target: it approves the plan."""
    names = (*run.planned.with_core, *wave.servers)
    return Gate(
        id=run.gatekeeper.new_gate_id("wave", wave.number),
        kind=GateKind.WAVE,
        question=f"Core is on {run.planned.core.version} already. Upgrade {', '.join(names)}?",
        facts=messages.continue_facts(run.fleet, run.planned, wave, run.skipped),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=run.planned.digest,
        subject=f"wave {wave.number}",
    )


async def _upgrade(run: UpgradeRun, wave: Wave) -> None:
    """Upgrade the servers of a wave, a page of them at a time. Pause, stop and rollback hold what has not begun."""
    names = [name for name in wave.servers if name not in run.outcomes]  # the others were switched with Core
    for start in range(0, len(names), run.fleet.page):
        if run.gatekeeper.interrupted:
            await run.gatekeeper.safe_point()
        await upgrade_servers(run, names[start : start + run.fleet.page])


async def upgrade_servers(run: UpgradeRun, names: Sequence[str], *, again: bool = False, prove: bool = True) -> None:
    """Run one attempt at each of these servers, and keep its outcome. An undo that did not end is continued here."""
    undos: list[asyncio.Task[None]] = []

    def begin(name: str) -> None:
        attempt = run.attempt(name)
        workflow_id = child_id(workflow.info().workflow_id, run.op(name))
        run.update_line(name, state=ServerState.UPGRADING, step="", detail="", workflow_id=workflow_id, attempt=attempt)

    def keep(result: ServerResult) -> None:
        outcome = result.outcome
        if outcome is None:
            return
        if outcome.undo_unfinished:
            undos.append(asyncio.create_task(_continue_undo(run, outcome)))
            return
        run.set_outcome(outcome)
        if not prove and outcome.state is ServerState.UNVERIFIED:
            run.update_line(outcome.name, state=ServerState.UPGRADING, step="waiting for Core")

    failed = await run_on_servers(run.page(PageStep.UPGRADE, names, again=again, prove=prove), keep, begin)
    undos += [asyncio.create_task(_without_answer(run, name, why)) for name, why in failed.items()]
    await asyncio.gather(*undos)  # no cancel ends an upgrade that has begun


async def _continue_undo(run: UpgradeRun, outcome: ServerOutcome) -> None:
    run.set_outcome(await _restore_one(run, outcome.name, outcome.detail, done="\nrestored in the end"))


async def _without_answer(run: UpgradeRun, name: str, why: Failure) -> None:
    """The child ended without an outcome: it was cancelled (then it has undone its work) or terminated."""
    if why.type == FailureKind.CANCELLED:
        run.set_outcome(await _restore_one(run, name, "its own workflow was cancelled from Temporal"))
        return
    text = f"its own workflow ended without a result, so what runs there is unknown: {why.text}"
    outcome = run.new_outcome(name, ServerState.UNVERIFIED, text)
    run.set_outcome(replace(outcome, version_after="", error_type=why.type))


async def prove(run: UpgradeRun, names: Sequence[str]) -> None:
    """Ask Core about these servers as soon as they are switched, unless they were restored meanwhile."""
    await workflow.wait_condition(lambda: all(name in run.outcomes for name in names))
    switched = {
        name: outcome
        for name in names
        if (outcome := run.outcomes[name]).switched and outcome.state is ServerState.UNVERIFIED
    }

    def begin(name: str) -> None:
        if timer := switched[name].switched:
            text = "waiting for Core to see it" + auto_rollback.describe_timer(timer)
            run.update_line(name, state=ServerState.UPGRADING, step=text)

    def keep(result: ServerResult) -> None:
        outcome = switched[result.name]
        if run.outcomes[result.name] is outcome:
            proven = replace(outcome, state=ServerState.UPGRADED, detail=result.note, proof=result.proof)
            run.set_outcome(proven)

    failed = await run_on_servers(run.page(PageStep.PROVE, switched), keep, begin)
    for name, why in failed.items():
        if run.outcomes[name] is not switched[name]:
            continue
        if why.type == FailureKind.AUTO_ROLLED_BACK:
            run.set_outcome(replace(await _restore_one(run, name, why.text_after_undo), error_type=why.type))
        else:
            run.set_outcome(replace(switched[name], detail=why.text, error_type=why.type))


# --- failures ---------------------------------------------------------------------------------------------------------


async def resolve_failures(run: UpgradeRun, name: str) -> None:
    """Open gates until this server is upgraded, set aside, or left unchanged by a decision or by `on_failure`."""
    while run.outcomes[name].state not in GOOD:
        outcome = run.outcomes[name]
        if outcome.error_type == FailureKind.ABANDONED:
            run.warn("abandoned", name, f"{outcome.state}: {outcome.detail}")
            return
        if outcome.offline and name in run.listed and run.fleet.rollout.offline != OfflinePolicy.REFUSE:
            run.set_aside(name, f"offline, set aside at its turn: {outcome.detail}")
            return
        if run.tolerates_another_failure():
            run.warn("failed", name, f"{outcome.state}, within max_failures: {outcome.detail}")
            return
        run.update_line(name, state=ServerState.WAITING, detail=f"{outcome.state}: {outcome.detail}")
        try:
            async with auto_rollback.watched(run, name):
                decision = (await run.gatekeeper.ask(_failure_gate(run, outcome))).decision
        finally:
            # The host may have rolled back automatically meanwhile.
            outcome = run.outcomes[name]
            run.update_line(name, state=outcome.state, detail=outcome.detail)
        if decision.verdict is Verdict.SKIP:
            run.set_outcome(replace(outcome, detail=f"{outcome.detail}\nskipped by {decision.actor}"))
            return
        if decision.verdict is Verdict.ROLLBACK:
            run.set_outcome(await _restore_one(run, name, f"rolled back by {decision.actor}"))
            if run.outcomes[name].state is ServerState.LEFT_ON_V1:
                return
        else:
            await _retry(run, name)


def _failure_gate(run: UpgradeRun, outcome: ServerOutcome) -> Gate:
    return Gate(
        id=run.gatekeeper.new_gate_id(f"failure/{slug(outcome.name)}", outcome.attempt),
        kind=GateKind.FAILURE,
        question=f"{outcome.name} is {outcome.state}: retry, roll back or skip?",
        facts=messages.failure_facts(outcome),
        verdicts=(Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP),
        opened_at=workflow.now(),
        subject=outcome.name,
    )


async def _retry(run: UpgradeRun, name: str) -> None:
    """Run the next attempt. If a person changed the server meanwhile, it is planned and backed up again."""
    again = run.outcomes[name].state is not ServerState.LEFT_ON_V1
    run.start_next_attempt(name)
    if not again and not await _replan(run, name):
        return
    run.staged.pop(name, None)
    await upgrade_servers(run, (name,), again=again)


async def _replan(run: UpgradeRun, name: str) -> bool:
    """Survey and plan again. False: there is nothing to retry, and the outcome gives the reason."""
    run.update_line(name, state=ServerState.UPGRADING, step="surveying it again", detail="")
    old = run.planned.server(name)
    fresh = run.refuse_unapproved(evaluate_key(run.planned.core, await survey_server(run.fleet, name, old)))
    refusals = [f for f in fresh.findings if f.severity is Severity.REFUSE]
    if refusals:
        text = "; ".join(messages.finding_lines(refusals))
        run.set_outcome(replace(run.new_outcome(name, ServerState.LEFT_ON_V1, text), error_type=FailureKind.REFUSED))
        return False
    if fresh.current:
        text = "it was upgraded by other means meanwhile"
        outcome = run.new_outcome(name, ServerState.ALREADY_CURRENT, text)
        run.set_outcome(replace(outcome, version_after=fresh.version))
        return False
    if not server_differs(old, fresh):
        return True
    run.replan_server(fresh)
    run.warn("planned-again", name, "its files were changed after the approval; the retry uses the current ones")
    try:
        run.backups[name] = await run_step(contracts.BACK_UP_SERVER, run.server_step(name))
    except FailureError as error:
        why = describe_failure(error)
        run.set_outcome(replace(run.new_outcome(name, ServerState.LEFT_ON_V1, why.text), error_type=why.type))
        return False
    return True


async def _restore_one(run: UpgradeRun, name: str, why: str, *, done: str = "") -> ServerOutcome:
    """Run its restore.sh until it works or a person gives it up. A v1 agent is unreachable from v2 Core then."""
    step = run.saved_step(name)
    try:
        restored = await run.retry_undo(
            name, f"restore {name}", lambda rounds: run_undo(contracts.RESTORE_SERVER, step, rounds)
        )
    except FailureError as error:
        reason = describe_failure(error)
        text = f"{why}; it could not be restored: {reason.text}\n{run.manual_command(name)}".rstrip()
        outcome = run.new_outcome(name, ServerState.ROLLBACK_INCOMPLETE, text)
        return replace(outcome, version_after="", error_type=reason.type)
    text = f"{why}{done}: on {restored.version}{cut_off(restored.version, ', unreachable from v2 Core')}"
    return replace(run.new_outcome(name, ServerState.LEFT_ON_V1, text), version_after=restored.version)
