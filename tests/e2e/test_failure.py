"""One server fails: a person is asked, cures it, and has it tried again."""

from __future__ import annotations

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW
from tests.e2e.person import NAME, Person

pytestmark = pytest.mark.e2e
QUICK = {"rollout": "wave = 2", "timing": 'core_sees = "12s"'}


@pytest.mark.parametrize("bob", [QUICK], indirect=True)
def test_a_server_that_core_cannot_reach_is_asked_about_and_retried(fresh: Bed, bob: Person, note: list[str]) -> None:
    """A firewall between Core and db-1, put there after the plan was made."""
    bob.start()
    bob.answer(bob.gate("core"))
    wave = bob.gate("wave/2")
    fresh.wall("db-1", up=True)
    bob.answer(wave)
    failed = bob.gate("failure/db-1/1")
    assert "retry" in failed["verdicts"]
    assert "rollback" in failed["verdicts"]
    assert fresh.states()["db-1"][0] != "Ok"
    assert fresh.states()["nas"] == ("Ok", NEW), "its neighbour of the same wave is done"
    fresh.wall("db-1", up=False)
    bob.answer(failed, "retry", "db-1")
    result = bob.approve_to_the_end()
    assert result["state"] == "upgraded", result
    proofs.upgraded(fresh)
    note.append("asked at failure/db-1/1, neighbours unharmed, retried, all upgraded")
    assert NAME in bob.ok("list")
