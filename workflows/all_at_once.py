"""`mode = "together"`: every agent is switched while Core is started, with Core's key made beforehand.

What can fail without an agent has been done by then: the final dump is proven and the files are written, so a failure
up to there undoes itself without touching an agent. From the start of v2 on nobody talks to a v1 agent anyway; whoever
is not there when v2 Core looks waits for its next try, 5 s later.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.progress import Phase
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import core_upgrade, proving, rollout
    from workflows.saga import each
    from workflows.state import Run


async def upgrade(run: Run) -> None:
    """Core and all agents. Servers that are not good are asked about afterwards, as those of a wave are."""
    run.enter(Phase.CORE)
    await core_upgrade.to_the_switch(run)
    run.begun = run.core_begun = True
    own = asyncio.create_task(core_upgrade.begin_agent(run))
    agents = asyncio.create_task(each(run.waiting, lambda name: rollout.switch_only(run, name)))
    proofs: list[asyncio.Task[None]] = []

    def answers() -> None:
        # As soon as Core can be asked: how long a server was dark is told by the first look that finds it.
        proofs.append(asyncio.create_task(_prove(run, own, after=proofs[-1:])))

    try:
        # Nothing is asked, and nothing rolled back, while an agent is in the middle of its switch.
        await core_upgrade.start(run, answers=answers, before_asking=lambda: workflow.wait((own, agents)))
        await asyncio.gather(agents, *proofs)
    finally:
        for proof in proofs:
            proof.cancel()
    # Restores a dump beside the live database: only once nobody waits for Core any more.
    proving.begin(run)
    await core_upgrade.switch_agent(run)


async def _prove(run: Run, own: asyncio.Task[None], *, after: list[asyncio.Task[None]]) -> None:
    """Core's word for every agent. `after`: the same for an earlier start of Core, which somebody said to try again."""
    if after:
        await workflow.wait(after)

    async def agent() -> None:
        await asyncio.shield(own)
        await core_upgrade.prove_agent(run)

    await asyncio.gather(agent(), each(run.waiting, lambda name: rollout.prove(run, name)))
