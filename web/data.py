"""What a page needs from Temporal: the list of runs, or the newest run of one fleet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio.client import Client

from model.errors import NoWorker, TemporalUnavailable, UpgradeError
from model.plan import Plan
from model.status import FleetProgress, FleetResult
from model.watch import WatchReport
from service.client import Upgrade
from service.history import detailed, result_of, watch_of
from service.upgrades import Run, runs

NEWEST = 30
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The newest run of a fleet. A running one has `progress`, a closed one its `result`."""

    run: Run
    progress: FleetProgress | None = None
    plan: Plan | None = None
    result: FleetResult | None = None
    watch: WatchReport | None = None
    problem: UpgradeError | None = None
    """Why neither could be read; the run itself is safe in Temporal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run in the list."""

    run: Run
    progress: FleetProgress | None = None
    state: str = ""
    """Of a closed run."""


async def load(client: Client, fleet: str) -> FleetView:
    """Raises NoSuchUpgrade, TemporalUnavailable."""
    upgrade = Upgrade(client, fleet)
    run = await upgrade.describe()
    if not run.is_running:
        return await _closed(client, run)
    try:
        progress = await upgrade.progress(steps=True)
        plan = await upgrade.plan() if progress.gate else None
    except (NoWorker, TemporalUnavailable) as error:
        return FleetView(run=run, problem=error)
    return FleetView(run=run, progress=progress, plan=plan)


async def _closed(client: Client, run: Run) -> FleetView:
    result = await result_of(client, run)
    if result is None:
        error = NoWorker(
            f"the run was {run.status.replace('_', ' ')} and left no result, and no worker answers for its last state",
            hint=f"komodo-upgrade status {run.fleet}",
        )
        return FleetView(run=run, problem=error)
    result = await detailed(client, run, result)
    return FleetView(run=run, result=result, watch=await watch_of(client, run.fleet, result.change))


async def fleets(client: Client) -> list[Listed]:
    """The newest runs, the running ones first."""
    found: list[Run] = []
    async for run in runs(client):
        found.append(run)
        if len(found) == NEWEST:
            break
    limit = asyncio.Semaphore(_AT_ONCE)
    listed = await asyncio.gather(*(_listed(client, run, limit) for run in found))
    return sorted(listed, key=lambda one: not one.run.is_running)


async def _listed(client: Client, run: Run, limit: asyncio.Semaphore) -> Listed:
    async with limit:
        if run.is_running:
            try:
                return Listed(run=run, progress=await Upgrade(client, run.fleet).progress())
            except UpgradeError:
                return Listed(run=run)
        result = await result_of(client, run) if run.status == "completed" else None
        return Listed(run=run, state=result.state.value if result else run.status.replace("_", " "))
