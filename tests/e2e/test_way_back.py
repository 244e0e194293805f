"""Ways back that a plain rollback does not take."""

from __future__ import annotations

import json

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.person import NAME, Person
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all
KEEP = {**ALL_AT_ONCE, "more": '[database]\nrollback = "keep"\n'}


@pytest.mark.parametrize("bob", [KEEP], indirect=True)
def test_what_was_written_since_is_kept(fresh: Bed, bob: Person, note: list[str]) -> None:
    """By `km database v1-downgrade`, and without the Updates that v1 cannot read."""
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
    proofs.as_before(fresh, *before)  # ListServers and ListUpdates among it
    assert proofs.variables(fresh) == sorted([*had, "SINCE"])
    assert "UpdateServerKey" not in {update["operation"] for update in fresh.updates()}
    assert fresh.on("core", "docker", "ps", "-a", "-q", "--filter", "name=komodo-upgrade-km") == ""
    note.append("v1 lists servers and updates on the database that v2 left; a variable made in v2 is there")
