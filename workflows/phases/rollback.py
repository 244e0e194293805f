"""The phases of a rollback, ordered so that every failure leaves a working fleet."""

from __future__ import annotations

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import DumpLabel, Moment
from model.gates import Verdict
from model.pages.servers import Failure, PageStep, ServerResult
from model.rollback import has_something_to_undo, with_folders
from model.status import FleetState, Phase, ServerState
from model.steps import (
    CheckRollback,
    DumpStep,
    FingerprintDatabase,
    ReturnToNewCore,
)
from model.text.versions import cut_off
from workflows.phases import staging
from workflows.phases.post_checks import release, save_report
from workflows.phases.server_steps import run_on_servers, verify_restored
from workflows.phases.survey_and_plan import scan_servers
from workflows.runtime import messages
from workflows.runtime.failures import describe_failure, each
from workflows.runtime.rollback_run import RollbackRun
from workflows.runtime.run import CORE, Ended
from workflows.runtime.steps import run_step, run_undo

# --- check and approve ------------------------------------------------------------------------------------------------


async def read_backups(run: RollbackRun) -> None:
    """A request for many servers names their run folders: read what they hold, on all hosts at the same time."""
    request = run.request
    if not request.by_reference:
        return
    agent = request.plan.core.agent_name
    names = [name for name in request.servers if name != agent]
    for name in names:
        run.update_line(name, state=ServerState.PREPARING, step="reading its run folder")
    run.use(with_folders(request, await scan_servers(run.fleet, names, request.change_of)))
    for name in names:
        run.update_line(name, state=ServerState.PENDING, step="")


async def check(run: RollbackRun) -> None:
    """Raises Ended if there is nothing to undo, or, before anything is changed, if the rollback is not possible."""
    request = run.request
    if not has_something_to_undo(request):
        raise Ended(FleetState.ROLLED_BACK, "nothing of this upgrade is in place: there is nothing to undo")
    missing = [name for name in request.servers if name not in run.backups]
    drift = [f"there is no backup of {', '.join(missing)}"] if missing else await _check_servers(run)
    if request.core:
        drift += await _check_core(run, prove=not drift)
        run.update_core(ServerState.PENDING)
    if drift:
        raise Ended(FleetState.REFUSED, "the rollback is not possible, nothing was changed: " + "; ".join(drift))


async def _check_core(run: RollbackRun, *, prove: bool) -> list[str]:
    backup = run.core_backup
    if backup is None:
        return ["there is no backup of Core"]
    run.update_core(ServerState.PREPARING, step="checking that the rollback is possible")
    try:
        check = CheckRollback(
            **run.core_step().basis(),
            backup=backup,
            dump=run.dump_to_restore,
            keep_database=run.request.dump is not None and run.dump_to_restore is None,
        )
        found = await run_step(contracts.CHECK_ROLLBACK, check)
        run.losses = found.losses
        if run.dump_to_restore and prove and not found.drift:
            run.update_core(ServerState.PREPARING, step="proving the final dump")
            run.core_locked = True
            run.dump_to_restore = await staging.prove(run.core_step(), run.dump_to_restore)
            run.dumps = [run.dump_to_restore]
    except FailureError as error:
        return [f"Core's host or the final dump is not as it must be: {describe_failure(error).text}"]
    return list(found.drift)


async def _check_servers(run: RollbackRun) -> list[str]:
    """Missing parts on the servers. An unreachable server refuses nothing: it is restored when it can be reached."""
    drift: dict[str, tuple[str, ...]] = {}
    run.unreachable = {}

    def begin(name: str) -> None:
        run.update_line(name, state=ServerState.PREPARING, step="checking that the rollback is possible")

    def keep(result: ServerResult) -> None:
        if result.recheck:
            drift[result.name] = result.recheck.drift
            if result.recheck.unreachable:
                run.unreachable[result.name] = result.recheck.unreachable

    names = [name for name in run.request.servers if name in run.backups]
    for name, why in (await run_on_servers(run.page(PageStep.CHECK_ROLLBACK, names), keep, begin)).items():
        drift[name] = (f"it cannot be checked: {why.text}",)
    for name in names:
        run.update_line(name, state=ServerState.PENDING, step="")
    return [f"{name}: {text}" for name in run.request.servers for text in drift.get(name, ())]


