"""Dumps that were restored once before anybody relies on them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from model.facts import DatabasePrint, DumpFacts
    from model.steps import CoreStep
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps
    from workflows.saga import trouble
    from workflows.state import CORE, Run

BEFORE, AFTER, BACK = "before the upgrade", "after the upgrade", "after the rollback"
"""The moments of which a report shows what the database held."""


async def proven_dump(step: CoreStep) -> DumpFacts:
    """`step.label`, dumped and proven."""
    return await prove(step, await steps.dump_database(step))


async def prove(step: CoreStep, dump: DumpFacts) -> DumpFacts:
    """Restored beside its source and compared; nothing where that is done, or the fleet file does without."""
    if dump.proof is not None or step.fleet.database.proof != "restore":
        return dump
    return await steps.prove_dump(replace(step, dump=dump))


def begin(run: Run) -> None:
    """The final dump is proven beside the rollout, so it costs no downtime."""
    run.proving = asyncio.create_task(_final(run))


async def join(run: Run) -> None:
    """Nothing is reported, and nothing is rolled back, before it is known whether the final dump is one."""
    if run.proving is not None:
        await run.proving


async def _final(run: Run) -> None:
    dump = run.dump("final")
    if dump is None:
        return
    run.prints.append(print_of(dump, BEFORE))
    try:
        proven = await prove(run.core_step(), dump)
    except FailureError as error:
        run.warn(
            "dump-unproven",
            CORE,
            f"the final dump could not be proven: {trouble(error).text}",
            "a rollback tries again before it stops anything; `rollback --database keep` does not need this dump",
        )
        return
    run.dumps = [proven if d == dump else d for d in run.dumps]


def print_of(dump: DumpFacts, moment: str) -> DatabasePrint:
    """What the database held when this dump of the quiet one was taken."""
    return DatabasePrint(moment=moment, at=dump.taken_at, collections=dump.collections)
