"""Back up and stage on every host in parallel, while v1 still runs.

A dump is restored into a scratch database before anything relies on it; the final one while servers are upgraded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import DatabaseFingerprint, DumpFacts, DumpLabel, Moment
from model.fleet.spec import FailurePolicy, OfflinePolicy, ProofPolicy, slug
from model.gates import Gate, GateKind, Verdict
from model.pages.servers import Failure, PageStep, ServerResult
from model.status import FleetState, Phase, ServerState
from model.steps import CoreStep, DumpDatabase, DumpStep
from model.text.versions import cut_off
from workflows.phases.server_steps import run_on_servers
from workflows.runtime.failures import FailureKind, core_and_servers, describe_failure, failure_of
from workflows.runtime.run import CORE, Ended
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


async def back_up(run: UpgradeRun) -> None:
    """Back up every host, then take and prove a first dump: that shows that a restore works, and how long it takes."""
    run.enter(Phase.BACKUP)
    core = _core(run)
    agents = run.planned.with_core
    # The backup of the agent in Core's project is in Core's folder, also if Core itself is on the target already.
    await for_all(run, (*((CORE,) if core or agents else ()), *run.planned_servers), BACK_UP)
    await for_all(run, agents, BACK_UP)
    await for_all(run, core, _DUMP)
    await run.gatekeeper.safe_point()


async def stage(run: UpgradeRun) -> None:
    """Pull Core's image, put every agent's binary on its host and run it there; all at once: create Core's key."""
    run.enter(Phase.STAGE)
    await for_all(run, (*_core(run), *run.planned_servers), STAGE)
    await for_all(run, run.planned.with_core, STAGE)
    await run.gatekeeper.safe_point()


async def prepare_again(run: UpgradeRun, names: Iterable[str]) -> None:
    """Back up and stage again the hosts that a new plan changed, under new operation ids."""
    stale = tuple(names)
    agents = run.planned.with_core if CORE in stale else ()
    for name in (*stale, *agents):
        run.start_next_attempt(name)
    for some in (stale, agents):
        await for_all(run, some, replace(BACK_UP, text="backing up again"))
    for some in (stale, agents):
        await for_all(run, some, replace(STAGE, text="staging again"))


async def for_all(run: UpgradeRun, names: Iterable[str], work: Work) -> None:
    """Do the same work on all these hosts; then open a gate for each that failed, one after the other."""
    failed = await _attempt(run, tuple(names), work)
    for name in failed:
        why = failed[name]
        while await try_again(run, name, work.text, why):
            run.start_next_attempt(name)
            failed_again = await _attempt(run, (name,), work)
            if not failed_again:
                break
            why = failed_again[name]


async def _attempt(run: UpgradeRun, names: tuple[str, ...], work: Work) -> dict[str, Failure]:
    """Returns why it failed, in the order of the names."""
    chosen = [name for name in names if name not in run.skipped and name not in run.offline]
    images: dict[str, str] = {}

    def begin(name: str) -> None:
        run.touch(name)
        run.update_line(name, state=ServerState.PREPARING, step=work.text)

    def keep(result: ServerResult) -> None:
        if result.backup:
            run.backups[result.name] = result.backup
        if result.staged:
            run.staged[result.name] = result.staged
            images[result.staged.image] = result.staged.image_digest
        run.update_line(result.name, state=ServerState.PENDING, step="")

    async def core() -> Failure | None:
        if CORE not in chosen:
            return None
        begin(CORE)
        if why := await failure_of(work.on_core(run)):
            return why
        run.update_line(CORE, state=ServerState.PENDING, step="")
        return None

    servers = run.page(work.step, [name for name in chosen if name != CORE])
    failed = await core_and_servers(core(), run_on_servers(servers, keep, begin))
    if any(images):
        run.record_images(images)
    return failed


async def try_again(run: UpgradeRun, name: str, step: str, why: Failure) -> bool:
    """Decide about a host that failed before anything was switched: True: retry; False: skipped. Raises Ended."""
    others = [n for n in run.planned_servers if n != name]
    aside = not run.all_at_once and run.fleet.rollout.offline != OfflinePolicy.REFUSE
    if name in run.listed and why.type == FailureKind.UNREACHABLE and aside and others:
        run.set_aside(name, f"offline, set aside: {step} failed: {why.text}")
        if not run.begun:
            run.plan_again()
        return False
    if name != CORE and _tolerated(run, name, step, why):
        return False
    run.update_line(name, state=ServerState.WAITING, step="", detail=why.text)
    recorded = await run.gatekeeper.ask(_gate(run, name, step, why))
    decision = recorded.decision
    if decision.verdict is Verdict.REJECT:
        raise Ended(FleetState.STOPPED, f"rejected by {decision.actor}; {step} on {name} had failed: {why.text}")
    if decision.verdict is Verdict.SKIP:
        run.skip(name, f"skipped by {decision.actor}; {step} failed: {why.text}")
        return False
    run.update_line(name, state=ServerState.PENDING, detail="")
    return True


