"""Soak: after each wave, its servers are watched before the next one begins. A server that fails is asked about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.facts import Finding
from model.plan import Wave
from model.planning import core_without_diffs
from model.status import ServerState
from model.watch import StatsAt, WatchCheck, WatchStep
from workflows.runtime.failures import describe_failure
from workflows.runtime.run import CORE
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun

EVERY = timedelta(minutes=1)
"""Between two checks; longer where Core polls its servers less often."""
STILL = timedelta(minutes=6)
"""Stats that are equal after this time are frozen: an agent makes new ones every `stats_polling_rate`, 5 s by default
(v2.3.2:config/periphery.config.toml)."""

Resolve = Callable[[UpgradeRun, str], Awaitable[None]]


async def soak(run: UpgradeRun, wave: Wave, resolve: Resolve) -> None:
    """Watch the servers of the wave for `[verify] soak`. `resolve` asks what to do about one that fails."""
    names = (*(run.planned.with_core if wave.number == 1 else ()), *wave.servers)
    if not run.fleet.soak or not _upgraded(run, names):
        return
    if not run.planned.core.api:
        run.warn(
            "soak", CORE, f"wave {wave.number} was not watched: only Core's API can tell", "give an API key of an admin"
        )
        return
    since = workflow.now()
    end = since + run.fleet.soak
    every = max(EVERY, 2 * run.planned.core.monitoring_interval)
    taken: tuple[StatsAt, ...] = ()
    taken_at = since
    while (watched := _upgraded(run, names)) and (now := workflow.now()) < end and not run.gatekeeper.stopping:
        for name in watched:
            run.update_line(name, step=f"watched until {end:%H:%M:%S} UTC")
        await _pause(run, min(every, end - now))
        compare = taken if workflow.now() - taken_at >= STILL else ()
        check = await _check(run, watched, since, compare)
        if compare or not taken:
            taken, taken_at = check.stats, workflow.now()
        for name in watched:
            if found := [finding for finding in check.findings if finding.subject == name]:
                _fail(run, name, found)
                await resolve(run, name)
    for name in _upgraded(run, names):
        run.update_line(name, step="")


def _upgraded(run: UpgradeRun, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(n for n in names if n in run.outcomes and run.outcomes[n].state is ServerState.UPGRADED)


async def _pause(run: UpgradeRun, pause: timedelta) -> None:
    """Until the next check; shorter if somebody stops, pauses or rolls back."""
    try:
        await workflow.wait_condition(lambda: run.gatekeeper.interrupted, timeout=pause, timeout_summary="soak")
    except TimeoutError:
        return
    await run.gatekeeper.safe_point()


async def _check(run: UpgradeRun, servers: tuple[str, ...], since: datetime, before: tuple[StatsAt, ...]) -> WatchCheck:
    step = WatchStep(
        fleet=replace(run.fleet, servers=()),
        change=run.change,
        core=replace(core_without_diffs(run.planned.core), servers=(), findings=(), sources=(), edits=()),
        servers=servers,
        since=since,
        before=before,
    )
    try:
        check = await run_step(contracts.WATCH_FLEET, step)
    except FailureError as error:
        run.warn("soak", CORE, f"servers could not be watched: {describe_failure(error).text}")
        return WatchCheck(stats=before)
    for finding in check.findings:
        if finding.subject not in servers:
            run.warn(finding.code, finding.subject, finding.text, finding.hint)
    return check


def _fail(run: UpgradeRun, name: str, found: list[Finding]) -> None:
    """The server counts as unverified: a retry restarts its agent and verifies it again."""
    text = f"it failed its soak: {'; '.join(finding.text for finding in found)}"
    run.set_outcome(replace(run.outcomes[name], state=ServerState.UNVERIFIED, detail=text, proof=None))
