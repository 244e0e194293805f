"""Dead-man timers over real SSH against the sandbox: armed by the switch, disarmed after the proof, seen when fired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.dead_man import DeadManTimer
from activities.periphery import Periphery
from model.errors import PutItselfBack
from model.steps import Armed, ReleaseHosts, ServerStep
from tests.activities.server_fleet import NEW, OLD, Fleet, fleet_of, run


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with fleet_of(tmp_path) as made:
        yield made


async def timed(fleet: Fleet, seconds: float, attempt: int = 1) -> ServerStep:
    step = await fleet.ready("web-1", attempt)
    return replace(step, server=replace(step.server, dead_man=timedelta(seconds=seconds)))


async def look(fleet: Fleet, step: ServerStep) -> Armed:
    return (await run(DeadManTimer(fleet.hosts).look_at_dead_man, step)).state


async def until(fleet: Fleet, step: ServerStep, state: Armed) -> None:
    deadline = time.monotonic() + 30
    while (now := await look(fleet, step)) is not state:
        assert time.monotonic() < deadline, f"it stays {now}"
        await asyncio.sleep(0.2)


async def test_armed_proven_disarmed_and_armed_anew(fleet: Fleet) -> None:
    step = await timed(fleet, 600)
    assert await look(fleet, step) is Armed.NONE
    switched = await fleet.switch(step)
    assert switched.puts_itself_back_at is not None
    assert timedelta(minutes=9) < switched.puts_itself_back_at - switched.started_at < timedelta(minutes=11)
    assert await look(fleet, step) is Armed.ARMED
    await fleet.verify(step, switched)
    timer = DeadManTimer(fleet.hosts)
    assert (await run(timer.disarm_dead_man, step)).state is Armed.DISARMED
    assert (await run(timer.disarm_dead_man, step)).state is Armed.DISARMED
    again = replace(step, op=replace(step.op, attempt=2))
    await fleet.switch(again)
    assert await look(fleet, again) is Armed.ARMED
    release = ReleaseHosts(op=again.op, server=again.server)
    done = await run(Periphery(fleet.hosts).release_host, release)
    assert any("the dead-man timer" in fact for fact in done.facts)
    assert await look(fleet, again) is Armed.DISARMED


async def test_without_a_login_the_host_puts_itself_back_and_the_proof_says_so(fleet: Fleet) -> None:
    """The worker dies right after the switch, and Core's key is refused: nobody ever comes."""
    config = fleet.config("web-1").read_bytes()
    fleet.sandbox.fault("wrong-key", "web-1")
    step = await timed(fleet, 2)
    switched = await fleet.switch(step)
    assert switched.version == NEW
    await until(fleet, step, Armed.FIRED)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert fleet.config("web-1").read_bytes() == config
    with pytest.raises(PutItselfBack, match="the host put itself back at"):
        await fleet.verify(step, switched)
    with pytest.raises(PutItselfBack):
        await fleet.switch(step)
    with pytest.raises(PutItselfBack):
        await run(DeadManTimer(fleet.hosts).disarm_dead_man, step)
    # The workflow's undo after it: its own restore.sh, which finds nothing to do.
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD
    fleet.sandbox.heal("wrong-key")
    again = await timed(fleet, 600, attempt=2)
    await fleet.verify(again, await fleet.switch(again))
    assert (await run(DeadManTimer(fleet.hosts).disarm_dead_man, again)).state is Armed.DISARMED


async def test_a_sleeping_worker_does_not_undo_a_healthy_server(fleet: Fleet) -> None:
    step = await timed(fleet, 3)
    switched = await fleet.switch(step)
    await until(fleet, step, Armed.SILENT)
    assert fleet.sandbox.agent_version("web-1") == NEW
    assert (await fleet.verify(step, switched)).by_core
