"""The nights that are swept: what is upgraded, what fails, what a person answers, and how it has to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from cli.looking_back import folders
from model.decisions import Gate, Verdict
from model.fleet import TASK_QUEUE, FleetSpec, workflow_id
from model.progress import FleetResult, FleetState
from model.way_back import request_from_folders
from tests.sweep.night import Night


@dataclass(frozen=True)
class Scenario:
    """One night."""

    name: str
    told: str
    play: Callable[[Night], Awaitable[FleetResult]]
    ends: FleetState
    servers: tuple[str, ...]
    """The states that the two servers end in."""
    shape: Callable[[FleetSpec], FleetSpec] = lambda spec: spec
    early: tuple[str, ...] = ()
    """Activities swept also before `arm`."""
    back: bool = False
    """Afterwards everything is as it was before."""


def _approve(gate: Gate) -> Verdict:
    if Verdict.APPROVE not in gate.verdicts:
        raise AssertionError(f"{gate.id} cannot be approved: {gate.question}\n{gate.facts}")
    return Verdict.APPROVE


async def _happy(night: Night) -> FleetResult:
    night.director.armed = True
    await night.upgrade()
    return await night.to_the_end(_approve)


async def _failing(night: Night) -> FleetResult:
    """web-1's agent crashes once and is upgraded at the second try; Core never sees db-1, which is put back."""
    night.sandbox.fault("crash-loop", "web-1")
    night.sandbox.fault("wrong-key", "db-1")

    def person(gate: Gate) -> Verdict:
        night.director.armed = night.director.armed or gate.id.startswith("failure/")
        if gate.id.startswith("failure/web-1"):
            night.sandbox.heal("crash-loop", "web-1")
            return Verdict.RETRY
        if gate.id.startswith("failure/db-1"):
            return Verdict.ROLLBACK
        return _approve(gate)

    await night.upgrade()
    return await night.to_the_end(person)


async def _rollback(night: Night) -> FleetResult:
    """Asked for after the canary: the final dump is restored."""

    def person(gate: Gate) -> Verdict | None:
        if gate.id.startswith("wave/"):
            night.director.armed = True
            return None
        return _approve(gate)

    await night.upgrade()
    return await night.to_the_end(person)


async def _way_back(night: Night) -> FleetResult:
    """Days later, from the folders on the hosts."""
    await night.upgrade()
    await night.to_the_end(_approve)
    night.director.armed = True
    seen = await folders(night.client, night.spec)
    request = request_from_folders(night.spec, seen, requested_by="bob")
    await night.client.start_workflow(
        "RollbackFleet", request, id=workflow_id(night.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    return await night.to_the_end(_approve)


async def _no_way_back(night: Night) -> FleetResult:
    """v1 does not start any more: v2 is brought back."""

    def person(gate: Gate) -> Verdict | None:
        if gate.id.startswith("wave/"):
            night.sandbox.fault("core-never-up", "core", version="1")
            return None
        return _approve(gate)

    await night.upgrade()
    return await night.to_the_end(person)


async def _together(night: Night) -> FleetResult:
    def person(gate: Gate) -> Verdict:
        night.director.armed = True
        return _approve(gate)

    await night.upgrade()
    return await night.to_the_end(person)


def _at_once(spec: FleetSpec) -> FleetSpec:
    return replace(spec, rollout=replace(spec.rollout, mode="together", canary=0, wave="100%", approve="core-only"))


def _impatient(spec: FleetSpec) -> FleetSpec:
    return replace(spec, clocks=replace(spec.clocks, core_ready=timedelta(seconds=5)))


def _hurried(spec: FleetSpec) -> FleetSpec:
    """With dead-man timers, and little patience for a server that Core does not see."""
    servers = tuple(replace(one, dead_man=timedelta(minutes=30)) for one in spec.servers)
    return replace(spec, servers=servers, clocks=replace(spec.clocks, core_sees=timedelta(seconds=4)))


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("happy", "all goes well, in waves", _happy, FleetState.UPGRADED, ("upgraded", "upgraded")),
        Scenario(
            "failing", "one server fails and is tried again, one is put back", _failing, FleetState.INCOMPLETE,
            ("upgraded", "left on v1"), shape=_hurried,
            early=("recheck_server", "switch_server", "restore_server"),
        ),
        Scenario(
            "rollback",
            "all of it is put back after the canary",
            _rollback,
            FleetState.ROLLED_BACK,
            ("rolled back", "stopped"), back=True,
        ),
        Scenario(
            "way-back", "put back later, from the folders on the hosts", _way_back,
            FleetState.ROLLED_BACK, ("rolled back", "rolled back"), back=True,
        ),
        Scenario(
            "no-way-back",
            "v1 does not start any more, and v2 is brought back",
            _no_way_back,
            FleetState.ROLLBACK_INCOMPLETE,
            ("upgraded", "pending"),
            shape=_impatient,
            early=("start_old_core", "return_to_new_core"),
        ),
        Scenario(
            "together", "all agents with Core", _together, FleetState.UPGRADED, ("upgraded", "upgraded"),
            shape=_at_once, early=("stage_core_key",),
        ),
    )
}  # fmt: skip
