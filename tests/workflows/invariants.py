"""Random runs: what breaks, what people decide and when; and what must hold in every case."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hypothesis import event
from hypothesis import strategies as st
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

from model.fleet.spec import Timing
from model.gates import Control, ControlVerb, Decision, Gate, Recorded, Verdict
from model.rollback import has_something_to_undo, rollback_request
from model.status import FleetProgress, FleetResult, FleetState, ServerState
from tests.workflows.doubles import broken, core_facts, fleet
from tests.workflows.driver import Driver, Talk
from tests.workflows.world import DOWN, HALF, READS, V1, V2, World

QUICK = Timing(
    retry=timedelta(milliseconds=5), poll=timedelta(milliseconds=5), heartbeat=timedelta(seconds=20),
    update_wait=timedelta(milliseconds=50),
)  # fmt: skip
PATIENCE = 60.0
GLANCE = 0.03
UNDO_PATIENCE = 4.0
ON_SERVERS = ("back_up_server", "stage_server", "recheck_server", "switch_server", "verify_server", "restore_server")
ON_CORE = (
    "back_up_core", "dump_database", "prove_dump", "stage_core", "stop_core", "write_core_files", "start_core",
    "read_core_key", "restore_core_files", "restore_database",
    "start_old_core", "check_rollback", "return_to_new_core", "post_checks",
)  # fmt: skip
ERRORS = ("CommandFailed", "DiskFull", "Unreachable", "AgentNotStarted", "NotProven")
ANSWERS = ("first", "second", "third")
SAID = ("pause", "resume", "stop", "rollback", "cancel")
NOISE = ("duplicate", "unknown gate", "another plan", "nobody", "not taken")


@dataclass(frozen=True)
class Fault:
    """A step that fails so many times, after it went well `after` times."""

    step: str
    target: str
    error: str
    times: int
    after: int = 0


@dataclass(frozen=True)
class RandomRun:
    """One sequence. Its repr is all that is needed to see it again."""

    servers: int = 2
    agent: bool = False
    rollout: tuple[tuple[str, str], ...] = ()
    faults: tuple[Fault, ...] = ()
    answers: tuple[str, ...] = ()
    """At each rest one after the other; when they are over, the first verdict that the gate takes."""
    meanwhile: tuple[tuple[int, str], ...] = ()
    """While the n-th step runs."""
    back: bool = False
    """Afterwards all of it is rolled back."""
    page: int = 50
    """Servers in a page: with fewer than `servers`, child workflows do the steps."""
    forgetful: bool = False
    """The worker loses its memory after each task, as if it had been killed."""


def random_runs() -> st.SearchStrategy[RandomRun]:
    """All of them."""
    names = st.sampled_from(["web-1", "web-1", "web-2", "web-3", "Local"])
    errors, few = st.sampled_from(ERRORS), st.sampled_from([1, 1, 2, 6])
    after = st.sampled_from([0, 0, 0, 1, 2])
    on_server = st.builds(Fault, st.sampled_from(ON_SERVERS), names, errors, few, after)
    on_core = st.builds(Fault, st.sampled_from(ON_CORE), st.just("core"), errors, few, after)
    rollout = st.fixed_dictionaries(
        {
            "approve": st.sampled_from(["each-server", "each-wave", "canary", "core-only"]),
            "on_failure": st.sampled_from(["ask", "continue"]),
        }
    )
    return st.builds(
        RandomRun,
        servers=st.integers(1, 3),
        agent=st.booleans(),
        rollout=rollout.map(lambda d: tuple(sorted(d.items()))),
        faults=st.lists(on_server | on_core, min_size=1, max_size=4).map(tuple),
        answers=st.lists(st.sampled_from([*ANSWERS, *NOISE, *SAID]), max_size=8).map(tuple),
        meanwhile=st.lists(
            st.tuples(st.integers(1, 60), st.sampled_from([*SAID, *NOISE])), max_size=2, unique_by=lambda pair: pair[0]
        ).map(tuple),
        back=st.booleans(),
        page=st.sampled_from([1, 2, 50]),
        forgetful=st.sampled_from([False, False, True]),
    )


@dataclass
class Person:
    """Who answers, and notes what was seen."""

    talk: Talk
    last: Decision | None = None
    since: dict[str, float] = field(default_factory=dict)

    def waits(self, gate: Gate) -> bool:
        """An undo continues while its gate is open: an operator who waits need not abandon it."""
        begun = self.since.setdefault(gate.id, time.monotonic())
        return gate.id.startswith("undo/") and time.monotonic() - begun < UNDO_PATIENCE

    async def see(self) -> FleetProgress:
        progress = await self.talk.progress()
        if progress.gate:
            assert progress.gate.id not in [r.decision.gate for r in progress.decisions], "an answered gate is open"
        return progress

    async def say(self, word: str, gate: Gate | None) -> None:
        talk = self.talk
        if word in ANSWERS and gate:
            await self.answer(gate, gate.verdicts[ANSWERS.index(word) % len(gate.verdicts)])
        elif word == "cancel":
            await talk.handle.cancel()
        elif word in SAID:
            await talk.handle.signal("control", Control(verb=ControlVerb(word), actor="ann", reason="so"))
        elif word == "duplicate" and self.last:
            await talk.handle.signal("decide", self.last)
        elif word == "unknown gate":
            await talk.decide("wave/99")
        elif word == "another plan" and gate and gate.plan_digest:
            await talk.decide(gate.id, plan_digest="0123456789abcdef")
        elif word == "nobody" and gate:
            await talk.decide(gate.id, gate.verdicts[0], actor=" ", plan_digest=gate.plan_digest)
        elif word == "not taken" and gate:
            wrong = [v for v in Verdict if v not in gate.verdicts]
            await talk.decide(gate.id, wrong[0], plan_digest=gate.plan_digest)

    async def answer(self, gate: Gate, verdict: Verdict) -> None:
        self.last = Decision(gate=gate.id, verdict=verdict, actor="ann", plan_digest=gate.plan_digest)
        await self.talk.handle.signal("decide", self.last)


async def spend(run: Driver, world: World, case: RandomRun, name: str) -> None:
    """One run to its end, and what must hold then."""
    spec = replace(fleet(case.servers, timing=QUICK, max_failures=1, **dict(case.rollout)), name=name, page=case.page)
    world.core = core_facts(agent=case.agent)
    for fault in case.faults:
        error = broken(fault.error, f"{fault.step} of {fault.target}", transient=fault.error == "Unreachable")
        world.play(fault.step, fault.target, *[None] * fault.after, *[error] * fault.times)
    person = Person(await run.upgrade(spec))
    world.meanwhile = {n: _saying(person, word) for n, word in case.meanwhile}
    result = await to_its_end(run, person, case.answers)
    event(f"ended as {result.state}")
    holds(world, result)
    if not case.back:
        return
    try:
        request = rollback_request(result, spec)
    except ValueError:
        return
    if not has_something_to_undo(request):
        return
    world.meanwhile = {}
    world.notices.clear()
    back = Person(await run.rollback(request))
    result = await to_its_end(run, back, ())
    event(f"then {result.state}")
    holds(world, result, decisions=False)


def _saying(person: Person, word: str) -> Callable[[], Awaitable[None]]:
    async def say() -> None:
        with contextlib.suppress(Exception):
            await person.say(word, None)

    return say


async def to_its_end(run: Driver, person: Person, answers: tuple[str, ...]) -> FleetResult:
    """Answers whatever is asked until nothing runs any more."""
    words, end = itertools.chain(answers, itertools.repeat("")), time.monotonic() + PATIENCE
    handle, polls = person.talk.handle, 0
    while True:
        assert time.monotonic() < end, f"it never ends; it stands at {await person.talk.progress()}"
        progress = await person.see()
        if progress.state or (
            polls % 20 == 19 and (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING
        ):
            break
        polls += 1
        rests = progress.gate is not None or (progress.paused and not progress.stopping)
        if progress.rollback_id and progress.gate is None:
            await _in_the_child(run, person, progress.rollback_id)
        if not rests:
            await asyncio.sleep(GLANCE)
            continue
        before = (progress.gate, len(progress.warnings), progress.paused, progress.stopping)
        word = next(words)
        if word:
            await person.say(word, progress.gate)
        elif progress.paused:
            await person.say("resume", None)
        elif progress.gate and not person.waits(progress.gate):
            await person.answer(progress.gate, _last_resort(progress.gate))
        # Taken, or at least seen, before the next word.
        for _ in range(10):
            now = await person.see()
            if (now.gate, len(now.warnings), now.paused, now.stopping) != before:
                break
            await asyncio.sleep(GLANCE)
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return await person.talk.result_now()


async def _in_the_child(run: Driver, person: Person, name: str) -> None:
    """An undo that does not work asks in the rollback's own workflow."""
    child = Talk(run.client.get_workflow_handle(name, result_type=FleetResult))
    with contextlib.suppress(Exception):
        gate = (await child.progress()).gate
        if gate and not person.waits(gate):
            await child.decide(gate.id, gate.verdicts[0], plan_digest=gate.plan_digest)