def _tolerated(run: UpgradeRun, name: str, step: str, why: Failure) -> bool:
    rollout = run.fleet.rollout
    # All at once means all: only a person decides that a server stays behind.
    if run.all_at_once or rollout.on_failure != FailurePolicy.CONTINUE or len(run.skipped) >= rollout.max_failures:
        return False
    run.skip(name, f"{step} failed, within max_failures = {rollout.max_failures}: {why.text}")
    run.warn("skipped", name, f"left on {run.planned.old}: {step} failed: {why.text}")
    return True


def _gate(run: UpgradeRun, name: str, step: str, why: Failure) -> Gate:
    reject = "reject: end here, nothing was upgraded"
    old = run.planned.old
    skip = f"skip: leave it on {old}{cut_off(old, ', unreachable from v2 Core')}"
    verdicts: tuple[Verdict, ...] = (Verdict.RETRY, Verdict.REJECT if name == CORE else Verdict.SKIP)
    otherwise = reject if name == CORE else skip
    if run.all_at_once and name != CORE:
        verdicts, otherwise = (Verdict.RETRY, Verdict.SKIP, Verdict.REJECT), f"{skip}; {reject}"
    return Gate(
        id=run.gatekeeper.new_gate_id(f"failure/{slug(name)}", run.attempt(name)),
        kind=GateKind.FAILURE,
        question=f"{step} failed on {name}: retry?",
        facts=(why.text, f"nothing is switched yet: {old} runs everywhere", f"retry: try again; {otherwise}"),
        verdicts=verdicts,
        opened_at=workflow.now(),
        subject=name,
    )


def _core(run: UpgradeRun) -> tuple[str, ...]:
    """Core's own steps are left out where Core is on the target already."""
    return () if run.planned.core.current else (CORE,)


# --- on Core's host ---------------------------------------------------------------------------------------------------


async def _back_up_core(run: UpgradeRun) -> None:
    # The only step on Core's host that records which servers Core knows.
    step = run.core_step()
    step = replace(step, facts=replace(step.facts, servers=run.planned.core.servers))
    run.core_backup = await run_step(contracts.BACK_UP_CORE, step)


async def _dump_before(run: UpgradeRun) -> None:
    run.dumps.append(await take_proven_dump(run.core_step(), DumpLabel.BEFORE))


async def _stage_core(run: UpgradeRun) -> None:
    staged = await run_step(contracts.STAGE_CORE, run.core_step())
    run.image_pins = tuple(dict.fromkeys((*run.image_pins, *staged.image_pins)))
    run.record_images(dict(zip(staged.images, staged.digests, strict=False)))
    if run.all_at_once:
        # Created by the image that was just pulled. A second call returns the same pair.
        run.key = await run_step(contracts.STAGE_CORE_KEY, run.core_step())


@dataclass(frozen=True)
class Work:
    """What is done on every host, on servers and on Core's."""

    text: str
    step: PageStep
    on_core: Callable[[UpgradeRun], Awaitable[None]]


BACK_UP = Work("backing up", PageStep.BACK_UP, _back_up_core)
STAGE = Work("staging", PageStep.STAGE, _stage_core)
_DUMP = Work("dumping the database", PageStep.BACK_UP, _dump_before)


# --- proofs of dumps --------------------------------------------------------------------------------------------------


async def take_proven_dump(step: CoreStep, label: DumpLabel) -> DumpFacts:
    """Dump the database and prove the dump."""
    dump = await run_step(contracts.DUMP_DATABASE, DumpDatabase(**step.basis(), label=label))
    return await prove(step, dump)


async def prove(step: CoreStep, dump: DumpFacts) -> DumpFacts:
    """Restore a dump into a scratch database and compare, unless that is done or the fleet file switches it off."""
    if dump.proof is not None or step.fleet.database.proof != ProofPolicy.RESTORE:
        return dump
    return await run_step(contracts.PROVE_DUMP, DumpStep(**step.basis(), dump=dump))


def start_proof(run: UpgradeRun) -> None:
    """Prove the final dump during the rollout, where it costs no downtime."""
    run.proof_task = asyncio.create_task(_prove_final_dump(run))


async def wait_for_proof(run: UpgradeRun) -> None:
    """Wait for that proof: reports and rollbacks need its result."""
    if run.proof_task is not None:
        await run.proof_task


async def _prove_final_dump(run: UpgradeRun) -> None:
    dump = run.dump(DumpLabel.FINAL)
    if dump is None:
        return
    run.fingerprints.append(fingerprint_of(dump, Moment.BEFORE))
    try:
        proven = await prove(run.core_step(), dump)
    except FailureError as error:
        run.warn(
            "dump-unverified",
            CORE,
            f"the final dump could not be proven: {describe_failure(error).text}",
            "a rollback retries the proof before it stops anything; `rollback --database keep` does not need this dump",
        )
        return
    run.dumps = [proven if d == dump else d for d in run.dumps]


def fingerprint_of(dump: DumpFacts, moment: Moment) -> DatabaseFingerprint:
    """The contents of the database when this dump was taken, with no Core running."""
    return DatabaseFingerprint(moment=moment, at=dump.taken_at, collections=dump.collections)
