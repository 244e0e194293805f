"""One server fails: its gate opens, the cause is removed, and a retry succeeds."""

from __future__ import annotations

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW
from tests.e2e.operator import NAME, Operator

pytestmark = pytest.mark.e2e
QUICK = {"rollout": "wave = 2", "timing": 'core_sees = "12s"'}


@pytest.mark.parametrize("bob", [QUICK], indirect=True)
def test_a_server_that_core_cannot_reach_is_asked_about_and_retried(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """A firewall blocks Core from db-1 after the plan was made."""
    bob.start()
    bob.answer(bob.gate("core"))
    wave = bob.gate("wave/2")
    fresh.wall("db-1", up=True)
    bob.answer(wave)
    failed = bob.gate("failure/db-1/1")
    assert "retry" in failed["verdicts"]
    assert "rollback" in failed["verdicts"]
    assert fresh.states()["db-1"][0] != "Ok"
    assert fresh.states()["nas"] == ("Ok", NEW), "the other server of the wave is upgraded"
    fresh.wall("db-1", up=False)
    bob.answer(failed, "retry", "db-1")
    result = bob.approve_to_the_end()
    assert result["state"] == "upgraded", result
    proofs.upgraded(fresh)
    note.append("gate failure/db-1/1, other servers upgraded, retried, all upgraded")
    assert NAME in bob.ok("list")
