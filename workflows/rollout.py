"""Roll out: canary, then waves with gates between them; a child workflow per server; what a failure means."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Verdict
    from model.facts import Severity
    from model.fleet import slug
    from model.plan import Wave
    from model.progress import FleetState, Phase, ServerOutcome, ServerState, UpgradeServerRequest
    from model.steps import VerifyServer
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import core_upgrade, dead_man, steps, texts
    from workflows.options import WINDOW
    from workflows.preflight import differs, judged, only, plan_of, survey_server
    from workflows.saga import trouble
    from workflows.state import Ended, Run, child_id
    from workflows.undoing import GIVEN_UP

_GOOD = (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)


async def roll_out(run: Run) -> None:
    """The guide's third heading, for all servers."""
    run.enter(Phase.ROLLOUT)
    waves = run.planned.waves or (Wave(number=1, servers=()),)
    for wave in waves:
        await _gate(run, wave)
        run.begun = True
        run.enter(Phase.ROLLOUT)
        if wave.number == 1 and run.planned.core.current:
            await core_upgrade.switch_agent(run)
        await _upgrade(run, wave)
        for name in wave.servers:
            await settle(run, name)
    if not run.desk.stopping:
        await run.desk.safe_point()


async def _gate(run: Run, wave: Wave) -> None:
    """Whether anybody is asked, and what. Raises Ended on reject, Stopped on stop."""
    first = wave.number == 1
    asked = {"each-server": not first, "each-wave": not first, "canary": wave.number == 2}
    continuing = first and run.planned.core.current
    if not continuing and not asked.get(run.fleet.rollout.approve, False):
        await run.desk.safe_point()
        return
    run.enter(Phase.GATE)
    recorded = await run.desk.ask(_continue_gate(run, wave) if continuing else _wave_gate(run, wave))
    said = recorded.decision
    if said.verdict is Verdict.REJECT:
        why = f": {said.reason}" if said.reason else ""
        raise Ended(FleetState.STOPPED, f"gate {said.gate} was rejected by {said.actor}{why}; start again to go on")


def _wave_gate(run: Run, wave: Wave) -> Gate:
    waiting = (*run.waiting, *(n for n in run.offline if n not in run.waiting))
    dark = tuple(n for n in waiting if n not in run.outcomes or run.outcomes[n].state not in _GOOD)
    return Gate(
        id=run.desk.fresh("wave", wave.number),
        kind=GateKind.WAVE,
        question=f"Upgrade wave {wave.number}: {', '.join(wave.servers)}?",
        facts=texts.wave_facts(run.planned, wave, run.outcomes, dark),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        subject=f"wave {wave.number}",
    )


def _continue_gate(run: Run, wave: Wave) -> Gate:
    """The first question of a run that finds Core on the target: it approves a plan, so it names one."""
    return Gate(
        id=run.desk.fresh("wave", wave.number),
        kind=GateKind.WAVE,
        question=f"Core is on {run.planned.core.version} already: go on with {', '.join(wave.servers) or 'its agent'}?",
        facts=texts.continue_facts(run.fleet, run.planned, wave, run.skipped),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=run.planned.digest,
        subject=f"wave {wave.number}",
    )


async def _upgrade(run: Run, wave: Wave) -> None:
    """All servers of a wave, a window of them at a time. Pause, stop and rollback hold what has not begun."""
    children: list[asyncio.Task[None]] = []

    def busy() -> int:
        return sum(not child.done() for child in children)

    for name in wave.servers:
        if name in run.outcomes:
            continue  # switched together with Core
        await workflow.wait_condition(lambda: busy() < WINDOW)
        if run.desk.interrupted:
            await asyncio.gather(*children)
            await run.desk.safe_point()
        children.append(asyncio.create_task(upgrade_one(run, name)))
    await asyncio.gather(*children)


async def switch_only(run: Run, name: str) -> None:
    """One server up to its switch, while Core is started: what it says of itself is kept, Core is asked later."""
    await upgrade_one(run, name, prove=False)
    if run.outcomes[name].state is ServerState.UNPROVEN:
        run.line(name, state=ServerState.UPGRADING, step="waiting for Core")


