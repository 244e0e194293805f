"""The worker is killed before, during and after the switch of Core and of one server: every step runs once."""

from __future__ import annotations

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import PATIENT, Bed
from tests.e2e.operator import Operator

pytestmark = pytest.mark.e2e
ALL_AT_ONCE = {"rollout": 'wave = "100%"\napprove = "core-only"', "timing": PATIENT}
MOMENTS = {
    "core": (("stop_core", False), ("start_core", False), ("start_core", True)),
    "web-1": (("stage", False), ("switch", False), ("switch", True)),
}
"""Host -> before, during and after its switch: a job, and whether it has ended."""


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
@pytest.mark.parametrize("host", MOMENTS)
def test_the_worker_killed_before_during_and_after_the_switch(
    fresh: Bed, bob: Operator, host: str, note: list[str]
) -> None:
    bob.start()
    gate = bob.gate("core")
    if host == "core":
        bob.answer(gate)
    killed: list[str] = []
    for job, ended in MOMENTS[host]:
        if job == "stage" or (host != "core" and not killed):
            bob.kill_worker_when(host, "stage")  # servers are staged before the gate, so this job exists already
            bob.answer(bob.gate("core"))
        else:
            bob.kill_worker_when(host, job, ended=ended)
        killed.append(f"{job}{' ended' if ended else ''}")
    result = bob.approve_to_the_end()
    assert result["state"] == "upgraded", result
    assert sum(bob.supervisor()["restarts"].values()) >= len(killed), "the signals did not hit a worker"
    proofs.upgraded(fresh)
    proofs.once_only(fresh)
    note.append(f"{host}: SIGKILL at {', '.join(killed)}; every step ran once")
