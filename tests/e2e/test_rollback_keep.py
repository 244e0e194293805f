"""Rollback that keeps what was written since the upgrade."""

from __future__ import annotations

import json

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.operator import NAME, Operator
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all
KEEP = {**ALL_AT_ONCE, "more": '[database]\nrollback = "keep"\n'}


@pytest.mark.parametrize("bob", [KEEP], indirect=True)
def test_rollback_keeps_what_was_written_since(fresh: Bed, bob: Operator, note: list[str]) -> None:
    """Uses `km database v1-downgrade`, and removes the Updates that v1 cannot read."""
    before = fresh.configs(), proofs.core_files(fresh)
    had = proofs.variables(fresh)
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    proofs.write_since(fresh)
    shown = bob.ok("rollback", NAME, "--plan")
    assert "what was written since is kept" in shown, shown
    bob.ok("rollback", NAME, "--detach", code=6)
    gate = bob.gate("rollback/")
    assert "km database v1-downgrade" in json.dumps(gate), gate
    bob.answer(gate)
    result = bob.wait()
    assert result.get("state") == "rolled back", json.dumps(result)[:3000]
    proofs.as_before(fresh, *before)  # includes ListServers and ListUpdates
    assert proofs.variables(fresh) == sorted([*had, "SINCE"])
    assert "UpdateServerKey" not in {update["operation"] for update in fresh.updates()}
    assert fresh.on("core", "docker", "ps", "-a", "-q", "--filter", "name=komodo-upgrade-km") == ""
    note.append("v1 lists servers and updates after v2 wrote to the database; a variable created in v2 is kept")
