"""Upgrade Core: stop, final dump, files, start, key, and the agent in Core's own project.

Until starting v2 has begun every failure undoes itself. From then on v2 may have written to the database, and nothing
is restored without a decision at a gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Verdict
    from model.fleet import ServerSpec, slug
    from model.progress import FleetState, Phase, ServerOutcome, ServerState
    from model.steps import Proof, Switched, VerifyServer
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import proving, steps, texts
    from workflows.preflight import agent_pending, slim_core
    from workflows.rolling_back import roll_back
    from workflows.saga import Saga, Trouble, finish, trouble
    from workflows.state import CORE, Ended, Run
    from workflows.undoing import GIVEN_UP


async def upgrade(run: Run) -> None:
    """The guide's second heading."""
    run.enter(Phase.CORE)
    await to_the_switch(run)
    run.begun = run.core_begun = True
    await start(run)
    proving.begin(run)
    await switch_agent(run)
    await run.desk.safe_point()


async def read_running_key(run: Run) -> None:
    """Core is on the target already: its key is all that is needed."""
    run.enter(Phase.CORE)
    run.touch(CORE)
    try:
        run.key = await steps.read_core_key(run.core_step())
    except FailureError as error:
        text = f"Core runs {run.planned.core.version}, but its public key cannot be read: {trouble(error).text}"
        raise Ended(FleetState.STOPPED, text) from error
    run.core_is(ServerState.ALREADY_CURRENT)


async def to_the_switch(run: Run) -> None:
    """Everything up to, and not including, the start of v2 Core."""
    step = run.core_step()
    saga = Saga(lambda what, undo: run.insist(CORE, what, undo))
    try:
        run.core_is(ServerState.UPGRADING, step="stopping Core")
        saga.add("start the old Core again", lambda rounds: steps.start_old_core(step, rounds))
        await steps.stop_core(step)
        run.core_is(ServerState.UPGRADING, step="final dump")
        run.dumps.append(await steps.dump_database(replace(step, label="final")))
        run.core_is(ServerState.UPGRADING, step="writing compose and env files")
        saga.add("put Core's files back", lambda rounds: steps.restore_core_files(step, rounds))
        await steps.write_core_files(replace(step, dump=run.dump("final")))
    except (asyncio.CancelledError, FailureError) as error:
        run.core_is(ServerState.UPGRADING, step="undoing")
        raise _undone(run, trouble(error), await finish(saga.compensate())) from error


def _undone(run: Run, why: Trouble, broken: tuple[str, Trouble] | None) -> Ended:
    if broken is None:
        text = f"Core's upgrade failed before v2 was started: {why.text}"
        run.core_is(ServerState.STOPPED, text)
        return Ended(FleetState.STOPPED, f"{text}\nCore {run.planned.core.version} runs again; nothing was upgraded")
    name, reason = broken
    by_hand = (
        f"; by hand on {run.fleet.core.host.address}: {run.core_backup.restore_command}" if run.core_backup else ""
    )
    text = f"Core's upgrade failed: {why.text}\nand its undo failed too ({name}): {reason.text}{by_hand}"
    run.core_is(ServerState.ROLLBACK_INCOMPLETE, text)
    return Ended(FleetState.ROLLBACK_INCOMPLETE, text)


def _by_hand(run: Run) -> str:
    backup = run.core_backup
    return f"\nby hand on {run.fleet.core.host.address}: {backup.restore_command}" if backup else ""


