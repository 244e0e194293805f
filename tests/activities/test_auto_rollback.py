"""Automatic rollback timers in the sandbox: armed by the switch, disarmed by the proof, seen when fired."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from activities.fleet.run_folders import Folders
from activities.server.auto_rollback import AutoRollbackTimer
from model.errors import AutoRolledBack
from model.steps import Armed, ReleaseHosts, SwitchServer
from tests.activities.server_fleet import NEW, OLD, Fleet, run


async def timed(fleet: Fleet, seconds: float, attempt: int = 1) -> SwitchServer:
    step = await fleet.ready("web-1", attempt)
    return replace(step, server=replace(step.server, auto_rollback=timedelta(seconds=seconds)))


async def read(fleet: Fleet, step: SwitchServer) -> Armed:
    return (await run(AutoRollbackTimer(fleet.hosts).check_auto_rollback, step)).state


async def until(fleet: Fleet, step: SwitchServer, state: Armed) -> None:
    deadline = time.monotonic() + 30
    while (now := await read(fleet, step)) is not state:
        assert time.monotonic() < deadline, f"it stays {now}"
        await asyncio.sleep(0.2)


async def test_the_timer_is_disarmed_by_the_proof_and_can_be_armed_again(fleet: Fleet) -> None:
    step = await timed(fleet, 600)
    assert await read(fleet, step) is Armed.NONE
    switched = await fleet.switch(step)
    assert switched.auto_rollback_at is not None
    assert timedelta(minutes=9) < switched.auto_rollback_at - switched.started_at < timedelta(minutes=11)
    assert await read(fleet, step) is Armed.ARMED
    await fleet.verify(step, switched)
    timer = AutoRollbackTimer(fleet.hosts)
    assert (await run(timer.disarm_auto_rollback, step)).state is Armed.DISARMED
    assert (await run(timer.disarm_auto_rollback, step)).state is Armed.DISARMED
    again = replace(step, op=replace(step.op, attempt=2))
    await fleet.switch(again)
    assert await read(fleet, again) is Armed.ARMED
    release = ReleaseHosts(op=again.op, server=again.server)
    done = await run(Folders(fleet.hosts).release_host, release)
    assert any("the automatic rollback timer" in fact for fact in done.facts)
    assert await read(fleet, again) is Armed.DISARMED


async def test_without_a_login_the_host_restores_itself_and_the_proof_reports_it(fleet: Fleet) -> None:
    """The worker dies right after the switch, and Core's key is refused: no worker returns."""
    config = fleet.config("web-1").read_bytes()
    fleet.sandbox.fault("wrong-key", "web-1")
    step = await timed(fleet, 2)
    switched = await fleet.switch(step)
    assert switched.version == NEW
    await until(fleet, step, Armed.FIRED)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert fleet.config("web-1").read_bytes() == config
    with pytest.raises(AutoRolledBack, match="the host rolled back automatically at"):
        await fleet.verify(step, switched)
    with pytest.raises(AutoRolledBack):
        await fleet.switch(step)
    with pytest.raises(AutoRolledBack):
        await run(AutoRollbackTimer(fleet.hosts).disarm_auto_rollback, step)
    # The workflow's undo after it: its own restore.sh, which finds nothing to do.
    assert (await fleet.restore(step)).version == OLD
    fleet.sandbox.heal("wrong-key")
    again = await timed(fleet, 600, attempt=2)
    await fleet.verify(again, await fleet.switch(again))
    assert (await run(AutoRollbackTimer(fleet.hosts).disarm_auto_rollback, again)).state is Armed.DISARMED


async def test_a_sleeping_worker_does_not_undo_a_healthy_server(fleet: Fleet) -> None:
    step = await timed(fleet, 3)
    switched = await fleet.switch(step)
    await until(fleet, step, Armed.SILENT)
    assert fleet.sandbox.agent_version("web-1") == NEW
    assert (await fleet.verify(step, switched)).by_core
