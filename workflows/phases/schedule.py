"""When a run goes on: `start --at`, and the maintenance windows in which Core and waves begin."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from model.fleet.spec import Event
from model.fleet.windows import FindWindows, Window
from model.status import FleetState, Phase, Waiting
from workflows.runtime.failures import describe_failure
from workflows.runtime.run import Ended
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun


async def wait_for_start(run: UpgradeRun) -> None:
    """`start --at`: no host is contacted before. Raises Stopped."""
    if run.start_at:
        await _wait(run, run.start_at, "start --at")


async def read_windows(run: UpgradeRun) -> None:
    """Resolve the windows before anything begins. Raises Ended if the worker cannot, which a person has to fix."""
    try:
        await _next_window(run)
    except FailureError as error:
        raise Ended(FleetState.REFUSED, f"{describe_failure(error).text}; nothing was changed") from error


async def wait_for_window(run: UpgradeRun) -> None:
    """Return inside a maintenance window, at once if there are none or one is open. Raises Stopped."""
    while (window := await _next_window(run)) and window.begin > workflow.now():
        await _wait(run, window.begin, f"maintenance window: {', '.join(run.fleet.rollout.window)}")


async def is_open(run: UpgradeRun) -> bool:
    """Whether new work may begin now."""
    window = await _next_window(run)
    return window is None or window.begin <= workflow.now()


async def _next_window(run: UpgradeRun) -> Window | None:
    """The window that is open, or else the next one; None: there are none, so work may begin at any time.

    Time zones are rules that change with the system, so the worker resolves them in a step: a replay gets the same
    answer. One answer covers weeks.
    """
    texts = run.fleet.rollout.window
    if not texts:
        return None
    if not any(window.end > workflow.now() for window in run.windows):
        ask = FindWindows(texts=texts, after=workflow.now(), timing=run.fleet.timing)
        run.windows = (await run_step(contracts.FIND_WINDOWS, ask)).windows
    return next((window for window in run.windows if window.end > workflow.now()), None)


async def _wait(run: UpgradeRun, until: datetime, why: str) -> None:
    if until <= workflow.now():
        return
    phase = run.phase
    run.waiting = Waiting(until=until, why=why)
    run.enter(Phase.SCHEDULED)
    subject = f"the upgrade continues at {until:%Y-%m-%d %H:%M} UTC"
    run.gatekeeper.notify(Event.REMINDER, subject, f"It waits for: {why}.")
    try:
        await run.gatekeeper.wait_until(until, why)
    finally:
        run.waiting = None
    run.enter(phase)
