"""Servers that were away: looked at again once the others are done, and upgraded, each through its gate, on return."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Verdict
    from model.facts import ServerFacts, Severity
    from model.fleet import slug
    from model.plan import Wave, bind
    from model.progress import Phase, ServerOutcome, ServerState
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import rollout, staging, texts
    from workflows.preflight import apart, differs, is_away, judged, look_once
    from workflows.saga import each
    from workflows.state import Run


async def upgrade_returning(run: Run) -> None:
    """Until all are back, or the time for them is over: those are left on v1. Durable timers; people may stop it."""
    policy = run.fleet.rollout
    until = workflow.now()
    if policy.offline == "wait":
        until += policy.offline_for
    while run.offline:
        run.enter(Phase.ROLLOUT)
        for name, facts in (await _look(run)).items():
            await _returned(run, name, facts)
        left = until - workflow.now()
        if not run.offline or left.total_seconds() <= 0:
            break
        await _wait(run, min(left, policy.offline_look))
    for name in tuple(run.offline):
        _leave(run, name, f"offline, left on v1: {run.offline[name]}")


async def _look(run: Run) -> dict[str, ServerFacts]:
    """Those that answer again."""
    names, found = tuple(run.offline), dict[str, ServerFacts]()

    async def one(name: str) -> None:
        run.line(name, step="is it back?")
        found[name] = await look_once(run.fleet, name)
        run.line(name, step="")

    await each(names, one)
    return {name: found[name] for name in names if not is_away(found[name])}


async def _wait(run: Run, pause: timedelta) -> None:
    at = workflow.now() + pause
    for name in run.offline:
        run.line(name, step=f"offline; next look at {at:%Y-%m-%d %H:%M} UTC")
    while workflow.now() < at:
        await run.desk.safe_point()
        try:
            await workflow.wait_condition(
                lambda: run.desk.interrupted, timeout=at - workflow.now(), timeout_summary="look for offline servers"
            )
        except TimeoutError:
            break
    await run.desk.safe_point()


async def _returned(run: Run, name: str, facts: ServerFacts) -> None:
    """From its first answer to its outcome. What goes away again meanwhile is set aside again."""
    why = run.offline[name]
    facts = _judged(run, facts)
    known = next((s for s in run.planned.servers if s.name == name), None)
    new = name not in run.backups or known is None or differs(known, facts)
    run.is_back(name)
    if facts.current:
        run.settled(ServerOutcome(name=name, state=ServerState.ALREADY_CURRENT, detail="found on the target on return"))
        return
    if new:
        _plan(run, name, facts)
    if not await _agreed(run, name, why, new=new):
        return
    run.enter(Phase.ROLLOUT)
    if new:
        if name in run.backups:
            run.next_attempt(name)
        await staging.for_all(run, (name,), "backing up", staging.back_up_one)
        await staging.for_all(run, (name,), "staging", staging.stage_one)
    elif name in run.attempts or name in run.touched:
        run.next_attempt(name)
    if name in run.offline or name in run.skipped:
        return
    await rollout.upgrade_one(run, name)
    await rollout.settle(run, name)


def _judged(run: Run, facts: ServerFacts) -> ServerFacts:
    """By what is known now: Core's key."""
    core = run.planned.core
    return judged(replace(core, public_key=run.key.public_key) if run.key else core, facts)


def _plan(run: Run, name: str, facts: ServerFacts) -> None:
    """What was approved before said nothing of it: the plan grows by one wave, and its digest is another."""
    plan = run.planned
    servers = apart(plan.core, tuple(facts if s.name == name else s for s in plan.servers))
    rest = tuple(w for w in plan.waves if name not in w.servers)
    wave = Wave(number=1 + max((w.number for w in rest), default=0), servers=(name,))
    grown = replace(plan, servers=servers, waves=(*rest, wave), offline=tuple(n for n in plan.offline if n != name))
    back = texts.way_back(run.fleet, grown, run.change)
    run.plan = bind(replace(grown, commands=texts.commands(run.fleet, grown), way_back=back))
    run.show()


async def _agreed(run: Run, name: str, why: str, *, new: bool) -> bool:
    """A new plan is always asked about; one that was approved already as often as `approve` wants waves asked about."""
    while refusals := [f for f in run.planned.server(name).findings if f.severity is Severity.REFUSE]:
        text = "; ".join(texts.finding_lines(refusals))
        run.line(name, state=ServerState.PARKED, detail=text)
        said = (await run.desk.ask(_refused(run, name, text))).decision
        if said.verdict is Verdict.SKIP:
            _leave(run, name, f"skipped by {said.actor} on its return: {text}", offline=False)
            return False
        run.line(name, state=ServerState.PENDING, detail="")
        facts = _judged(run, await look_once(run.fleet, name))
        if is_away(facts):
            run.set_aside(name, facts.findings[0].text)
            return False
        _plan(run, name, facts)
    if not new and run.fleet.rollout.approve not in ("each-server", "each-wave"):
        await run.desk.safe_point()
        return True
    run.enter(Phase.GATE)
    said = (await run.desk.ask(_gate(run, name, why, new=new))).decision
    if said.verdict is Verdict.SKIP:
        _leave(
            run,
            name,
            f"skipped by {said.actor} on its return" + (f": {said.reason}" if said.reason else ""),
            offline=False,
        )
        return False
    return True


def _gate(run: Run, name: str, why: str, *, new: bool) -> Gate:
    number = next((w.number for w in run.planned.waves if name in w.servers), len(run.planned.waves))
    return Gate(
        id=run.desk.fresh("wave", number),
        kind=GateKind.WAVE,
        question=f"{name} is back: upgrade it?",
        facts=texts.returned_facts(run.planned, name, why, new=new),
        verdicts=(Verdict.APPROVE, Verdict.SKIP),
        opened_at=workflow.now(),
        plan_digest=run.planned.digest if new else "",
        subject=name,
    )


def _refused(run: Run, name: str, text: str) -> Gate:
    return Gate(
        id=run.desk.fresh(f"failure/{slug(name)}", run.attempt(name)),
        kind=GateKind.FAILURE,
        question=f"{name} is back, but cannot be upgraded as it is: what now?",
        facts=(
            text,
            "nothing was switched there",
            "retry: look at it again; skip: leave it on v1, unreachable from Core",
        ),
        verdicts=(Verdict.RETRY, Verdict.SKIP),
        opened_at=workflow.now(),
        subject=name,
    )


def _leave(run: Run, name: str, why: str, *, offline: bool = True) -> None:
    version = run.planned.server(name).version
    run.settled(
        ServerOutcome(
            name=name,
            state=ServerState.LEFT_ON_V1,
            attempt=run.attempt(name),
            detail=why,
            version_before=version,
            version_after=version,
            backup=run.backups.get(name),
            offline=offline,
        )
    )
