"""The gatekeeper: gates and decisions, pause, stop and rollback, reminders.

A gate id is used once, and a decision names its gate. A message that is early, late, repeated or malformed changes
nothing; it is kept for people to read. State changes happen in the message handlers, waiting in the workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from activities import contracts
from model.fleet.spec import Event, FleetSpec, TimeoutPolicy, Timing, workflow_id
from model.gates import Control, ControlVerb, Decision, Gate, GateKind, Recorded, Verdict
from model.steps import Notice
from model.text.outside import single_line
from workflows.runtime.failures import describe_failure
from workflows.runtime.steps import run_step

_CONTINUE = (Verdict.APPROVE, Verdict.RETRY)
MOST_WARNINGS = 50
MOST_CONTROLS = 100
"""The newest ones that are shown: the state has to fit into the answer of a query."""
_LONGEST_WARNING = 500
_SHORTEST_REMINDER = timedelta(seconds=1)
"""A reminder of zero would be an endless loop."""


class Stopped(Exception):
    """The run must not start anything new. The text names the actor and the reason."""


@dataclass
class _OpenGate:
    """The timers of an open gate."""

    since: datetime
    next: datetime
    timeout: datetime
    reminders: int = 0
    over: bool = False


class GateKeeper:
    """One per workflow that takes decisions."""

    def __init__(self, fleet: FleetSpec, show: Callable[[], None]) -> None:
        self.paused = False
        self.stopping = ""
        """Actor and reason; empty: not stopping."""
        self.rollback_asked: Control | None = None
        self.on_rollback: Callable[[Control], Awaitable[None]] | None = None
        """Opens the gate `rollback` and rolls back; returns if that was rejected. None: this run is a rollback."""
        self.controls: list[Control] = []
        self.recorded: list[Recorded] = []
        self.ignored: list[str] = []
        self._warnings = 0
        self._fleet = fleet
        self._show = show
        self._open: list[Gate] = []
        self._used: list[str] = []
        self._answers: dict[str, Recorded] = {}
        self._not_notified: list[str] = []
        """Problems of notices, each reported once."""
        self._notices: list[asyncio.Task[None]] = []

    # --- progress and notices -----------------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate | None:
        """The gate that can be answered now. A gate `rollback` covers the one that was open before."""
        return self._open[-1] if self._open else None

    @property
    def timing(self) -> Timing:
        """Of the fleet."""
        return self._fleet.timing

    @property
    def interrupted(self) -> bool:
        """Whether new work has to wait, or must not begin at all."""
        return self.paused or bool(self.stopping) or self.rollback_asked is not None

    def new_gate_id(self, prefix: str, number: int = 1, *, bare_first: bool = False) -> str:
        """A gate id that was never used: `prefix/number` or a higher number. `bare_first`: number 1 is not written."""
        while True:
            name = prefix if bare_first and number == 1 else f"{prefix}/{number}"
            if name not in self._used:
                return name
            number += 1

    # --- messages: handlers never wait, and change nothing before the message is checked ------------------------------

    def check(self, decision: Decision) -> ApplicationError | None:
        """Why this decision cannot be accepted now; None if it can."""
        if not decision.actor.strip():
            return _refused("ActorMissing", "a decision must name its actor: set `actor`")
        if self._repeated(decision):
            return None
        gate = self.gate
        if gate is None or gate.id != decision.gate:
            return _refused("GateNotOpen", self._not_open(decision.gate))
        if decision.verdict not in gate.verdicts:
            allowed = ", ".join(gate.verdicts)
            text = f"gate {gate.id} does not take {decision.verdict}; it takes: {allowed}"
            return _refused("VerdictNotAllowed", text)
        named, asked = decision.plan_digest, gate.plan_digest
        if asked and named != asked and (named or decision.verdict is Verdict.APPROVE):
            other = f"this decision is about plan {named}" if named else "this decision names no plan"
            text = f"gate {gate.id} is about plan {asked}, {other}: read the current plan and approve that one"
            return _refused("PlanDigestMismatch", text)
        return None

    def decide(self, decision: Decision) -> Recorded:
        """Record a decision. Raises what `check` returns, so it needs no validator.

        The same decision again, as after a reset or from a client that got no answer, returns the record of the first.
        """
        refused = self.check(decision)
        if refused:
            raise refused
        if earlier := self._repeated(decision):
            return earlier
        opened_at = self.gate.opened_at if self.gate else None
        recorded = Recorded(decision=decision, at=workflow.now(), opened_at=opened_at)
        self._answers[decision.gate] = recorded
        self.recorded.append(recorded)
        self._open.remove(self._open[-1])
        self._show()
        return recorded

    def _repeated(self, decision: Decision) -> Recorded | None:
        answer = self._answers.get(decision.gate)
        return answer if answer and answer.decision == decision else None

    def check_control(self, control: Control) -> ApplicationError | None:
        """Why this control cannot be accepted now; None if it can."""
        if not control.actor.strip():
            return _refused("ActorMissing", f"{control.verb} must name its actor: set `actor`")
        if self.stopping:
            text = f"it is stopping already ({self.stopping}); run start again to continue"
            return _refused("ControlNotPossible", text)
        if control.verb is not ControlVerb.ROLLBACK:
            return None
        if self.on_rollback is None:
            return _refused("ControlNotPossible", "this is a rollback already")
        if self.rollback_asked or (self.gate and self.gate.kind is GateKind.ROLLBACK):
            return _refused("ControlNotPossible", "a rollback was requested already: answer its gate")
        return None

    def control(self, control: Control) -> Control:
        """Pause, resume, stop, or request a rollback. Raises what `check_control` returns."""
        refused = self.check_control(control)
        if refused:
            raise refused
        self.controls = [*self.controls, control][-MOST_CONTROLS:]
        if control.verb is ControlVerb.STOP:
            self.stop(f"stopped by {control.actor}" + (f": {control.reason}" if control.reason else ""))
        elif control.verb is ControlVerb.ROLLBACK:
            self.rollback_asked = control
        else:
            self.paused = control.verb is ControlVerb.PAUSE
        self._show()
        return control

    def stop(self, why: str) -> None:
        """Start nothing new. This is final; a later run continues."""
        self.stopping = self.stopping or why
        self._show()

    def ignore(self, what: str, error: ApplicationError) -> None:
        """Keep a refused signal for `status` and the report: its sender gets no answer."""
        workflow.logger.warning("ignored a message", extra={"what": what, "why": error.message})
        self._warn(f"ignored {what[:200]}: {error.message[:_LONGEST_WARNING]}")
        self._show()

    def _warn(self, text: str) -> None:
        """At most MOST_WARNINGS lines; the last one counts those that are left out."""
        self._warnings += 1
        text = single_line(text)
        if len(self.ignored) < MOST_WARNINGS:
            self.ignored.append(text)
        else:
            self.ignored[-1] = f"{self._warnings - MOST_WARNINGS + 1} further messages, the newest: {text}"

    def _not_open(self, name: str) -> str:
        answer = self._answers.get(name)
        if answer:
            decision = answer.decision
            text = f"{decision.verdict} by {decision.actor} at {answer.at:%H:%M:%S} UTC"
            return f"gate {name} was answered already: {text}"
        now = f"open now: {self.gate.id}" if self.gate else "no gate is open now"
        return f"gate {name} is not open; {now}"

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def ask(self, gate: Gate, *, urgent: bool = False) -> Recorded:
        """Open a gate and wait for its answer, with reminders. Raises Stopped.

        `urgent`: a pause or a request for a rollback does not interrupt it (the gate `rollback`).
        """
        self._used.append(gate.id)
        self._open.append(gate)
        self._show()
        now = workflow.now()
        rollout = self._fleet.rollout
        reminder = max(rollout.gate_reminder, _SHORTEST_REMINDER)
        waiting = _OpenGate(since=now, next=now + reminder, timeout=now + rollout.gate_timeout)
        self.notify(_event(gate), gate.question, "\n".join((*gate.facts, self._how_to_answer(gate))))
        try:
            while gate.id not in self._answers:
                await self._handle_interruptions(urgent=urgent)
                await self._wait_for(gate, waiting, urgent=urgent)
        finally:
            if gate in self._open:
                self._open.remove(gate)
                self._show()
        recorded = self._answers[gate.id]
        if recorded.decision.verdict in _CONTINUE and not urgent:
            await self.safe_point()
        return recorded

    async def ask_meanwhile(self, gate: Gate, over: Callable[[], bool]) -> Recorded | None:
        """Open a gate while work continues: no pause, stop or time-out closes it. Returns None once `over` is True.

        The caller cancels it when it is obsolete.
        """
        self._used.append(gate.id)
        self._open.append(gate)
        self._show()
        text = "\n".join((*gate.facts, self._how_to_answer(gate)))
        self.notify(_event(gate), gate.question, text)
        try:
            while gate.id not in self._answers and not over():
                try:
                    await workflow.wait_condition(
                        lambda: gate.id in self._answers or over(),
                        timeout=max(self._fleet.rollout.gate_reminder, _SHORTEST_REMINDER),
                        timeout_summary=f"remind {gate.id}",
                    )
                except TimeoutError:
                    self.notify(Event.REMINDER, f"reminder, gate {gate.id}: {gate.question}", text)
        finally:
            if gate in self._open:
                self._open.remove(gate)
                self._show()
        return self._answers.get(gate.id)

    async def safe_point(self) -> None:
        """Called before new work begins: waits while paused, handles a requested rollback. Raises Stopped."""
        while True:
            await self._handle_interruptions(urgent=False)
            if not self.paused:
                return
            reminder = max(self._fleet.rollout.gate_reminder, _SHORTEST_REMINDER)
            try:
                await workflow.wait_condition(
                    lambda: not self.paused or bool(self.stopping) or self.rollback_asked is not None,
                    timeout=reminder,
                    timeout_summary="remind: paused",
                )
            except TimeoutError:
                self.notify(Event.REMINDER, "the upgrade is still paused", "Resume it, or stop it.")

    async def wait_until(self, when: datetime, summary: str) -> None:
        """Wait for a time, by a durable timer. Raises Stopped; a pause holds it on, a rollback is asked about."""
        while True:
            await self.safe_point()
            left = when - workflow.now()
            if left <= timedelta():
                return
            try:
                await workflow.wait_condition(lambda: self.interrupted, timeout=left, timeout_summary=summary)
            except TimeoutError:
                continue

    async def _handle_interruptions(self, *, urgent: bool) -> None:
        if self.stopping:
            raise Stopped(self.stopping)
        if urgent or self.rollback_asked is None:
            return
        asked, self.rollback_asked = self.rollback_asked, None
        if self.on_rollback is not None:
            await self.on_rollback(asked)

    async def _wait_for(self, gate: Gate, waiting: _OpenGate, *, urgent: bool) -> None:
        until = waiting.next if waiting.over else min(waiting.next, waiting.timeout)
        try:
            await workflow.wait_condition(
                lambda: gate.id in self._answers or bool(self.stopping) or (not urgent and bool(self.rollback_asked)),
                timeout=max(until - workflow.now(), timedelta()),
                timeout_summary=f"remind {gate.id}",
            )
        except TimeoutError:
            self._remind(gate, waiting)

    def _remind(self, gate: Gate, waiting: _OpenGate) -> None:
        rollout, now = self._fleet.rollout, workflow.now()
        if now >= waiting.timeout and not waiting.over:
            waiting.over = True
            if rollout.on_gate_timeout == TimeoutPolicy.STOP:
                self.stop(f"gate {gate.id} was not answered within {rollout.gate_timeout}")
                return
        if now >= waiting.next:
            waiting.next = now + max(rollout.gate_reminder, _SHORTEST_REMINDER)
        waiting.reminders += 1
        self.notify(Event.REMINDER, *self._reminder(gate, waiting))

    def _reminder(self, gate: Gate, waiting: _OpenGate) -> tuple[str, str]:
        since = f"{waiting.since:%Y-%m-%d %H:%M} UTC"
        end = f"{waiting.timeout:%Y-%m-%d %H:%M} UTC"
        if waiting.over:
            subject = f"OVERDUE: gate {gate.id} has been open since {since}: {gate.question}"
            text = f"It timed out at {end}. The upgrade waits until the gate is answered."
        else:
            subject = f"reminder {waiting.reminders}: gate {gate.id} has been open since {since}: {gate.question}"
            then = (
                "the upgrade stops"
                if self._fleet.rollout.on_gate_timeout == TimeoutPolicy.STOP
                else "it becomes overdue"
            )
            text = f"At {end} {then}."
        return subject, "\n".join((text, *gate.facts, self._how_to_answer(gate)))

    def _how_to_answer(self, gate: Gate) -> str:
        fleet = self._fleet
        lines = [f"Gate {gate.id} of {workflow_id(fleet.name)} takes: {', '.join(gate.verdicts)}."]
        lines += [gate.command(verdict, fleet.name) for verdict in gate.verdicts]
        if fleet.notify.dashboard:
            lines.append(f"{fleet.notify.dashboard}/fleets/{fleet.name}")
        return "\n".join(lines)

    # --- notices ------------------------------------------------------------------------------------------------------

    def notify(self, event: Event, subject: str, text: str) -> None:
        """Send a notice without waiting for it."""
        notice = Notice(
            fleet=self._fleet.name,
            timing=self._fleet.timing,
            event=event,
            subject=subject,
            text=text,
            notify=self._fleet.notify,
        )
        self._notices = [task for task in self._notices if not task.done()]
        self._notices.append(asyncio.create_task(self._send(notice)))

    async def wait_for_notices(self) -> None:
        """Wait for the notices that are still being sent, before the workflow ends."""
        await asyncio.gather(*self._notices)

    async def _send(self, notice: Notice) -> None:
        try:
            problems = (await run_step(contracts.NOTIFY, notice)).facts
        except FailureError as error:
            problems = (describe_failure(error).text,)
        for problem in problems:
            if problem not in self._not_notified:
                self._not_notified.append(problem)
                self._warn(f"a notice could not be sent: {notice.subject}: {problem}")
                self._show()


def _event(gate: Gate) -> Event:
    return Event.FAILURE if gate.kind is GateKind.FAILURE else Event.GATE


def _refused(kind: str, text: str) -> ApplicationError:
    return ApplicationError(text, type=kind, non_retryable=True)