async def prove(run: Run, name: str) -> None:
    """Ask Core about a server as soon as it is switched. One that was put back meanwhile stays as it is."""
    await workflow.wait_condition(lambda: name in run.outcomes)
    outcome = run.outcomes[name]
    if outcome.switched is None or outcome.state is not ServerState.UNPROVEN:
        return
    step = run.server_step(name)
    run.line(name, state=ServerState.UPGRADING, step="waiting for Core to see it" + dead_man.unless(outcome.switched))
    check = VerifyServer(
        op=step.op,
        fleet=only(run.fleet, name),
        core=plan_of(run.planned, name).core,
        server=step.server,
        switched=outcome.switched,
        expected_version=run.fleet.target,
        key=outcome.pinned_key,
    )
    try:
        proof = await steps.verify_server(check)
        note = await dead_man.disarm(step)
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        if run.outcomes[name] is not outcome:
            return
        why = trouble(error)
        if why.type == dead_man.PUT_ITSELF_BACK:
            run.settled(replace(await _put_back(run, name, why.after_undo), error_type=why.type))
        else:
            run.settled(replace(outcome, detail=why.text, error_type=why.type))
    else:
        if run.outcomes[name] is outcome:
            run.settled(replace(outcome, state=ServerState.UPGRADED, detail=note, proof=proof))


async def upgrade_one(run: Run, name: str, *, again: bool = False, prove: bool = True) -> None:
    """One attempt at one server, by a child workflow. Its outcome is kept, whatever it is."""
    plan, staged = run.planned, run.staged.get(name)
    if run.key is None:
        raise RuntimeError("no public key yet: a server was put before Core")
    attempt = run.attempt(name)
    workflow_id = child_id(name, attempt)
    run.line(name, state=ServerState.UPGRADING, step="", detail="", workflow_id=workflow_id, attempt=attempt)
    request = UpgradeServerRequest(
        op=run.op(name),
        fleet=only(run.fleet, name),
        plan=plan_of(plan, name),
        server=name,
        key=run.key,
        backup=run.backups.get(name),
        staged_path=staged.path if staged else "",
        staged_sha256=staged.sha256 if staged else "",
        again=again,
        prove=prove,
    )
    try:
        # REQUEST_CANCEL: the only policy under which a child undoes its work when this workflow is terminated.
        outcome = await workflow.execute_child_workflow(
            "UpgradeServer",
            request,
            id=workflow_id,
            result_type=ServerOutcome,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            static_summary=f"{name} to {run.fleet.target}, attempt {attempt}",
        )
    except FailureError as error:
        outcome = await _without_answer(run, name, error)
    if outcome.undo_unfinished:
        outcome = await _put_back(run, name, outcome.detail, done="\nput back at last")
    run.settled(outcome)


async def _without_answer(run: Run, name: str, error: FailureError) -> ServerOutcome:
    """The child ended without an outcome: somebody cancelled it (then it has undone its work) or terminated it."""
    if is_cancelled_exception(error):
        return await _put_back(run, name, "its own workflow was cancelled from Temporal")
    why = trouble(error)
    return replace(
        _basis(run, name),
        state=ServerState.UNPROVEN,
        detail=f"its own workflow ended without an answer, so what runs there is not known: {why.text}",
        error_type=why.type,
    )


# --- failures ---------------------------------------------------------------------------------------------------------


