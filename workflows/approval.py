"""Gate `core`: what was approved is looked at again, and what changed is planned and asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Verdict
    from model.facts import Severity
    from model.progress import FleetState, Phase, ServerState
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import staging, steps, texts
    from workflows.preflight import core_differs, differs, survey, survey_server
    from workflows.saga import Trouble, each, trouble
    from workflows.state import CORE, Ended, Run

_LOOK_AGAIN = timedelta(seconds=30)
"""Between two looks at Updates in progress; a long wait must not fill the history."""


@dataclass
class _Found:
    """What a second look found."""

    drift: dict[str, tuple[str, ...]] = field(default_factory=dict)
    busy: tuple[str, ...] = ()


async def gate_core(run: Run) -> None:
    """Ask until somebody approves what is really there. Raises Ended on reject."""
    since: tuple[str, ...] = ()
    busy = False
    while True:
        recorded = await run.desk.ask(_gate(run, since, busy=busy))
        said = recorded.decision
        if said.verdict is Verdict.REJECT:
            why = f": {said.reason}" if said.reason else ""
            raise Ended(FleetState.STOPPED, f"gate core was rejected by {said.actor}{why}; nothing was upgraded")
        patient = not (busy and said.verdict is Verdict.APPROVE)
        found = await _look_again(run, patient=patient)
        busy = patient and bool(found.busy) and not found.drift
        if found.drift:
            since = await _plan_again(run, found.drift)
        elif busy:
            since = (f"still in progress after {run.fleet.clocks.update_wait}: {', '.join(found.busy)}",)
        else:
            return


def _gate(run: Run, since: tuple[str, ...], *, busy: bool) -> Gate:
    run.enter(Phase.GATE)
    plan = run.planned
    question = f"Upgrade Core of {plan.fleet} to {plan.target}?"
    if busy:
        question = f"Updates are in progress: upgrade Core of {plan.fleet} all the same?"
    extra = ("retry: wait for them again; approve: they are cut off when Core stops",) if busy else ()
    return Gate(
        id=run.desk.fresh("core", bare_first=True),
        kind=GateKind.CORE,
        question=question,
        facts=texts.core_facts(
            run.fleet,
            plan,
            now=workflow.now(),
            dump=run.dump("before"),
            backup=run.core_backup,
            skipped=run.skipped,
            since=(*since, *extra),
            key=run.key.public_key if run.key else "",
        ),
        verdicts=(*((Verdict.RETRY,) if busy else ()), Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=plan.digest,
        confirm=plan.fleet,
        subject=CORE,
    )


async def _look_again(run: Run, *, patient: bool) -> _Found:
    """Re-check all; while Updates run, wait for them by durable timer, as long as `update_wait` allows."""
    until = workflow.now() + run.fleet.clocks.update_wait
    while True:
        found = await _recheck(run)
        if found.drift or not found.busy or not patient or workflow.now() >= until:
            return found
        run.line(CORE, step=f"waiting for Updates in progress: {', '.join(found.busy)}")
        await run.desk.safe_point()
        pause = min(_LOOK_AGAIN, max(until - workflow.now(), timedelta(seconds=1)))
        try:
            await workflow.wait_condition(
                lambda: run.desk.interrupted, timeout=pause, timeout_summary="Updates in progress"
            )
        except TimeoutError:
            continue
        await run.desk.safe_point()


async def _recheck(run: Run) -> _Found:
    found = _Found()

    async def core() -> None:
        try:
            recheck = await steps.recheck_core(run.core_step())
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            found.drift[CORE] = (f"it cannot be looked at: {trouble(error).text}",)
            return
        found.busy = recheck.busy
        if recheck.drift:
            found.drift[CORE] = recheck.drift

    async def server(name: str) -> None:
        recheck = await steps.recheck_server(run.server_step(name))
        if recheck.drift:
            found.drift[name] = recheck.drift

    run.line(CORE, state=ServerState.PREPARING, step="comparing with the plan")
    _, failed = await asyncio.gather(core(), each(run.waiting, server))
    for name, error in failed.items():
        found.drift[name] = (f"it cannot be looked at: {trouble(error).text}",)
    run.line(CORE, state=ServerState.PENDING, step="")
    return found


async def _plan_again(run: Run, drift: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Fresh surveys, a new plan, new backups and staging of what changed. Returns what to say at the next gate."""
    run.enter(Phase.PLAN)
    old = run.planned
    names = tuple(s.name for s in run.fleet.servers if s.name not in run.skipped)
    core, fresh = await survey(run.fleet, names)
    refusals = [f for f in core.findings if f.severity is Severity.REFUSE]
    if refusals:
        raise Ended(FleetState.REFUSED, "; ".join(texts.finding_lines(refusals)))
    if core.current:
        text = "somebody brought Core to the target meanwhile: start again to go on from there"
        raise Ended(FleetState.STOPPED, text)
    for name in tuple(run.offline):
        run.is_back(name)
    run.find(core, {s.name: s for s in old.servers} | fresh)
    for name in names:
        await _until_plannable(run, name)
    changed = [n for n in run.waiting if n in drift or differs(old.server(n), run.planned.server(n))]
    core_changed = CORE in drift or core_differs(old.core, core)
    await staging.prepare_again(run, [*([CORE] if core_changed else []), *changed])
    lines = [f"changed since the last plan: {name}: {text}" for name, texts_ in drift.items() for text in texts_]
    return (*lines, "planned again from fresh surveys: look at the new plan")


async def _until_plannable(run: Run, name: str) -> None:
    """A server that refuses now, late in the day: somebody cures it, or it is left on v1."""
    while name not in run.skipped and name not in run.offline:
        refusals = [f for f in run.planned.server(name).findings if f.severity is Severity.REFUSE]
        if not refusals:
            run.line(name, state=ServerState.PENDING, detail="")
            return
        why = Trouble(type="Refused", text="; ".join(texts.finding_lines(refusals)))
        if await staging.try_again(run, name, "planning again", why):
            run.next_attempt(name)
            facts = await survey_server(run.fleet, name)
            servers = {s.name: s for s in run.planned.servers} | {name: facts}
            run.find(run.planned.core, servers)
