"""The desk where people's messages arrive: gates, decisions, pause, stop, rollback, reminders.

Rules: a gate's id is used once; a decision names its gate; what is early, late, repeated or malformed changes nothing
and is kept for people to read. All state changes happen in the handlers; all waiting happens in the workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from model.decisions import Control, ControlVerb, Decision, Gate, GateKind, Recorded, Verdict
    from model.fleet import Clocks, FleetSpec, workflow_id
    from model.steps import Notice
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import steps
    from workflows.saga import trouble

_GO_ON = (Verdict.APPROVE, Verdict.RETRY)
_SHORTEST = timedelta(seconds=1)
"""A reminder of zero would be an endless loop."""


class Stopped(Exception):
    """Nothing new starts any more. The text says who wanted it."""


@dataclass
class _Waiting:
    """Since when a question is open, and when people hear of it next."""

    since: datetime
    next: datetime
    timeout: datetime
    reminders: int = 0
    over: bool = False


class Desk:
    """One per workflow that people talk to."""

    def __init__(self, fleet: FleetSpec, changed: Callable[[], None]) -> None:
        self.paused = False
        self.stopping = ""
        """Who wanted it and why; empty: nobody."""
        self.rollback_asked: Control | None = None
        self.on_rollback: Callable[[Control], Awaitable[None]] | None = None
        """Asks the gate `rollback` and rolls back. Returns when it was rejected. None: there is nothing to ask."""
        self.controls: list[Control] = []
        self.recorded: list[Recorded] = []
        self.ignored: list[str] = []
        self._fleet = fleet
        self.changed = changed
        """Shows the new state to people."""
        self._open: list[Gate] = []
        self._used: list[str] = []
        self._answers: dict[str, Recorded] = {}
        self._notices: list[asyncio.Task[None]] = []

    # --- what people see ----------------------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate | None:
        """The question that can be answered now. A rollback's question covers the one that was open before."""
        return self._open[-1] if self._open else None

    @property
    def clocks(self) -> Clocks:
        """The fleet's."""
        return self._fleet.clocks

    @property
    def interrupted(self) -> bool:
        """New work has to wait, or must not begin at all."""
        return self.paused or bool(self.stopping) or self.rollback_asked is not None

    def fresh(self, prefix: str, number: int = 1, *, bare_first: bool = False) -> str:
        """A gate id that was never used: `prefix/number`, or a higher number. `bare_first`: number 1 is left out."""
        while True:
            name = prefix if bare_first and number == 1 else f"{prefix}/{number}"
            if name not in self._used:
                return name
            number += 1

    # --- messages: never wait, never change anything before they are checked ------------------------------------------

    def check(self, decision: Decision) -> ApplicationError | None:
        """Why this decision cannot be taken now; None when it can."""
        if not decision.actor.strip():
            return _refused("ActorMissing", "a decision must say who decides: set `actor`")
        gate = self.gate
        if gate is None or gate.id != decision.gate:
            return _refused("GateNotOpen", self._not_open(decision.gate))
        if decision.verdict not in gate.verdicts:
            allowed = ", ".join(gate.verdicts)
            text = f"gate {gate.id} does not take {decision.verdict}; it takes: {allowed}"
            return _refused("VerdictNotAllowed", text)
        named, asked = decision.plan_digest, gate.plan_digest
        if asked and named != asked and (named or decision.verdict is Verdict.APPROVE):
            said = f"this decision is about plan {named}" if named else "this decision names no plan"
            text = f"gate {gate.id} is about plan {asked}, {said}: look at the plan again and approve that one"
            return _refused("PlanDigestMismatch", text)
        return None

    def decide(self, decision: Decision) -> Recorded:
        """Take a decision. Raises what `check` says, so it is safe after a validator and without one."""
        refused = self.check(decision)
        if refused:
            raise refused
        recorded = Recorded(decision=decision, at=workflow.now())
        self._answers[decision.gate] = recorded
        self.recorded.append(recorded)
        self._open.remove(self._open[-1])
        self.changed()
        return recorded

    def check_control(self, control: Control) -> ApplicationError | None:
        """Why this cannot be done now; None when it can."""
        if not control.actor.strip():
            return _refused("ActorMissing", f"{control.verb} must say who wants it: set `actor`")
        if self.stopping:
            text = f"it is stopping already ({self.stopping}); start again to go on from there"
            return _refused("ControlNotPossible", text)
        if control.verb is not ControlVerb.ROLLBACK:
            return None
        if self.on_rollback is None:
            return _refused("ControlNotPossible", "this is a rollback already")
        if self.rollback_asked or (self.gate and self.gate.kind is GateKind.ROLLBACK):
            return _refused("ControlNotPossible", "a rollback was asked for already: answer its gate")
        return None

    def control(self, control: Control) -> Control:
        """Pause, resume, stop, ask for a rollback. Raises what `check_control` says."""
        refused = self.check_control(control)
        if refused:
            raise refused
        self.controls.append(control)
        if control.verb is ControlVerb.STOP:
            self.stop(f"stopped by {control.actor}" + (f": {control.reason}" if control.reason else ""))
        elif control.verb is ControlVerb.ROLLBACK:
            self.rollback_asked = control
        else:
            self.paused = control.verb is ControlVerb.PAUSE
        self.changed()
        return control

    def stop(self, why: str) -> None:
        """Nothing new starts. There is no way back from it: a later start goes on from there."""
        self.stopping = self.stopping or why
        self.changed()

    def ignore(self, what: str, error: ApplicationError) -> None:
        """A signal that changes nothing: nobody waits for an answer, so it is kept where people look."""
        workflow.logger.warning("ignored a message", extra={"what": what, "why": error.message})
        self.ignored.append(f"ignored {what}: {error.message}")
        self.changed()

    def _not_open(self, name: str) -> str:
        answer = self._answers.get(name)
        if answer:
            said = answer.decision
            return f"gate {name} was answered already: {said.verdict} by {said.actor} at {answer.at:%H:%M:%S} UTC"
        now = f"open now: {self.gate.id}" if self.gate else "no gate is open now"
        return f"gate {name} is not open; {now}"

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def ask(self, gate: Gate, *, urgent: bool = False) -> Recorded:
        """Open a gate and wait for its answer, however long that takes; people are reminded.

        `urgent` is for what a pause must not hold: the gate `rollback`. Raises Stopped.
        """
        self._used.append(gate.id)
        self._open.append(gate)
        self.changed()
        now = workflow.now()
        rollout = self._fleet.rollout
        reminder = max(rollout.gate_reminder, _SHORTEST)
        waiting = _Waiting(since=now, next=now + reminder, timeout=now + rollout.gate_timeout)
        self.tell(f"{gate.question}", "\n".join((*gate.facts, self._how_to_answer(gate))))
        try:
            while gate.id not in self._answers:
                await self._interruptions(covered=urgent)
                await self._wait_for(gate, waiting, urgent=urgent)
        finally:
            if gate in self._open:
                self._open.remove(gate)
                self.changed()
        recorded = self._answers[gate.id]
        if recorded.decision.verdict in _GO_ON and not urgent:
            await self.safe_point()
        return recorded

    async def offer(self, gate: Gate, over: Callable[[], bool]) -> Recorded | None:
        """A question beside work that goes on: no pause, stop or time-out closes it. None once `over` says so.

        Whoever asked cancels it when it is moot.
        """
        self._used.append(gate.id)
        self._open.append(gate)
        self.changed()
        said = "\n".join((*gate.facts, self._how_to_answer(gate)))
        self.tell(gate.question, said)
        try:
            while gate.id not in self._answers and not over():
                try:
                    await workflow.wait_condition(
                        lambda: gate.id in self._answers or over(),
                        timeout=max(self._fleet.rollout.gate_reminder, _SHORTEST),
                        timeout_summary=f"remind {gate.id}",
                    )
                except TimeoutError:
                    self.tell(f"reminder, gate {gate.id}: {gate.question}", said)
        finally:
            if gate in self._open:
                self._open.remove(gate)
                self.changed()
        return self._answers.get(gate.id)

    async def safe_point(self) -> None:
        """Where new work may begin: waits while paused, asks for the rollback that somebody wants. Raises Stopped."""
        while True:
            await self._interruptions(covered=False)
            if not self.paused:
                return
            reminder = max(self._fleet.rollout.gate_reminder, _SHORTEST)
            try:
                await workflow.wait_condition(
                    lambda: not self.paused or bool(self.stopping) or self.rollback_asked is not None,
                    timeout=reminder,
                    timeout_summary="remind: paused",
                )
            except TimeoutError:
                self.tell("the upgrade is still paused", "Resume it, or stop it.")

    async def _interruptions(self, *, covered: bool) -> None:
        if self.stopping:
            raise Stopped(self.stopping)
        if covered or self.rollback_asked is None:
            return
        asked, self.rollback_asked = self.rollback_asked, None
        if self.on_rollback is not None:
            await self.on_rollback(asked)

    async def _wait_for(self, gate: Gate, waiting: _Waiting, *, urgent: bool) -> None:
        until = waiting.next if waiting.over else min(waiting.next, waiting.timeout)
        try:
            await workflow.wait_condition(
                lambda: gate.id in self._answers or bool(self.stopping) or (not urgent and bool(self.rollback_asked)),
                timeout=max(until - workflow.now(), timedelta()),
                timeout_summary=f"remind {gate.id}",
            )
        except TimeoutError:
            self._remind(gate, waiting)

    def _remind(self, gate: Gate, waiting: _Waiting) -> None:
        rollout, now = self._fleet.rollout, workflow.now()
        if now >= waiting.timeout and not waiting.over:
            waiting.over = True
            if rollout.on_gate_timeout == "stop":
                self.stop(f"gate {gate.id} was not answered within {rollout.gate_timeout}")
                return
        if now >= waiting.next:
            waiting.next = now + max(rollout.gate_reminder, _SHORTEST)
        waiting.reminders += 1
        self.tell(*self._reminder(gate, waiting))

    def _reminder(self, gate: Gate, waiting: _Waiting) -> tuple[str, str]:
        since = f"{waiting.since:%Y-%m-%d %H:%M} UTC"
        end = f"{waiting.timeout:%Y-%m-%d %H:%M} UTC"
        if waiting.over:
            subject = f"OVERDUE, gate {gate.id} waits since {since}: {gate.question}"
            text = f"Its time was over at {end}. The upgrade holds until somebody answers."
        else:
            subject = f"reminder {waiting.reminders}, gate {gate.id} waits since {since}: {gate.question}"
            then = "the upgrade stops" if self._fleet.rollout.on_gate_timeout == "stop" else "this becomes urgent"
            text = f"At {end} {then}."
        return subject, "\n".join((text, *gate.facts, self._how_to_answer(gate)))

    def _how_to_answer(self, gate: Gate) -> str:
        verdicts = ", ".join(gate.verdicts)
        return f"Gate {gate.id} of {workflow_id(self._fleet.name)} takes: {verdicts}."

    # --- telling ------------------------------------------------------------------------------------------------------

    def tell(self, subject: str, text: str) -> None:
        """Send a message to people without waiting for it."""
        notice = Notice(fleet=self._fleet.name, subject=subject, text=text, command=self._fleet.notify_command)
        self._notices = [task for task in self._notices if not task.done()]
        self._notices.append(asyncio.create_task(self._send(notice)))

    async def told(self) -> None:
        """Before the workflow ends: what is still on its way arrives."""
        await asyncio.gather(*self._notices)

    async def _send(self, notice: Notice) -> None:
        try:
            await steps.notify(notice, self._fleet.clocks)
        except FailureError as error:
            self.ignored.append(f"a message did not reach anybody: {notice.subject}: {trouble(error).text}")


def _refused(kind: str, text: str) -> ApplicationError:
    return ApplicationError(text, type=kind, non_retryable=True)
