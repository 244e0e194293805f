"""Proof of dumps: a dump is restored into a scratch database before anything relies on it."""

from __future__ import annotations

import asyncio

from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import DatabaseFingerprint, DumpFacts, DumpLabel, Moment
from model.fleet.spec import ProofPolicy
from model.steps import CoreStep, DumpDatabase, DumpStep
from workflows.runtime.failures import describe_failure
from workflows.runtime.run import CORE
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


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