async def approve(run: RollbackRun) -> None:
    """Ask at gate `rollback`, unless the upgrade has asked already. Raises Ended on reject."""
    if run.request.approved is None:
        run.enter(Phase.GATE)
        final = run.dump(DumpLabel.FINAL) if run.request.dump else None
        gate = messages.rollback_gate(
            replace(run.request, dump=final),
            run.gatekeeper.new_gate_id("rollback"),
            unreachable=run.unreachable,
            losses=run.losses,
        )
        decision = (await run.gatekeeper.ask(gate, urgent=True)).decision
        run.enter(Phase.ROLLBACK)
        if decision.verdict is Verdict.REJECT:
            raise Ended(FleetState.STOPPED, f"the rollback was rejected by {decision.actor}: nothing was changed")
        # The gate may have been open for days.
        await check(run)
    for name in run.request.servers:
        if name in run.unreachable:
            text = f"it could not be reached when the rollback began ({run.unreachable[name]})"
            run.warn("unreachable", name, f"{text}: it is restored as soon as it can be reached")


# --- Core -------------------------------------------------------------------------------------------------------------


async def restore_core(run: RollbackRun) -> None:
    """Stop, dump, restore the database and the files, start the old Core. A failure starts the new Core again."""
    run.begun = True
    request = run.request
    if not request.core:
        return
    restoring = False
    try:
        run.stop_core(ServerState.ROLLING_BACK)
        await run_step(contracts.STOP_CORE, run.core_step())
        if request.dump:
            run.update_core(ServerState.ROLLING_BACK, step="dumping the v2 database")
            run.dumps.append(await staging.take_proven_dump(run.core_step(), DumpLabel.PRE_ROLLBACK))
            restoring = True
            await _restore_database(run)
        run.update_core(ServerState.ROLLING_BACK, step="restoring Core's files")
        await run_undo(contracts.RESTORE_CORE_FILES, run.core_step(), 0)
        run.update_core(ServerState.ROLLING_BACK, step="starting the old Core")
        started = await run_step(contracts.START_OLD_CORE, run.core_step())
    except FailureError as error:
        raise await _return_to_new_core(run, describe_failure(error), restoring=restoring) from error
    run.core_version, run.core_downtime, run.core_begun = started.version, started.downtime, False
    run.update_core(ServerState.ROLLED_BACK)


async def _restore_database(run: RollbackRun) -> None:
    """By policy: restore the final dump, or convert the database to v1's form and keep its later writes."""
    if run.dump_to_restore is None:
        run.update_core(ServerState.ROLLING_BACK, step="converting the database to v1's form")
        await run_step(contracts.DOWNGRADE_DATABASE, run.core_step())
        return
    run.update_core(ServerState.ROLLING_BACK, step="restoring the final v1 dump")
    await run_step(contracts.RESTORE_DATABASE, DumpStep(**run.core_step().basis(), dump=run.dump_to_restore))
    # The activity has compared it with the source of the dump, document by document.
    restored = staging.fingerprint_of(run.dump_to_restore, Moment.ROLLED_BACK)
    run.fingerprints.append(replace(restored, at=workflow.now()))


async def fingerprint_kept_database(run: RollbackRun) -> None:
    """Read the database that was kept, when nothing waits for it any more."""
    if not (run.request.core and run.request.dump) or run.dump_to_restore is not None:
        return
    try:
        step = FingerprintDatabase(**run.core_step().basis(), moment=Moment.ROLLED_BACK)
        run.fingerprints.append(await run_step(contracts.FINGERPRINT_DATABASE, step))
    except FailureError as error:
        run.warn("fingerprint", CORE, f"the database could not be read: {describe_failure(error).text}")


