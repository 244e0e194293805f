"""Automatic rollback: a host restores itself if nothing confirms its new agent. How a run follows these timers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.fleet.spec import Event
from model.status import ServerState
from model.steps import Armed, AutoRollback, SavedServerStep, Switched
from model.text.versions import cut_off
from workflows.runtime.failures import FailureKind, describe_failure, each
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun

_RESTORE_TIME = timedelta(minutes=2)
"""From the end of the timer until the host runs v1, including the waiting of restore.sh."""
_CHECKS = 12
"""Checks of a host that does not answer, with growing pauses."""
_LONGEST_PAUSE = timedelta(hours=1)


def describe_timer(switched: Switched) -> str:
    """Progress text that follows "waiting for Core to see it"."""
    at = switched.auto_rollback_at
    return f"; unless Core logs in, the host restores v1 at {at:%H:%M:%S} UTC" if at else ""


async def disarm(step: SavedServerStep) -> str:
    """Disarm the timer after Core has confirmed the server. Returns what went wrong; raises if the timer was faster."""
    if not step.server.auto_rollback:
        return ""
    try:
        await run_step(contracts.DISARM_AUTO_ROLLBACK, step)
    except FailureError as error:
        why = describe_failure(error)
        if why.type == FailureKind.AUTO_ROLLED_BACK:
            raise
        return f"the automatic rollback could not be disarmed; it will not fire, as Core has logged in: {why.text}"
    return ""


@contextlib.asynccontextmanager
async def watched(run: UpgradeRun, name: str) -> AsyncIterator[None]:
    """While an unverified server waits for a decision, its host may roll back; then the gate and progress show that."""
    outcome = run.outcomes[name]
    at = outcome.switched.auto_rollback_at if outcome.switched else None
    if at is None or outcome.state is not ServerState.UNVERIFIED:
        yield
        return
    task = asyncio.create_task(_check_when_over(run, name, max(at - workflow.now(), timedelta()) + _RESTORE_TIME))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, FailureError):
            await task


async def _check_when_over(run: UpgradeRun, name: str, pause: timedelta) -> None:
    for _ in range(_CHECKS):
        await workflow.sleep(pause, summary=f"check the automatic rollback of {name}")
        pause = min(max(2 * _RESTORE_TIME, pause), _LONGEST_PAUSE)
        try:
            found = await run_step(contracts.CHECK_AUTO_ROLLBACK, run.saved_step(name))
        except FailureError:
            # It cannot be reached now. The decision at the gate will show what runs there.
            continue
        if found.state is Armed.FIRED:
            text = _record_rollback(run, name, found)
            run.update_line(name, state=ServerState.WAITING, detail=f"{ServerState.LEFT_ON_V1}: {text}")
            _notify(run, name, f"{text}\nIts gate is still open.")
            return
        if found.state is Armed.LOST:
            text = "the machine was restarted, so its automatic rollback timer is gone; it stays as it is"
            run.warn("auto-rollback-lost", name, text)
            return
        if found.state not in (Armed.ARMED, Armed.FIRING):
            _warn_if_failed(run, name, found)
            return


async def end_timers(run: UpgradeRun, *, last: bool = False) -> None:
    """End the timers of servers that no gate waits for, so that the report stays true.

    `last`: warn of a timer that could not be ended, because this is not retried.
    """
    if run.rolled_back:
        return
    armed = {
        name: outcome.switched
        for name, outcome in run.outcomes.items()
        if outcome.state is ServerState.UNVERIFIED and outcome.switched and outcome.switched.auto_rollback_at
    }

    async def one(name: str) -> None:
        step, over = run.saved_step(name), replace(armed[name], auto_rollback_at=None)
        try:
            await run_step(contracts.DISARM_AUTO_ROLLBACK, step)
            run.outcomes[name] = replace(run.outcomes[name], switched=over)
        except FailureError as error:
            why = describe_failure(error)
            if why.type != FailureKind.AUTO_ROLLED_BACK:
                if not last:
                    return
                at = f"{armed[name].auto_rollback_at:%Y-%m-%d %H:%M:%S} UTC"
                text = f"its automatic rollback could not be ended: unless Core logs in, the host restores v1 at {at}"
                run.warn("auto-rollback-armed", name, f"{text}: {why.text}")
                return
            found = await run_step(contracts.CHECK_AUTO_ROLLBACK, step)
            if found.state is Armed.FIRED:
                _notify(run, name, _record_rollback(run, name, found))
            else:
                _warn_if_failed(run, name, found)
                run.outcomes[name] = replace(run.outcomes[name], switched=over)

    for name, error in (await each(armed, one)).items():
        run.warn("auto-rollback", name, f"the state of its timer is unknown: {describe_failure(error).text}")


def _notify(run: UpgradeRun, name: str, text: str) -> None:
    run.gatekeeper.notify(Event.FAILURE, f"{name} rolled back automatically", text)


def _record_rollback(run: UpgradeRun, name: str, found: AutoRollback) -> str:
    outcome, version = run.outcomes[name], run.planned.server(name).version
    away = cut_off(version, ": unreachable from v2 Core")
    text = f"the host rolled back automatically at {_when(found)}, to {version}{away}"
    run.set_outcome(
        replace(
            outcome,
            state=ServerState.LEFT_ON_V1,
            detail=f"{text}\nbefore that: {outcome.detail}",
            version_after=version,
            switched=None,
            pinned_key="",
            error_type=FailureKind.AUTO_ROLLED_BACK,
        )
    )
    return text


def _warn_if_failed(run: UpgradeRun, name: str, found: AutoRollback) -> None:
    if found.state is Armed.FAILED:
        text = f"its automatic rollback failed at {_when(found)}: run its restore.sh by hand"
        run.warn("auto-rollback-failed", name, text)


def _when(found: AutoRollback) -> str:
    return f"{found.at:%Y-%m-%d %H:%M:%S} UTC" if found.at else "an unknown time"