def _last_resort(gate: Gate) -> Verdict:
    """What surely comes to an end: approve, skip, roll back, reject; never an endless retry."""
    order = (Verdict.APPROVE, Verdict.SKIP, Verdict.ROLLBACK, Verdict.REJECT, Verdict.RETRY)
    return next(v for v in order if v in gate.verdicts)


# --- what must hold ---------------------------------------------------------------------------------------------------


def holds(world: World, result: FleetResult, *, decisions: bool = True) -> None:
    """However the run went."""
    said = f"{result.state}: {result.detail}"
    assert world.wrong == [], f"{world.wrong}\n{said}"
    opened = [o for n in world.notices for o in re.findall(r"Gate (\S+) of (\S+) takes:", n.text)]
    assert len(opened) == len(set(opened)), f"a gate was opened twice: {opened}"
    ids = [r.decision.gate for r in result.decisions]
    assert len(ids) == len(set(ids)), f"a gate was answered twice: {ids}"
    if decisions:
        _approved(world, result)
    _as_reported(world, result, said)
    _in_one_state(world, result, said)
    for target in (name for name in world.touched if name != "Local"):  # it is released with Core
        steps = world.steps(target)
        changed = [n for n, step in enumerate(steps) if step not in READS]
        assert "release_host" in steps[changed[-1] :], f"{target} was not given back: {steps[-3:]}\n{said}"


