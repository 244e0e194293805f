"""Hosts that put themselves back: what a run says of their timers, and how it hears of one that fired."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from model.progress import ServerState
    from model.steps import Armed, DeadMan, ServerStep, Switched
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps
    from workflows.saga import each, trouble
    from workflows.state import Run

PUT_ITSELF_BACK = "PutItselfBack"
"""Type of the error that steps raise then (model/errors.py)."""
_AT_IT = timedelta(minutes=2)
"""From the end of its time until a host is back on v1, restore.sh's own waiting included."""
_LOOKS = 12
"""And a host that does not answer then is looked at again so many times, ever less often."""
_RARELY = timedelta(hours=1)


def unless(switched: Switched) -> str:
    """What comes after "waiting for Core to see it"."""
    at = switched.puts_itself_back_at
    return f"; unless Core logs in, it puts itself back at {at:%H:%M:%S} UTC" if at else ""


async def disarm(step: ServerStep) -> str:
    """After Core has confirmed the server. What went wrong, for people; raises when the timer was faster."""
    if not step.server.dead_man:
        return ""
    try:
        await steps.disarm_dead_man(step)
    except FailureError as error:
        why = trouble(error)
        if why.type == PUT_ITSELF_BACK:
            raise
        return f"its dead-man timer could not be disarmed; it stays silent, as Core has logged in: {why.text}"
    return ""


@contextlib.asynccontextmanager
async def watched(run: Run, name: str) -> AsyncIterator[None]:
    """While people are asked about an unproven server: its host may put itself back, and then that is what is shown."""
    outcome = run.outcomes[name]
    at = outcome.switched.puts_itself_back_at if outcome.switched else None
    if at is None or outcome.state is not ServerState.UNPROVEN:
        yield
        return
    task = asyncio.create_task(_look_when_over(run, name, max(at - workflow.now(), timedelta()) + _AT_IT))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, FailureError):
            await task


async def _look_when_over(run: Run, name: str, pause: timedelta) -> None:
    for _ in range(_LOOKS):
        await workflow.sleep(pause, summary=f"does {name} put itself back?")
        pause = min(max(2 * _AT_IT, pause), _RARELY)
        try:
            found = await steps.look_at_dead_man(run.server_step(name))
        except FailureError:
            # Not to be reached now. Whatever a person decides at the gate finds out.
            continue
        if found.state is Armed.FIRED:
            text = _put_back(run, name, found)
            run.line(name, state=ServerState.PARKED, detail=f"{ServerState.LEFT_ON_V1}: {text}")
            run.desk.tell(f"{name} put itself back", f"{text}\nIts gate is still open.")
            return
        if found.state is Armed.LOST:
            run.warn("dead-man-lost", name, "the machine was restarted: its dead-man timer is gone, it stays as it is")
            return
        if found.state not in (Armed.ARMED, Armed.FIRING):
            _failed(run, name, found)
            return


async def over_with_the_run(run: Run, *, last: bool = False) -> None:
    """Timers of servers that nobody waits for any more: ended, so that what is reported stays true.

    `last`: one that cannot be ended is told, because nobody tries again.
    """
    if run.rolled_back:
        return
    armed = {
        name: outcome.switched
        for name, outcome in run.outcomes.items()
        if outcome.state is ServerState.UNPROVEN and outcome.switched and outcome.switched.puts_itself_back_at
    }

    async def one(name: str) -> None:
        step, over = run.server_step(name), replace(armed[name], puts_itself_back_at=None)
        try:
            await steps.disarm_dead_man(step)
            run.outcomes[name] = replace(run.outcomes[name], switched=over)
        except FailureError as error:
            why = trouble(error)
            if why.type != PUT_ITSELF_BACK:
                if not last:
                    return
                at = f"{armed[name].puts_itself_back_at:%Y-%m-%d %H:%M:%S} UTC"
                text = f"its dead-man timer could not be ended: unless Core logs in, it puts itself back at {at}"
                run.warn("dead-man-armed", name, f"{text}: {why.text}")
                return
            found = await steps.look_at_dead_man(step)
            if found.state is Armed.FIRED:
                run.desk.tell(f"{name} put itself back", _put_back(run, name, found))
            else:
                _failed(run, name, found)
                run.outcomes[name] = replace(run.outcomes[name], switched=over)

    for name, error in (await each(armed, one)).items():
        run.warn("dead-man", name, f"what became of its dead-man timer is not known: {trouble(error).text}")


def _put_back(run: Run, name: str, found: DeadMan) -> str:
    outcome, version = run.outcomes[name], run.planned.server(name).version
    text = f"the host put itself back at {_when(found)}, on {version}: unreachable from v2 Core until it is upgraded"
    run.settled(
        replace(
            outcome,
            state=ServerState.LEFT_ON_V1,
            detail=f"{text}\nbefore that: {outcome.detail}",
            version_after=version,
            switched=None,
            pinned_key="",
            error_type=PUT_ITSELF_BACK,
        )
    )
    return text


def _failed(run: Run, name: str, found: DeadMan) -> None:
    if found.state is Armed.FAILED:
        text = f"at {_when(found)} it could not put itself back: run its restore.sh by hand"
        run.warn("dead-man-failed", name, text)


def _when(found: DeadMan) -> str:
    return f"{found.at:%Y-%m-%d %H:%M:%S} UTC" if found.at else "an unknown time"
