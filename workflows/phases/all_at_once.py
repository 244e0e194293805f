"""`mode = "all-at-once"`: every agent is switched while Core starts, with a key that was created in advance.

What can fail without an agent is done before: the final dump is taken and the files are written, so a failure up to
there is undone without touching an agent. From the start of v2 Core on, v1 agents are unreachable anyway. An agent that
is not up when v2 Core connects waits for Core's next try, 5 s later.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow

from model.status import Phase
from workflows.phases import core, rollout, staging
from workflows.runtime.failures import each
from workflows.runtime.upgrade_run import UpgradeRun


async def upgrade(run: UpgradeRun) -> None:
    """Upgrade Core and all agents. Failed servers are handled afterwards, like those of a wave."""
    run.enter(Phase.CORE)
    await core.prepare_switch(run)
    run.begun = run.core_begun = True
    names = (*run.planned.with_core, *run.planned_servers)
    agents = asyncio.create_task(rollout.upgrade_servers(run, names, prove=False))
    proofs: list[asyncio.Task[None]] = []

    def verify_agents() -> None:
        # At once: the downtime of a server is measured until the first check that finds it.
        proofs.append(asyncio.create_task(_prove(run, names, after=proofs[-1:])))

    try:
        # No gate opens, and nothing is rolled back, while an agent is being switched.
        await core.start(run, on_start=verify_agents, before_gate=lambda: workflow.wait((agents,)))
        await asyncio.gather(agents, *proofs)
    finally:
        for proof in proofs:
            proof.cancel()
    # The proof restores a dump next to the live database: only when nothing waits for Core any more.
    staging.start_proof(run)


async def _prove(run: UpgradeRun, names: tuple[str, ...], *, after: list[asyncio.Task[None]]) -> None:
    """Verify every agent from Core's side. `after`: the same for an earlier start of Core that was retried."""
    if after:
        await workflow.wait(after)
    pages = _pages(names, run.fleet.page) if run.fleet.is_paged else {name: (name,) for name in names}
    await each(pages, lambda page: rollout.prove(run, pages[page]))


def _pages(names: tuple[str, ...], size: int) -> dict[str, tuple[str, ...]]:
    """Of a large fleet a page is verified once all of its servers are switched."""
    return {str(start): names[start : start + size] for start in range(0, len(names), size)}
