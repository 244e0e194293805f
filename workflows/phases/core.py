"""Upgrade Core: stop, final dump, files, start, key.

Until v2 is started, every failure is undone. From then on v2 may have written to the database, and nothing is restored
without a decision at a gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import DumpLabel
from model.fleet.spec import CoreFiles
from model.gates import Gate, GateKind, Verdict
from model.pages.servers import Failure
from model.status import FleetState, Phase, ServerState
from model.steps import DumpDatabase, ReadCoreKey, WriteCoreFiles
from workflows.phases import staging
from workflows.phases.rollback_child import roll_back
from workflows.runtime import messages
from workflows.runtime.failures import Saga, describe_failure, finish
from workflows.runtime.run import CORE, Ended
from workflows.runtime.steps import run_step, run_undo
from workflows.runtime.upgrade_run import UpgradeRun


async def upgrade(run: UpgradeRun) -> None:
    """The guide's second heading."""
    run.enter(Phase.CORE)
    await prepare_switch(run)
    run.begun = run.core_begun = True
    await start(run)
    staging.start_proof(run)


async def read_running_key(run: UpgradeRun) -> None:
    """If Core is on the target already, only its key is needed."""
    run.enter(Phase.CORE)
    run.touch(CORE)
    try:
        run.key = await run_step(contracts.READ_CORE_KEY, ReadCoreKey(**run.core_step().basis()))
    except FailureError as error:
        text = (
            f"Core runs {run.planned.core.version}, but its public key cannot be read: {describe_failure(error).text}"
        )
        raise Ended(FleetState.STOPPED, text) from error
    run.update_core(ServerState.ALREADY_CURRENT)


async def prepare_switch(run: UpgradeRun) -> None:
    """Do everything before the start of v2 Core."""
    step = run.core_step()
    saga = Saga(lambda what, undo: run.retry_undo(CORE, what, undo))
    try:
        run.stop_core(ServerState.UPGRADING)
        saga.add("start the old Core again", lambda rounds: run_undo(contracts.START_OLD_CORE, step, rounds))
        external = run.fleet.core.files == CoreFiles.EXTERNAL
        if external:  # others have edited them already
            saga.add("restore Core's files", lambda rounds: run_undo(contracts.RESTORE_CORE_FILES, step, rounds))
        await run_step(contracts.STOP_CORE, step)
        run.update_core(ServerState.UPGRADING, step="final dump")
        final = await run_step(contracts.DUMP_DATABASE, DumpDatabase(**step.basis(), label=DumpLabel.FINAL))
        run.dumps.append(final)
        run.update_core(ServerState.UPGRADING, step="writing compose and env files")
        if not external:
            saga.add("restore Core's files", lambda rounds: run_undo(contracts.RESTORE_CORE_FILES, step, rounds))
        write = WriteCoreFiles(**step.basis(), final_dump=final, staged_key=run.key.public_key if run.key else "")
        await run_step(contracts.WRITE_CORE_FILES, write)
    except (asyncio.CancelledError, FailureError) as error:
        run.update_core(ServerState.UPGRADING, step="undoing")
        raise _undone(run, describe_failure(error), await finish(saga.compensate())) from error


def _undone(run: UpgradeRun, why: Failure, broken: tuple[str, Failure] | None) -> Ended:
    if broken is None:
        run.core_stopped_at = None
        text = f"Core's upgrade failed before v2 was started: {why.text}"
        run.update_core(ServerState.STOPPED, text)
        return Ended(FleetState.STOPPED, f"{text}\nCore {run.planned.core.version} runs again; nothing was upgraded")
    name, reason = broken
    text = f"Core's upgrade failed: {why.text}\nand its undo failed too ({name}): {reason.text}"
    text = f"{text}\n{run.manual_command(CORE)}".rstrip()
    run.update_core(ServerState.ROLLBACK_INCOMPLETE, text)
    return Ended(FleetState.ROLLBACK_INCOMPLETE, text)


async def start(
    run: UpgradeRun,
    *,
    on_start: Callable[[], None] = lambda: None,
    before_gate: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Start v2 and read its key; a failure opens a gate, and `retry` starts it again.

    `on_start` is called each time Core is up; `before_gate` waits for other work that must end before a gate opens.
    """
    staged = run.key
    while True:
        try:
            run.update_core(ServerState.UPGRADING, step=f"starting Core {run.fleet.target}")
            started = await run_step(contracts.START_CORE, run.core_step())
            run.core_version, run.core_downtime = started.version, started.downtime
            on_start()
            run.update_core(ServerState.UPGRADING, step="reading Core's public key")
            # A key that was created in advance is part of the input, and must be the one that Core has.
            expected = staged.public_key if staged else ""
            key = await run_step(contracts.READ_CORE_KEY, ReadCoreKey(**run.core_step().basis(), expected=expected))
        except FailureError as error:
            if before_gate:
                await before_gate()
            await _ask_about_core(run, describe_failure(error))
        else:
            run.key = replace(key, sources=(*(staged.sources if staged else ()), *key.sources))
            run.update_core(ServerState.UPGRADED)
            return


async def _ask_about_core(run: UpgradeRun, why: Failure) -> None:
    """Returns after a retry. Raises Ended after a rollback."""
    refused: tuple[str, ...] = ()
    while True:
        run.update_core(ServerState.WAITING, why.text)
        gate = _core_failure(run, why, refused)
        recorded = await run.gatekeeper.ask(gate)
        if recorded.decision.verdict is Verdict.RETRY:
            run.start_next_attempt(CORE)
            return
        refused = (f"the rollback is not possible now: {await roll_back(run, recorded)}",)


def _core_failure(run: UpgradeRun, why: Failure, refused: tuple[str, ...]) -> Gate:
    unmanaged = len((*run.planned.with_core, *run.planned_servers))
    facts = (
        *refused,
        why.text,
        "the new Core was started, so it may have changed the database: nothing is restored without your decision",
        f"unmanaged until then: {unmanaged} servers; their containers keep running",
        *_switched_agents(run),
        "retry: start it once more",
        messages.lost_line(run.dump(DumpLabel.FINAL), run.planned.core.version),
        *run.manual_command(CORE).splitlines(),
    )
    return Gate(
        id=run.gatekeeper.new_gate_id("failure/core", run.core_attempt),
        kind=GateKind.FAILURE,
        question=f"Core {run.fleet.target} does not work: retry or roll back?",
        facts=facts,
        verdicts=(Verdict.RETRY, Verdict.ROLLBACK),
        opened_at=workflow.now(),
        subject=CORE,
    )


def _switched_agents(run: UpgradeRun) -> tuple[str, ...]:
    ready = [o for o in run.outcomes.values() if o.switched is not None]
    if not run.all_at_once:
        return ()
    text = f"{len(ready)} agents run {run.fleet.target} with the key created in advance and wait for Core"
    return (f"{text}; a rollback restores them, too",)
