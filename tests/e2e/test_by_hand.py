"""Rollback by hand: tool, worker and Temporal are stopped, only restore.sh runs."""

from __future__ import annotations

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.operator import NAME, Operator
from tests.e2e.probe import Probe
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_restore_sh_alone(fresh: Bed, bob: Operator, note: list[str]) -> None:
    before = fresh.configs(), proofs.core_files(fresh)
    bob.start()
    gate = bob.gate("core")
    with Probe(fresh) as probe:
        bob.answer(gate)
        assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    bob.leave()
    for name in ("core", *(s.name for s in fresh.servers)):
        script = f"{fresh.run_folder(name, NAME)}/restore.sh"
        fresh.on(name, "sh", script, "--dry-run")
        fresh.on(name, "sh", script)
    proofs.as_before(fresh, *before)
    note += ["all servers at once", *probe.lines()]
    note.append("sh, docker and the backup were enough; no worker, no Temporal")
