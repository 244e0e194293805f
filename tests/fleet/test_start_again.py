"""A later start continues where the last one ended, and reports nothing as done that Core does not confirm."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.gates import Verdict
from model.status import FleetState, ServerState
from tests.fleet.conftest import Fleet


@pytest.mark.parametrize("fleet", [2], indirect=True)
async def test_an_unverified_server_is_verified_by_the_next_run(fleet: Fleet) -> None:
    fleet.spec = replace(fleet.spec, timing=replace(fleet.spec.timing, core_sees=timedelta(seconds=5)))
    refused, good = fleet.spec.servers[0].name, fleet.spec.servers[1].name
    fleet.sandbox.fault("wrong-key", refused)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    await fleet.decide(await fleet.gate(f"failure/{refused}"), Verdict.SKIP)
    first = await fleet.approve_all()
    assert first.state is FleetState.INCOMPLETE, first.detail
    states = {s.name: s.state for s in first.servers}
    assert states == {"Local": ServerState.UPGRADED, refused: ServerState.UNVERIFIED, good: ServerState.UPGRADED}

    await fleet.start(change="20261123T230000Z")
    gate = await fleet.gate("wave/1")
    assert any(f"{refused}: " in fact and "once it is proven" in fact for fact in gate.facts), gate.facts
    fleet.sandbox.heal("wrong-key", refused)
    second = await fleet.approve_all()
    assert second.state is FleetState.UPGRADED, second.detail
    states = {s.name: s.state for s in second.servers}
    current = ServerState.ALREADY_CURRENT
    assert states == {"Local": current, refused: ServerState.UPGRADED, good: current}
    [proven] = [s.proof for s in second.servers if s.name == refused]
    assert proven is not None
    assert "Logged in" in proven.line
