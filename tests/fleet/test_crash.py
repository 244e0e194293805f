"""Workers die and lines are cut, hosts and people do not notice: a quick sample of `make crash-sweep`."""

from __future__ import annotations

from pathlib import Path

from model.progress import FleetState
from tests.sweep import proofs
from tests.sweep.director import CUT, KILL, Wanted
from tests.sweep.night import night
from tests.sweep.scenarios import SCENARIOS

SAMPLE = {
    "dump_database core final | during dump_database.sh": Wanted(KILL, job=True),
    "switch_server web-1 | during switch_agent.sh": Wanted(CUT, job=True),
    "save_report core | after": Wanted(KILL, job=True),
}


async def test_what_dies_in_the_middle_of_an_upgrade_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of a script, and after one whose end nobody has heard of; a line cut under a switch."""
    happy = SCENARIOS["happy"]
    async with night(tmp_path, cells=SAMPLE, shape=happy.shape, servers=1) as tonight:
        was = proofs.before(tonight)
        result = await happy.play(tonight)
        assert result.state is FleetState.UPGRADED, result.detail
        assert {hit.cell for hit in tonight.director.hits} == set(SAMPLE)
        assert await proofs.broken(tonight, was, back=False) == []
        for host, commands in proofs.after(tonight, result, was).commands.items():
            jobs = {command: times for command, times in commands.items() if command.startswith("job ")}
            assert jobs, host
            assert set(jobs.values()) == {1}, jobs
        assert tonight.sandbox.agent_version("web-1") == "2.3.2"
