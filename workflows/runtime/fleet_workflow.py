"""The base of UpgradeFleet and RollbackFleet: messages and queries of operators, and the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, FailureError

from model.fleet.spec import Event
from model.gates import (
    QUERY_PLAN,
    QUERY_PLAN_PAGE,
    QUERY_PROGRESS,
    QUERY_RESULT,
    QUERY_RESULT_PAGE,
    SIGNAL_CONTROL,
    SIGNAL_DECIDE,
    Control,
    Decision,
    Recorded,
)
from model.pages.results import plan_page, result_page, shortened, shortened_plan
from model.plan import Plan
from model.status import FleetProgress, FleetResult, Phase, PlanPage, ResultPage
from workflows.runtime import messages
from workflows.runtime.failures import describe_failure, finish
from workflows.runtime.gates import Stopped
from workflows.runtime.inbox import Inbox
from workflows.runtime.run import Ended, Run


class FleetWorkflow:
    """Message handlers only record; the work is done in `run`."""

    _run: Run
    _cancelled = False

    def __init__(self) -> None:
        self._inbox = Inbox()

    # --- from the first phase to the result ---------------------------------------------------------------------------

    async def complete(self, phases: Coroutine[Any, Any, None], close: Callable[[], Awaitable[None]]) -> FleetResult:
        """Run the phases, then close the run, whatever they ended with. Raises CancelledError after a cancel."""
        self._run.end = await self._run_phases(phases)
        result = await finish(self._close(close))
        if self._cancelled:
            raise asyncio.CancelledError
        return result

    def on_cancel(self, phases: asyncio.Task[Ended]) -> None:
        """Temporal's Cancel arrived while the phases run: cancel them, or let them end in a safe way."""
        raise NotImplementedError

    async def _run_phases(self, phases: Coroutine[Any, Any, None]) -> Ended:
        task = asyncio.create_task(self._end_of(phases))
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.done():
                    self.on_cancel(task)
        return task.result()

    async def _end_of(self, phases: Coroutine[Any, Any, None]) -> Ended:
        """Unexpected exceptions propagate and suspend the workflow task until the code is fixed."""
        try:
            await phases
        except Ended as end:
            return end
        except Stopped as stopped:
            return self._run.end_stopped(str(stopped))
        except (asyncio.CancelledError, FailureError) as error:
            return self._run.end_failed(describe_failure(error))
        return self._run.end_normally()

    async def _close(self, close: Callable[[], Awaitable[None]]) -> FleetResult:
        await close()
        if workflow.info().parent is None:  # a rollback that an upgrade began ends with that upgrade
            self._run.gatekeeper.notify(Event.END, *messages.end_notice(self._run.result()))
        await self._run.gatekeeper.wait_for_notices()
        self._run.enter(Phase.DONE)
        self._run.show_now()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return shortened(self._run.result())

    # --- messages -----------------------------------------------------------------------------------------------------

    @workflow.signal(dynamic=True, description="decide and control. Works with every worker down.")
    def receive_signal(self, name: str, args: Sequence[RawValue]) -> None:
        """Never raises, because an exception here would fail the run. `status` shows refused messages."""
        gatekeeper = self._run.gatekeeper
        what = f"the signal {name}"
        try:
            message = self._read(name, args)
            what = _describe(message)
            if isinstance(message, Decision):
                gatekeeper.decide(message)
            else:
                gatekeeper.control(message)
        except ApplicationError as error:
            gatekeeper.ignore(what, error)
        finally:
            self._inbox.keep(args)

    @workflow.update(dynamic=True, description="decide and control, with an answer at once.")
    def receive_update(self, name: str, args: Sequence[RawValue]) -> Recorded | Control:
        """The decision as it was recorded, or the control. ApplicationError types: see docs/approvals.md."""
        gatekeeper = self._run.gatekeeper
        try:
            message = self._read(name, args)
        finally:
            self._inbox.keep(args)
        return gatekeeper.decide(message) if isinstance(message, Decision) else gatekeeper.control(message)

    @receive_update.validator
    def _check_update(self, name: str, args: Sequence[RawValue]) -> None:
        message = self._read(name, args)
        gatekeeper = self._run.gatekeeper
        refused = gatekeeper.check(message) if isinstance(message, Decision) else gatekeeper.check_control(message)
        if refused:
            raise refused

    def _read(self, name: str, args: Sequence[RawValue]) -> Decision | Control:
        if name == SIGNAL_DECIDE:
            return self._inbox.read(args, Decision)
        if name == SIGNAL_CONTROL:
            return self._inbox.read(args, Control)
        known = f"{SIGNAL_DECIDE} and {SIGNAL_CONTROL}"
        raise ApplicationError(f"this run knows {known}", type="MessageRefused", non_retryable=True)

    # --- queries ------------------------------------------------------------------------------------------------------

    @workflow.query(name=QUERY_PROGRESS, description="Phase, open gate, every server's state.")
    def progress(self) -> FleetProgress:
        """What `status` and `watch` show."""
        return self._run.progress()

    @workflow.query(name=QUERY_PLAN, description="What one approval covers; null while it is being made.")
    def plan(self) -> Plan | None:
        """The current plan; of a rollback, that of the upgrade. Of a large fleet without its servers."""
        return self._run.plan and shortened_plan(self._run.plan)

    @workflow.query(name=QUERY_PLAN_PAGE, description="Part of the plan, by its number.")
    def plan_page(self, number: int) -> PlanPage:
        """A page of servers with all details."""
        return plan_page(self._run.plan, number)

    @workflow.query(name=QUERY_RESULT, description="The result so far, also of a cancelled or terminated run.")
    def result(self) -> FleetResult:
        """The input of a rollback. Of a large fleet as the workflow returns it."""
        return shortened(self._run.result())

    @workflow.query(name=QUERY_RESULT_PAGE, description="Part of the result so far, by its number.")
    def result_page(self, number: int) -> ResultPage:
        """A page of servers with all details."""
        return result_page(self._run.result(), number)


def _describe(message: Decision | Control) -> str:
    actor = message.actor.strip() or "an unnamed actor"
    if isinstance(message, Decision):
        return f"{message.verdict} for gate {message.gate} from {actor}"
    return f"{message.verb} from {actor}"
