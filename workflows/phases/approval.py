"""Gate `core`: an approval is followed by a recheck of all hosts; what changed is planned and approved again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from temporalio import workflow

from activities import contracts
from model.facts import DumpLabel, Severity
from model.fleet.spec import CoreFiles
from model.gates import Gate, GateKind, Verdict
from model.pages.servers import Failure, PageStep, ServerResult
from model.planning import core_differs, server_differs
from model.status import FleetState, Phase, ServerState
from workflows.phases import schedule, staging
from workflows.phases.server_steps import run_on_servers, survey_server
from workflows.phases.survey_and_plan import survey
from workflows.runtime import messages
from workflows.runtime.failures import FailureKind, core_and_servers, failure_of
from workflows.runtime.run import CORE, Ended
from workflows.runtime.steps import run_step
from workflows.runtime.upgrade_run import UpgradeRun

_RECHECK = timedelta(seconds=30)
"""Between two checks for Updates in progress; a long wait must not fill the history."""


@dataclass
class _Found:
    """Findings of the recheck."""

    drift: dict[str, tuple[str, ...]] = field(default_factory=dict)
    busy: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Core's files that others have to edit first."""


async def approve_core(run: UpgradeRun) -> None:
    """Open the gate until the approved plan matches the hosts. Raises Ended on reject."""
    since: tuple[str, ...] = ()
    busy = False
    while True:
        recorded = await run.gatekeeper.ask(_gate(run, since, busy=busy))
        decision = recorded.decision
        if decision.verdict is Verdict.REJECT:
            why = f": {decision.reason}" if decision.reason else ""
            raise Ended(FleetState.STOPPED, f"gate core was rejected by {decision.actor}{why}; nothing was upgraded")
        patient = not (busy and decision.verdict is Verdict.APPROVE)
        found = await _recheck_in_window(run, patient=patient)
        busy = patient and bool(found.busy) and not (found.drift or found.missing)
        if found.drift:
            since = await _plan_again(run, found.drift)
        elif found.missing:
            names = ", ".join(found.missing)
            since = (f"without the planned edits yet: {names}; apply the patch of `plan --patch`, then approve again",)
        elif busy:
            since = (f"still in progress after {run.fleet.timing.update_wait}: {', '.join(found.busy)}",)
        else:
            return


def _gate(run: UpgradeRun, since: tuple[str, ...], *, busy: bool) -> Gate:
    run.enter(Phase.GATE)
    plan = run.planned
    question = f"Upgrade Core of {plan.fleet} to {plan.target}?"
    if busy:
        question = f"Updates are in progress. Upgrade Core of {plan.fleet} now?"
    extra = ("retry: wait for them again; approve: they are interrupted when Core stops",) if busy else ()
    facts = messages.core_facts(
        run.fleet,
        plan,
        now=workflow.now(),
        dump=run.dump(DumpLabel.BEFORE),
        backup=run.core_backup,
        skipped=run.skipped,
        since=(*since, *extra),
        key=run.key.public_key if run.key else "",
    )
    return Gate(
        id=run.gatekeeper.new_gate_id("core", bare_first=True),
        kind=GateKind.CORE,
        question=question,
        facts=tuple(line for lines in facts.values() for line in lines),
        topics=tuple((topic, len(lines)) for topic, lines in facts.items() if lines),
        verdicts=(*((Verdict.RETRY,) if busy else ()), Verdict.APPROVE, Verdict.REJECT),
        opened_at=workflow.now(),
        plan_digest=plan.digest,
        confirm=plan.fleet,
        subject=CORE,
    )


async def _recheck_in_window(run: UpgradeRun, *, patient: bool) -> _Found:
    """Check all hosts again inside a maintenance window: they may change while it is waited for."""
    while True:
        await schedule.wait_for_window(run)
        found = await _recheck(run, patient=patient)
        if found.drift or found.missing or (patient and found.busy) or await schedule.is_open(run):
            return found


