"""A later start goes on from there, and calls nothing done that Core does not see."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.decisions import SIGNAL_CONTROL, Control, ControlVerb, Verdict
from model.progress import FleetState, ServerState
from tests.fleet.conftest import Fleet
from tests.fleet.test_way_back import files


@pytest.mark.parametrize("fleet", [2], indirect=True)
async def test_a_server_that_was_left_unproven_is_proven_by_the_next_run(fleet: Fleet) -> None:
    fleet.spec = replace(fleet.spec, clocks=replace(fleet.spec.clocks, core_sees=timedelta(seconds=5)))
    refused, good = fleet.spec.servers[0].name, fleet.spec.servers[1].name
    fleet.sandbox.fault("wrong-key", refused)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    await fleet.decide(await fleet.gate(f"failure/{refused}"), Verdict.SKIP)
    first = await fleet.approve_all()
    assert first.state is FleetState.INCOMPLETE, first.detail
    states = {s.name: s.state for s in first.servers}
    assert states == {refused: ServerState.UNPROVEN, good: ServerState.UPGRADED}

    await fleet.start(change="20261123T230000Z")
    gate = await fleet.gate("wave/1")
    assert any(f"{refused}: " in fact and "once it is proven" in fact for fact in gate.facts), gate.facts
    fleet.sandbox.heal("wrong-key", refused)
    second = await fleet.approve_all()
    assert second.state is FleetState.UPGRADED, second.detail
    states = {s.name: s.state for s in second.servers}
    assert states == {refused: ServerState.UPGRADED, good: ServerState.ALREADY_CURRENT}
    assert second.servers[0].proof is not None
    assert "Logged in" in second.servers[0].proof.line


async def test_a_run_that_turns_back_undoes_the_runs_before_it_too(fleet: Fleet) -> None:
    before = files(fleet)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    await fleet.gate("wave/2")
    await fleet.handle.signal(SIGNAL_CONTROL, Control(verb=ControlVerb.STOP, actor="ann"))
    assert (await fleet.handle.result()).state is FleetState.STOPPED

    await fleet.start(change="20261123T230000Z")
    await fleet.decide(await fleet.gate("wave/1"))
    await fleet.gate("wave/2")
    assert files(fleet) != before
    await fleet.handle.signal(SIGNAL_CONTROL, Control(verb=ControlVerb.ROLLBACK, actor="ann"))
    gate = await fleet.gate("rollback")
    assert "back to Core 1.19.5 from 2.3.2" in gate.facts[0]
    await fleet.decide(gate)
    result = await fleet.handle.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert [s.state for s in result.servers] == ["rolled back", "rolled back", "stopped"]
    assert files(fleet) == before
    for host in fleet.sandbox.hosts.values():
        assert not list(host.root.glob("**/lock")), "every host was given back"