async def settle(run: Run, name: str) -> None:
    """Until this server is upgraded, set aside, or somebody (or `on_failure`) says that it may stay as it is."""
    while run.outcomes[name].state not in _GOOD:
        outcome = run.outcomes[name]
        if outcome.error_type == GIVEN_UP:
            run.warn("given-up", name, f"{outcome.state}: {outcome.detail}")
            return
        if outcome.offline and run.fleet.rollout.offline != "refuse":
            run.set_aside(name, f"offline, set aside at its turn: {outcome.detail}")
            return
        if run.tolerates_another_failure():
            run.warn("failed", name, f"{outcome.state}, within max_failures: {outcome.detail}")
            return
        run.line(name, state=ServerState.PARKED, detail=f"{outcome.state}: {outcome.detail}")
        try:
            async with dead_man.watched(run, name):
                said = (await run.desk.ask(_failure_gate(run, outcome))).decision
        finally:
            # The host may have put itself back meanwhile.
            outcome = run.outcomes[name]
            run.line(name, state=outcome.state, detail=outcome.detail)
        if said.verdict is Verdict.SKIP:
            run.settled(replace(outcome, detail=f"{outcome.detail}\nskipped by {said.actor}"))
            return
        if said.verdict is Verdict.ROLLBACK:
            run.settled(await _put_back(run, name, f"rolled back by {said.actor}"))
            if run.outcomes[name].state is ServerState.LEFT_ON_V1:
                return
        else:
            await _retry(run, name)


def _failure_gate(run: Run, outcome: ServerOutcome) -> Gate:
    return Gate(
        id=run.desk.fresh(f"failure/{slug(outcome.name)}", outcome.attempt),
        kind=GateKind.FAILURE,
        question=f"{outcome.name} is {outcome.state}: what now?",
        facts=texts.failure_facts(outcome),
        verdicts=(Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP),
        opened_at=workflow.now(),
        subject=outcome.name,
    )


async def _retry(run: Run, name: str) -> None:
    """A new child with the next attempt. What a person changed on the server meanwhile is planned and saved anew."""
    again = run.outcomes[name].state is not ServerState.LEFT_ON_V1
    run.next_attempt(name)
    if not again and not await _look_anew(run, name):
        return
    run.staged.pop(name, None)
    await upgrade_one(run, name, again=again)


async def _look_anew(run: Run, name: str) -> bool:
    """False: there is nothing to try, and the outcome says why."""
    run.line(name, state=ServerState.UPGRADING, step="looking at it again", detail="")
    old, fresh = run.planned.server(name), judged(run.planned.core, await survey_server(run.fleet, name))
    refusals = [f for f in fresh.findings if f.severity is Severity.REFUSE]
    if refusals:
        text = "; ".join(texts.finding_lines(refusals))
        run.settled(replace(_basis(run, name), state=ServerState.LEFT_ON_V1, detail=text, error_type="Refused"))
        return False
    if fresh.current:
        text = "somebody brought it to the target meanwhile"
        run.settled(replace(_basis(run, name), state=ServerState.ALREADY_CURRENT, detail=text))
        return False
    if not differs(old, fresh):
        return True
    run.look_anew(fresh)
    run.warn("planned-anew", name, "its files were changed after the approval; retried with what is there now")
    try:
        run.backups[name] = await steps.back_up_server(run.server_step(name))
    except FailureError as error:
        why = trouble(error)
        run.settled(replace(_basis(run, name), state=ServerState.LEFT_ON_V1, detail=why.text, error_type=why.type))
        return False
    return True


async def _put_back(run: Run, name: str, why: str, *, done: str = "") -> ServerOutcome:
    """Its restore.sh, until it works: on v1 then, unreachable from v2 Core. Or until a person gives it up."""
    step = run.server_step(name)
    try:
        restored = await run.insist(name, f"put {name} back", lambda rounds: steps.restore_server(step, rounds))
    except FailureError as error:
        reason = trouble(error)
        text = f"{why}; it could not be put back: {reason.text}\n{run.by_hand(name)}".rstrip()
        return replace(_basis(run, name), state=ServerState.ROLLBACK_INCOMPLETE, detail=text, error_type=reason.type)
    text = f"{why}{done}: on {restored.version}, unreachable from v2 Core"
    return replace(_basis(run, name), state=ServerState.LEFT_ON_V1, detail=text, version_after=restored.version)


def _basis(run: Run, name: str) -> ServerOutcome:
    return ServerOutcome(
        name=name,
        state=ServerState.UPGRADING,
        attempt=run.attempt(name),
        version_before=run.planned.server(name).version,
        backup=run.backups.get(name),
    )