async def start(
    run: Run,
    *,
    answers: Callable[[], None] = lambda: None,
    before_asking: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Start v2 and read its key, for as long as a person says retry.

    `answers` is told each time Core is up. `before_asking`: what is done at the same time, and has to be at its end
    before anybody decides about Core.
    """
    staged = run.key
    while True:
        try:
            run.core_is(ServerState.UPGRADING, step=f"starting Core {run.fleet.target}")
            run.core_started = await steps.start_core(run.core_step(dump=run.dump("final")))
            answers()
            run.core_is(ServerState.UPGRADING, step="reading Core's public key")
            # One that was made beforehand travels along, and must be what Core really has.
            key = await steps.read_core_key(run.core_step())
        except FailureError as error:
            if before_asking:
                await before_asking()
            await _ask_about_core(run, trouble(error))
        else:
            run.key = replace(key, sources=(*(staged.sources if staged else ()), *key.sources))
            run.core_is(ServerState.UPGRADED)
            return


async def _ask_about_core(run: Run, why: Trouble) -> None:
    """Returns when somebody said retry. Raises Ended after a rollback."""
    refused: tuple[str, ...] = ()
    while True:
        run.core_is(ServerState.PARKED, why.text)
        gate = _core_failure(run, why, refused)
        recorded = await run.desk.ask(gate)
        if recorded.decision.verdict is Verdict.RETRY:
            run.next_attempt(CORE)
            return
        refused = (f"the way back is not possible now: {await roll_back(run, recorded)}",)


def _core_failure(run: Run, why: Trouble, refused: tuple[str, ...]) -> Gate:
    dark = len(run.waiting)
    facts = (
        *refused,
        why.text,
        "v2 Core was started, so it may have changed the database: nothing is restored without your decision",
        f"without Core until this is settled: {dark} servers; their containers keep running",
        *_switched_with_it(run),
        "retry: start it once more",
        texts.lost_line(run.dump("final")),
        *_by_hand(run).strip().splitlines(),
    )
    return Gate(
        id=run.desk.fresh("failure/core", run.core_attempt),
        kind=GateKind.FAILURE,
        question=f"Core {run.fleet.target} does not work: what now?",
        facts=facts,
        verdicts=(Verdict.RETRY, Verdict.ROLLBACK),
        opened_at=workflow.now(),
        subject=CORE,
    )


def _switched_with_it(run: Run) -> tuple[str, ...]:
    ready = [o for o in run.outcomes.values() if o.switched is not None]
    if not run.together:
        return ()
    text = f"{len(ready)} agents run {run.fleet.target} with the key made beforehand and wait for it"
    return (f"{text}; rollback puts them back, too",)


# --- the agent in Core's own project ----------------------------------------------------------------------------------


async def switch_agent(run: Run) -> None:
    """Re-create it with Core's key, prove it; a failure undoes itself and asks. Nothing to do without such an agent."""
    while True:
        if run.core_agent is None:
            await begin_agent(run)
            await prove_agent(run)
        outcome = run.core_agent
        if outcome is None or outcome.state is ServerState.UPGRADED:
            return
        if outcome.error_type == GIVEN_UP:
            run.warn("core-agent", outcome.name, f"{outcome.state}: {outcome.detail}")
            return
        recorded = await run.desk.ask(_agent_failure(run, outcome))
        if recorded.decision.verdict is Verdict.SKIP:
            skipped = f"{outcome.detail}\nskipped by {recorded.decision.actor}"
            run.core_agent = replace(outcome, detail=skipped)
            run.warn("core-agent", outcome.name, f"{outcome.state}: {outcome.detail}")
            return
        run.next_attempt(CORE)
        run.core_agent = None


async def begin_agent(run: Run) -> None:
    """Its switch alone; one that fails is undone. Nothing to do without such an agent."""
    plan = run.planned
    agent = plan.core.agent
    if agent is None or (plan.core.current and not agent_pending(plan)):
        return
    name = _agent_name(run)
    basis = ServerOutcome(
        name=name,
        state=ServerState.UPGRADING,
        attempt=run.core_attempt,
        version_before=agent.version,
        version_after=agent.version,
        backup=run.core_backup,
        pinned_key=run.key.public_key if run.key else "",
    )
    run.core_agent = basis
    if not run.together:
        run.core_is(run.core_state, step=f"switching {name}, the agent in Core's project")
    try:
        switched = await steps.switch_core_agent(run.core_step())
    except FailureError as error:
        run.core_agent = await _undo_agent(run, basis, trouble(error))
    else:
        text = f"{switched.version} runs with Core's key; Core has not been asked yet"
        run.core_agent = replace(
            basis, state=ServerState.UNPROVEN, switched=switched, version_after=switched.version, detail=text
        )


async def prove_agent(run: Run) -> None:
    """Ask Core about it, where its switch went well."""
    outcome = run.core_agent
    if outcome is None or outcome.switched is None:
        return
    try:
        proof = await _verify_agent(run, outcome.name, outcome.switched)
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        why = trouble(error)
        run.core_agent = replace(outcome, detail=why.text, error_type=why.type)
    else:
        run.core_agent = replace(outcome, state=ServerState.UPGRADED, detail="", proof=proof)
    finally:
        run.core_is(run.core_state)


async def _verify_agent(run: Run, name: str, switched: Switched) -> Proof:
    agent = run.planned.core.agent
    check = VerifyServer(
        op=run.op(CORE),
        fleet=replace(run.fleet, servers=()),
        core=slim_core(run.planned.core),
        server=ServerSpec(name=name, host=run.fleet.core.host, install="container"),
        switched=switched,
        expected_version=run.fleet.target,
        key=run.key.public_key if run.key else "",
        container=agent.container if agent else "",
    )
    return await steps.verify_server(check)


async def _undo_agent(run: Run, basis: ServerOutcome, why: Trouble) -> ServerOutcome:
    step = run.core_step()
    try:
        restored = await run.insist(
            CORE, f"put {basis.name} back", lambda rounds: steps.restore_core_agent(step, rounds), word=" agent"
        )
    except FailureError as error:
        reason = trouble(error)
        text = f"{why.text}\nand it could not be put back: {reason.text}\n{run.by_hand(CORE)} agent"
        kind = reason.type if reason.type == GIVEN_UP else why.type
        return replace(basis, state=ServerState.ROLLBACK_INCOMPLETE, detail=text, error_type=kind)
    finally:
        if not run.together:
            run.core_is(run.core_state)
    text = f"{why.after_undo}\nput back on {restored.version}; unreachable from v2 Core"
    return replace(
        basis, state=ServerState.LEFT_ON_V1, detail=text, error_type=why.type, version_after=restored.version
    )


def _agent_failure(run: Run, outcome: ServerOutcome) -> Gate:
    return Gate(
        id=run.desk.fresh(f"failure/{slug(outcome.name)}", run.core_attempt),
        kind=GateKind.FAILURE,
        question=f"{outcome.name}, the agent in Core's project, is {outcome.state}: what now?",
        facts=(outcome.detail, "retry: once more; skip: go on without it", *_agent_by_hand(run)),
        verdicts=(Verdict.RETRY, Verdict.SKIP),
        opened_at=workflow.now(),
        subject=outcome.name,
    )


def _agent_by_hand(run: Run) -> tuple[str, ...]:
    backup = run.core_backup
    return (f"by hand on {run.fleet.core.host.address}: {backup.restore_command} agent",) if backup else ()


def _agent_name(run: Run) -> str:
    core = run.planned.core
    return core.agent_server or (core.agent.service if core.agent else "periphery")
