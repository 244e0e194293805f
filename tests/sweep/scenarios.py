"""The runs that are swept: what is upgraded, what fails, what an approver answers, and how it has to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from model.fleet.spec import TASK_QUEUE, Approval, Connection, FleetSpec, RolloutMode, workflow_id
from model.gates import Gate, Verdict
from model.rollback import request_from_folders
from model.status import FleetResult, FleetState
from service.requests import folders
from tests.sweep.cell_run import CellRun


@dataclass(frozen=True)
class Scenario:
    """One run."""

    name: str
    summary: str
    play: Callable[[CellRun], Awaitable[FleetResult]]
    ends: FleetState
    servers: tuple[str, ...]
    """The states that the two servers end in."""
    shape: Callable[[FleetSpec], FleetSpec] = lambda spec: spec
    early: tuple[str, ...] = ()
    """Activities swept also before `arm`."""
    containers: Mapping[str, str] = field(default_factory=dict)
    """Server → shape of its agent's container (sandbox/seed_containers.py); the others run under systemd."""
    back: bool = False
    """Everything is as before afterwards."""


def _approve(gate: Gate) -> Verdict:
    if Verdict.APPROVE not in gate.verdicts:
        raise AssertionError(f"{gate.id} cannot be approved: {gate.question}\n{gate.facts}")
    return Verdict.APPROVE


async def _happy(run: CellRun) -> FleetResult:
    run.director.armed = True
    await run.upgrade()
    return await run.to_the_end(_approve)


async def _failing(run: CellRun) -> FleetResult:
    """web-1's agent crashes once and is upgraded at the second try; Core never sees db-1, which is rolled back."""
    run.sandbox.fault("crash-loop", "web-1")
    run.sandbox.fault("wrong-key", "db-1")

    def answer(gate: Gate) -> Verdict:
        run.director.armed = run.director.armed or gate.id.startswith("failure/")
        if gate.id.startswith("failure/web-1"):
            run.sandbox.heal("crash-loop", "web-1")
            return Verdict.RETRY
        if gate.id.startswith("failure/db-1"):
            return Verdict.ROLLBACK
        return _approve(gate)

    await run.upgrade()
    return await run.to_the_end(answer)


async def _rollback(run: CellRun) -> FleetResult:
    """Asked for after the canary: the final dump is restored."""

    def answer(gate: Gate) -> Verdict | None:
        if gate.id.startswith("wave/"):
            run.director.armed = True
            return None
        return _approve(gate)

    await run.upgrade()
    return await run.to_the_end(answer)


async def _rollback_steps(run: CellRun) -> FleetResult:
    """Days later, from the folders on the hosts."""
    await run.upgrade()
    await run.to_the_end(_approve)
    run.director.armed = True
    seen = await folders(run.client, run.spec)
    request = request_from_folders(run.spec, seen, requested_by="bob")
    await run.client.start_workflow(
        "RollbackFleet", request, id=workflow_id(run.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    return await run.to_the_end(_approve)


async def _rollback_steps_too(run: CellRun) -> FleetResult:
    """The same, swept from the start of the upgrade."""
    run.director.armed = True
    return await _rollback_steps(run)


async def _rollback_fails(run: CellRun) -> FleetResult:
    """v1 does not start: v2 is started again."""

    def answer(gate: Gate) -> Verdict | None:
        if gate.id.startswith("wave/"):
            run.sandbox.fault("core-never-up", "core", version="1")
            return None
        return _approve(gate)

    await run.upgrade()
    return await run.to_the_end(answer)


async def _all_at_once(run: CellRun) -> FleetResult:
    def answer(gate: Gate) -> Verdict:
        run.director.armed = True
        return _approve(gate)

    await run.upgrade()
    return await run.to_the_end(answer)


def _at_once(spec: FleetSpec) -> FleetSpec:
    return replace(
        spec,
        rollout=replace(spec.rollout, mode=RolloutMode.ALL_AT_ONCE, canary=0, wave="100%", approve=Approval.CORE_ONLY),
    )


def _in_pages(spec: FleetSpec) -> FleetSpec:
    """A page for each server, as if there were a hundred, and one wave of them."""
    return replace(spec, page=1, rollout=replace(spec.rollout, canary=0, wave="2", approve=Approval.CORE_ONLY))


def _impatient(spec: FleetSpec) -> FleetSpec:
    return replace(spec, timing=replace(spec.timing, core_ready=timedelta(seconds=5)))


def _hurried(spec: FleetSpec) -> FleetSpec:
    """With dead-man timers, and little patience for a server that Core does not see."""
    servers = tuple(replace(one, auto_rollback=timedelta(minutes=30)) for one in spec.servers)
    return replace(spec, servers=servers, timing=replace(spec.timing, core_sees=timedelta(seconds=4)))


def _outbound(spec: FleetSpec) -> FleetSpec:
    """web-1 connects to Core by itself once it is upgraded."""
    first, *others = spec.servers
    core = replace(spec.core, agents_url=f"ws://{spec.core.host.address}:9120")
    return replace(spec, core=core, servers=(replace(first, connection=Connection.OUTBOUND), *others))


CONTAINERS = {"web-1": "own", "db-1": "shared"}

SCENARIOS = {
    one.name: one
    for one in (
        Scenario("happy", "the upgrade succeeds, in waves", _happy, FleetState.UPGRADED, ("upgraded", "upgraded")),
        Scenario(
            "failing", "one server fails and is retried, another is restored", _failing, FleetState.INCOMPLETE,
            ("upgraded", "left on v1"), shape=_hurried,
            early=("recheck_server", "switch_server", "restore_server"),
        ),
        Scenario(
            "rollback",
            "everything is rolled back after the canary",
            _rollback,
            FleetState.ROLLED_BACK,
            ("rolled back", "stopped"), back=True,
        ),
        Scenario(
            "rollback-later",
            "rolled back after the run, from the run folders on the hosts",
            _rollback_steps,
            FleetState.ROLLED_BACK, ("rolled back", "rolled back"), back=True,
        ),
        Scenario(
            "rollback-fails",
            "v1 does not start, and v2 is started again",
            _rollback_fails,
            FleetState.ROLLBACK_INCOMPLETE,
            ("upgraded", "pending"),
            shape=_impatient,
            early=("start_old_core", "return_to_new_core"),
        ),
        Scenario(
            "all-at-once", "all agents are switched with Core", _all_at_once,
            FleetState.UPGRADED, ("upgraded", "upgraded"), shape=_at_once, early=("stage_core_key",),
        ),
        Scenario(
            "containers", "agents in containers are upgraded, and rolled back from the run folders",
            _rollback_steps_too, FleetState.ROLLED_BACK, ("rolled back", "rolled back"), back=True,
            containers=CONTAINERS,
        ),
        Scenario(
            "outbound", "a server connects to Core after its switch, and is rolled back from the run folders",
            _rollback_steps, FleetState.ROLLED_BACK, ("rolled back", "rolled back"), back=True, shape=_outbound,
            early=("connect_server", "verify_server"),
        ),
        Scenario(
            "pages", "child workflows do the steps of each page, and roll back from the run folders",
            _rollback_steps_too, FleetState.ROLLED_BACK, ("rolled back", "rolled back"), back=True, shape=_in_pages,
        ),
        Scenario(
            "containers-failing", "one container crashes and is retried, Core never sees the other one",
            _failing, FleetState.INCOMPLETE, ("upgraded", "left on v1"), shape=_hurried, containers=CONTAINERS,
            early=("recheck_server", "switch_server", "restore_server"),
        ),
    )
}  # fmt: skip
