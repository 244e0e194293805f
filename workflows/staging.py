"""Back up and stage on every host in parallel, while v1 still runs; and give the hosts back at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.decisions import Gate, GateKind, Verdict
    from model.fleet import slug
    from model.progress import FleetState, Phase, ServerState
    from model.steps import ReleaseHosts
    from model.way_back import keepers_kept
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import proving, steps
    from workflows.preflight import agent_pending
    from workflows.results import result_of
    from workflows.saga import Trouble, each, trouble
    from workflows.state import CORE, Ended, Run

Work = Callable[[Run, str], Awaitable[None]]


async def back_up(run: Run) -> None:
    """Files and binaries on every host, then the first dump: restored once, it proves the way and the minutes."""
    run.enter(Phase.BACKUP)
    core = _core(run)
    # The agent in Core's project has its way back in Core's folder, also where Core itself is on the target already.
    agent = (CORE,) if agent_pending(run.planned) and not core else ()
    await for_all(run, (*core, *agent, *run.waiting), "backing up", back_up_one)
    await for_all(run, core, "dumping the database", _dump_before)
    await run.desk.safe_point()


async def stage(run: Run) -> None:
    """Core's image pulled, every agent's binary on its host and proven to run there; together, Core's key is made."""
    run.enter(Phase.STAGE)
    await for_all(run, (*_core(run), *run.waiting), "staging", stage_one)
    await run.desk.safe_point()


async def prepare_again(run: Run, names: Iterable[str]) -> None:
    """After a new plan: new backups and new staging of what changed, under new operation ids."""
    stale = tuple(names)
    for name in stale:
        run.next_attempt(name)
    await for_all(run, stale, "backing up again", back_up_one)
    await for_all(run, stale, "staging again", stage_one)


async def for_all(run: Run, names: Iterable[str], step: str, work: Work) -> None:
    """The same step on all these hosts; then, one after the other, a question for each that failed."""

    async def one(name: str) -> None:
        if name in run.skipped or name in run.offline:
            return
        run.touch(name)
        run.line(name, state=ServerState.PREPARING, step=step)
        await work(run, name)
        run.line(name, state=ServerState.PENDING, step="")

    failed = await each(names, one)
    for name, error in failed.items():
        why = trouble(error)
        while await try_again(run, name, step, why):
            run.next_attempt(name)
            failed_again = await each((name,), one)
            if not failed_again:
                break
            why = trouble(failed_again[name])


async def try_again(run: Run, name: str, step: str, why: Trouble) -> bool:
    """Ask about a host that failed before anything was switched. False: it was skipped. Raises Ended on reject."""
    others = [n for n in run.waiting if n != name]
    aside = not run.together and run.fleet.rollout.offline != "refuse"
    if name != CORE and why.type == "Unreachable" and aside and others:
        run.set_aside(name, f"offline, set aside: {step} failed: {why.text}")
        if not run.begun:
            run.find(run.planned.core, {s.name: s for s in run.planned.servers})
        return False
    if name != CORE and _tolerated(run, name, step, why):
        return False
    run.line(name, state=ServerState.PARKED, step="", detail=why.text)
    recorded = await run.desk.ask(_gate(run, name, step, why))
    said = recorded.decision
    if said.verdict is Verdict.REJECT:
        raise Ended(FleetState.STOPPED, f"rejected by {said.actor}; {step} on {name} had failed: {why.text}")
    if said.verdict is Verdict.SKIP:
        run.skip(name, f"skipped by {said.actor}; {step} failed: {why.text}")
        return False
    run.line(name, state=ServerState.PENDING, detail="")
    return True


def _tolerated(run: Run, name: str, step: str, why: Trouble) -> bool:
    rollout = run.fleet.rollout
    # Together means all: whether one stays behind is said by a person.
    if run.together or rollout.on_failure != "go-on" or len(run.skipped) >= rollout.max_failures:
        return False
    run.skip(name, f"{step} failed, and max_failures = {rollout.max_failures} lets it be: {why.text}")
    run.warn("skipped", name, f"left on v1: {step} failed: {why.text}")
    return True


def _gate(run: Run, name: str, step: str, why: Trouble) -> Gate:
    reject = "reject: end here, nothing was upgraded"
    skip = "skip: leave it on v1, unreachable from v2 Core"
    verdicts: tuple[Verdict, ...] = (Verdict.RETRY, Verdict.REJECT if name == CORE else Verdict.SKIP)
    otherwise = reject if name == CORE else skip
    if run.together and name != CORE:
        verdicts, otherwise = (Verdict.RETRY, Verdict.SKIP, Verdict.REJECT), f"{skip}; {reject}"
    return Gate(
        id=run.desk.fresh(f"failure/{slug(name)}", run.attempt(name)),
        kind=GateKind.FAILURE,
        question=f"{step} failed on {name}: what now?",
        facts=(why.text, "nothing was switched yet: v1 runs everywhere as before", f"retry: once more; {otherwise}"),
        verdicts=verdicts,
        opened_at=workflow.now(),
        subject=name,
    )


def _core(run: Run) -> tuple[str, ...]:
    """Core's own steps are left out where Core is on the target already."""
    return () if run.planned.core.current else (CORE,)


async def back_up_one(run: Run, name: str) -> None:
    """Files and binaries of one host."""
    if name == CORE:
        run.core_backup = await steps.back_up_core(run.core_step())
    else:
        run.backups[name] = await steps.back_up_server(run.server_step(name))


async def _dump_before(run: Run, _: str) -> None:
    run.dumps.append(await proving.proven_dump(run.core_step(label="before")))


async def stage_one(run: Run, name: str) -> None:
    """Image or binary of one host."""
    if name == CORE:
        staged = await steps.stage_core(run.core_step())
        run.keepers = tuple(dict.fromkeys((*run.keepers, *staged.keepers)))
        if run.together:
            # By the image that was just pulled. Planned again, it is the same pair.
            run.key = await steps.stage_core_key(run.core_step())
    else:
        run.staged[name] = await steps.stage_server(run.server_step(name))


async def release(run: Run) -> None:
    """Locks given back and leftovers removed on every host that was touched. What fails is a warning."""

    kept = keepers_kept(result_of(run))

    async def one(name: str) -> None:
        core = name == CORE
        release = ReleaseHosts(
            op=run.op(name),
            server=None if core else run.fleet.server(name),
            core=run.fleet.core if core else None,
            keepers=() if kept or not core else run.keepers,
        )
        await steps.release_host(release, run.fleet.clocks)

    away = [name for name in run.touched if name in run.offline]
    for name in away:
        run.warn("not-released", name, "it is offline, so it was not given back: the next upgrade takes it over")
    for name, error in (await each([n for n in run.touched if n not in away], one)).items():
        run.warn("not-released", name, f"the host was not given back: {trouble(error).text}")
