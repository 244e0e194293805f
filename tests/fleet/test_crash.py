"""Workers die and connections are cut without an effect on the hosts: a quick sample of `make crash-sweep`."""

from __future__ import annotations

from pathlib import Path

from model.status import FleetState
from tests.sweep import proofs
from tests.sweep.cell_run import cell_run
from tests.sweep.director import CUT, KILL, Wanted
from tests.sweep.scenarios import SCENARIOS

SAMPLE = {
    "dump_database core final | during dump_database.sh": Wanted(KILL, job=True),
    "switch_server web-1 | during switch_agent.sh": Wanted(CUT, job=True),
    "save_report core | after": Wanted(KILL, job=True),
}


async def test_a_crash_in_the_middle_of_an_upgrade_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGKILL during a script, and after one whose end was not reported; a connection cut during a switch."""
    happy = SCENARIOS["happy"]
    async with cell_run(tmp_path, cells=SAMPLE, shape=happy.shape, servers=1) as run:
        was = proofs.before(run)
        result = await happy.play(run)
        assert result.state is FleetState.UPGRADED, result.detail
        assert {hit.cell for hit in run.director.hits} == set(SAMPLE)
        assert await proofs.broken(run, was, back=False) == []
        for host, commands in proofs.after(run, result, was).commands.items():
            jobs = {command: times for command, times in commands.items() if command.startswith("job ")}
            assert jobs, host
            assert set(jobs.values()) == {1}, jobs
        assert run.sandbox.agent_version("web-1") == "2.3.2"