def _approved(world: World, result: FleetResult) -> None:
    """No server is switched more often than somebody allowed before."""
    waves = result.plan.waves if result.plan else ()
    for name in {n for n, _, _ in world.switched}:
        allowed = sorted(r.at for r in result.decisions if _allows(r, name, result, waves_of(waves, name)))
        begun = sorted(at for n, _, at in world.switched if n == name)
        assert len(allowed) >= len(begun), f"{name} was switched {len(begun)} times, allowed {len(allowed)} times"
        for given, used in zip(allowed, begun, strict=False):
            assert given <= used, f"{name} was switched at {used}, allowed at {given}"


def waves_of(waves: tuple[object, ...], name: str) -> int:
    return next((w.number for w in waves if name in w.servers), 0)  # type: ignore[attr-defined]


def _allows(recorded: Recorded, name: str, result: FleetResult, wave: int) -> bool:
    said = recorded.decision
    if said.gate.startswith(f"failure/{name}/"):
        return said.verdict is Verdict.RETRY
    if said.verdict is not Verdict.APPROVE:
        return False
    if said.gate.partition("/")[0] == "core":
        asked = [r.decision.gate for r in result.decisions if r.decision.gate.startswith("wave/")]
        return f"wave/{wave}" not in asked
    return said.gate == f"wave/{wave}"


def _as_reported(world: World, result: FleetResult, said: str) -> None:
    """What the result says of each server is what is there."""
    means = {
        ServerState.UPGRADED: (V2,),
        ServerState.UNVERIFIED: (V2,),
        ServerState.LEFT_ON_V1: (V1,),
        ServerState.ROLLED_BACK: (V1,),
        ServerState.STOPPED: (V1,),
        ServerState.PENDING: (V1,),
    }
    for outcome in result.servers:
        wanted = means.get(outcome.state)
        is_there = world.runs(outcome.name)
        assert wanted is None or is_there in wanted, (
            f"{outcome.name} is reported as {outcome.state}, but is {is_there}\n{said}"
        )
        if is_there == HALF:
            assert outcome.state is ServerState.ROLLBACK_INCOMPLETE, (
                f"{outcome.name} is half restored, reported as {outcome.state}"
            )


def _in_one_state(world: World, result: FleetResult, said: str) -> None:
    """Every ending is a state with a name, and what the name says."""
    core = (world.core_runs, world.files, world.base)
    if result.state is FleetState.ROLLED_BACK:
        assert set(world.server.values()) == {V1}, f"{world.server}\n{said}"
        assert core == (V1, V1, V1), f"{core}\n{said}"
        assert world.agent == V1, said
    if result.state is FleetState.UPGRADED:
        assert set(world.server.values()) == {V2}, f"{world.server}\n{said}"
        assert core == (V2, V2, V2), f"{core}\n{said}"
    unfinished = (ServerState.ROLLBACK_INCOMPLETE, ServerState.WAITING)
    if result.core_state not in unfinished:
        assert core in ((V1, V1, V1), (V2, V2, V2)), f"Core is reported as {result.core_state}, but is {core}\n{said}"
        assert world.core_runs not in (DOWN, HALF), said