async def _recheck(run: UpgradeRun, *, patient: bool) -> _Found:
    """Check all hosts again; while Updates run, wait for them up to `update_wait`."""
    until = workflow.now() + run.fleet.timing.update_wait
    while True:
        found = await _recheck_once(run)
        if found.drift or found.missing or not found.busy or not patient or workflow.now() >= until:
            return found
        run.update_line(CORE, step=f"waiting for Updates in progress: {', '.join(found.busy)}")
        await run.gatekeeper.safe_point()
        pause = min(_RECHECK, max(until - workflow.now(), timedelta(seconds=1)))
        try:
            await workflow.wait_condition(
                lambda: run.gatekeeper.interrupted, timeout=pause, timeout_summary="Updates in progress"
            )
        except TimeoutError:
            continue
        await run.gatekeeper.safe_point()


async def _recheck_once(run: UpgradeRun) -> _Found:
    found = _Found()

    async def core() -> None:
        recheck = await run_step(contracts.RECHECK_CORE, run.core_step())
        found.busy = recheck.busy
        if recheck.drift:
            found.drift[CORE] = recheck.drift
        found.missing = recheck.missing

    def keep(result: ServerResult) -> None:
        if result.recheck and result.recheck.drift:
            found.drift[result.name] = result.recheck.drift

    run.update_line(CORE, state=ServerState.PREPARING, step="comparing with the plan")
    servers = run_on_servers(run.page(PageStep.RECHECK, run.planned_servers), keep)
    for name, why in (await core_and_servers(failure_of(core()), servers)).items():
        found.drift[name] = (f"it cannot be checked: {why.text}",)
    run.update_line(CORE, state=ServerState.PENDING, step="")
    return found


async def _plan_again(run: UpgradeRun, drift: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Survey again, plan again, back up and stage what changed. Returns facts for the next gate."""
    run.enter(Phase.PLAN)
    old = run.planned
    names = tuple(name for name in run.in_run if name not in run.skipped)
    core, fresh = await survey(run.fleet, names)
    if run.fleet.core.files == CoreFiles.EXTERNAL:
        # Others may have edited its files already: a new backup would hold them instead of the old ones.
        if CORE in drift:
            text = (
                f"Core is not as planned: {'; '.join(drift[CORE])}; take the edits of its files back, then start again"
            )
            raise Ended(FleetState.REFUSED, text)
        core = old.core
    refusals = [f for f in core.findings if f.severity is Severity.REFUSE]
    if refusals:
        raise Ended(FleetState.REFUSED, "; ".join(messages.finding_lines(refusals)))
    if core.current:
        text = "Core was upgraded by other means meanwhile: run start again to continue"
        raise Ended(FleetState.STOPPED, text)
    for name in tuple(run.offline):
        run.bring_back(name)
    run.make_plan(core, {s.name: s for s in old.servers} | fresh)
    if unapproved := [f for f in run.planned.core.findings if f.severity is Severity.REFUSE]:
        raise Ended(FleetState.REFUSED, "; ".join(messages.finding_lines(unapproved)))
    for name in names:
        await _until_plannable(run, name)
    changed = [n for n in run.planned_servers if n in drift or server_differs(old.server(n), run.planned.server(n))]
    core_changed = CORE in drift or core_differs(old.core, core)
    await staging.prepare_again(run, [*([CORE] if core_changed else []), *changed])
    lines = [f"changed since the last plan: {name}: {text}" for name, texts in drift.items() for text in texts]
    return (*lines, "planned again from new surveys: read the new plan")


async def _until_plannable(run: UpgradeRun, name: str) -> None:
    """A server that refuses only now: a person fixes it, or it is left on v1."""
    while name not in run.skipped and name not in run.offline:
        refusals = [f for f in run.planned.server(name).findings if f.severity is Severity.REFUSE]
        if not refusals:
            run.update_line(name, state=ServerState.PENDING, detail="")
            return
        why = Failure(type=FailureKind.REFUSED, text="; ".join(messages.finding_lines(refusals)))
        if await staging.try_again(run, name, "planning again", why):
            run.start_next_attempt(name)
            facts = await survey_server(run.fleet, name)
            servers = {s.name: s for s in run.planned.servers} | {name: facts}
            run.make_plan(run.planned.core, servers)