async def _return_to_new_core(run: RollbackRun, why: Failure, *, restoring: bool) -> Ended:
    """Before any agent is restored, the new Core makes the fleet work as before."""
    text = f"Core could not be rolled back: {why.text}"
    by_hand = f"\n{run.manual_command(CORE)}".rstrip()
    if run.request.dump is None:
        run.update_core(ServerState.ROLLBACK_INCOMPLETE, text)
        return Ended(FleetState.ROLLBACK_INCOMPLETE, text + by_hand)
    run.update_core(ServerState.ROLLING_BACK, step="starting the new Core again")
    step = ReturnToNewCore(**run.core_step().basis(), dump=run.dumps[-1] if restoring else None)
    try:
        started = await run.retry_undo(
            CORE, "start the new Core again", lambda rounds: run_undo(contracts.RETURN_TO_NEW_CORE, step, rounds)
        )
    except FailureError as error:
        text += f"\nand the new Core could not be started again: {describe_failure(error).text}{by_hand}"
        run.update_core(ServerState.ROLLBACK_INCOMPLETE, text)
        return Ended(FleetState.ROLLBACK_INCOMPLETE, text)
    run.core_version = started.version
    text += f"\nCore {started.version} runs again with its data, and no agent was touched: the fleet works as before"
    run.update_core(ServerState.UPGRADED, text)
    return Ended(FleetState.ROLLBACK_INCOMPLETE, text)


# --- agents -----------------------------------------------------------------------------------------------------------


async def restore_agents(run: RollbackRun) -> None:
    """Restore all agents at once, each for as long as it takes; `stop` gives up on those that do not answer."""
    # In a fleet larger than the window, agents that may never answer must not delay the others.
    names = sorted(run.request.servers, key=lambda name: name in run.unreachable)
    old = [s.version for s in run.planned.servers if s.name in names]
    # A Core that stays on v2 sees agents of an older v2, and none of v1.
    prove = run.request.core or run.request.core_is_back or not cut_off(old, "unreachable")
    left = names
    if run.fleet.is_paged:
        page = run.page(PageStep.RESTORE, [name for name in names if name not in run.unreachable], prove=prove)
        await run_on_servers(page, lambda result: _finish(run, result), lambda name: _begin(run, name))
        left = [name for name in names if name not in run.restored]
    await each(left, lambda name: _restore_agent(run, name, prove=prove))


def _begin(run: RollbackRun, name: str) -> None:
    run.update_line(name, state=ServerState.ROLLING_BACK, step="restoring the old version")


async def _restore_agent(run: RollbackRun, name: str, *, prove: bool) -> None:
    step = run.saved_step(name)
    _begin(run, name)
    try:
        restored = await run.retry_undo(
            name, f"restore {name}", lambda rounds: run_undo(contracts.RESTORE_SERVER, step, rounds)
        )
    except FailureError as error:
        text = f"the old version could not be restored: {describe_failure(error).text}\n{run.manual_command(name)}"
        run.finish_server(name, ServerState.ROLLBACK_INCOMPLETE, text.rstrip())
        return
    run.update_line(name, state=ServerState.ROLLING_BACK, step="waiting for Core to see it")
    page = run.page(PageStep.RESTORE, (name,), prove=prove)
    _finish(run, await verify_restored(page, page.servers[0], restored))


def _finish(run: RollbackRun, result: ServerResult) -> None:
    """Keep the outcome of a restored agent, which Core sees again. Core cannot see one of v1 if it stays on v2."""
    version = result.restored.version if result.restored else ""
    run.restored.append(result.name)
    if result.failure:
        text = f"the old version runs there, but Core has not confirmed it: {result.failure.text}"
        run.finish_server(result.name, ServerState.ROLLBACK_INCOMPLETE, text, version=version)
    elif result.proof is None:
        text = f"on {version} by decision, unreachable from Core {run.core_version}"
        run.finish_server(result.name, ServerState.LEFT_ON_V1, text, version=version)
    else:
        run.finish_server(result.name, ServerState.ROLLED_BACK, version=version, proof=result.proof)


# --- the end ----------------------------------------------------------------------------------------------------------


async def close(run: RollbackRun) -> None:
    """Save the report and release the hosts. The upgrade that started this rollback does so for hosts of its own."""
    request = run.request
    if request.approved is not None and not request.changes:
        return
    if run.begun:
        await save_report(run)
        await release(run, (CORE, *request.servers))
    elif run.core_locked:
        await release(run, (CORE,))
