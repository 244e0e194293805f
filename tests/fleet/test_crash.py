"""Workers die, hosts and people do not notice: a killed worker in the middle of a server's switch, and of Core's."""

from __future__ import annotations

from model.progress import FleetState
from tests.fleet.conftest import Fleet, until
from tests.fleet.test_upgrade import jobs_begun

KILLED_AT = (("dump_final", "core", "docker"), ("start_core", "core", "docker"), ("switch", "web-1", "systemctl"))
"""Step, host, and the command that is made slow, so that the step's script still runs when its worker dies."""


async def test_a_worker_killed_in_the_middle_of_a_step_loses_and_doubles_nothing(fleet: Fleet) -> None:
    """SIGKILL while the step's script runs on the host; another worker takes over; the script ran once. Three times."""
    worker = await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    for step, host, slow in KILLED_AT:
        fleet.sandbox.fault("slow", host, seconds=1.5, command=slow)
        if step == "dump_final":
            await fleet.decide(gate)

        async def running(step: str = step, host: str = host) -> bool:
            return any(step in job for job in jobs_begun(fleet, host))

        await until(running, f"{step} runs on {host}", show=fleet.shown)
        worker.kill()
        await worker.process.wait()
        fleet.sandbox.heal("slow", host)
        worker = await fleet.worker()
    result = await fleet.approve_all()

    assert result.state is FleetState.UPGRADED, result.detail
    for name in fleet.sandbox.hosts:
        jobs = jobs_begun(fleet, name)
        assert len(jobs) == len(set(jobs)), jobs


async def test_two_workers_share_an_upgrade_and_one_may_die(fleet: Fleet) -> None:
    first = await fleet.worker()
    await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    await fleet.decide(gate)
    await fleet.gate("wave/2")
    first.kill()
    result = await fleet.approve_all()
    assert result.state is FleetState.UPGRADED, result.detail
