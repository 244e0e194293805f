"""All at once: Core's key is created in advance, every agent is switched with Core, downtime is measured; rollback."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.operator import NAME, Operator
from tests.e2e.probe import Probe

pytestmark = pytest.mark.e2e_all
ALL_AT_ONCE = {"rollout": 'mode = "all-at-once"'}
PROMISED = 15.0
"""Seconds after which v2 Core must report Ok for a server; it tries every 5 s."""
KEYS = "/opt/komodo/keys"


@pytest.mark.parametrize("bob", [ALL_AT_ONCE], indirect=True)
def test_core_and_all_agents_at_once_and_back(fresh: Bed, bob: Operator, note: list[str]) -> None:
    before = (fresh.configs(), proofs.core_files(fresh))
    bob.start()
    gate = bob.gate("core")
    staged = next(word for fact in gate["facts"] for word in re.findall(r"MCow\S+=", fact))
    assert fresh.on("core", "sh", "-c", f"ls {KEYS}/core.key 2>/dev/null", check=False) == "", "v1 runs unchanged"
    with Probe(fresh) as probe:
        bob.answer(gate)
        result = bob.wait()
    assert result.get("state") == "upgraded", json.dumps(result)[:3000]
    proofs.upgraded(fresh)
    proofs.once_only(fresh)
    assert proofs.core_key(fresh) == staged, "the agents pinned the key that Core uses"
    assert fresh.on("core", "stat", "-c", "%a %u:%g", f"{KEYS}/core.key", f"{KEYS}/core.pub").split("\n") == [
        "600 0:0", "600 0:0",
    ]  # fmt: skip
    nobody_else_has_the_private_part(fresh, bob)

    assert probe.answers > 5
    unmanaged = {name: probe.core_down + seconds for name, seconds in probe.not_ok.items()}
    note.append(f"gate {gate['id']} alone; Core down {probe.core_down:.1f} s")
    note += [
        f"{name}: Ok {probe.not_ok[name]:.1f} s after v2 Core answered, {unmanaged[name]:.1f} s unmanaged"
        for name in unmanaged
    ]
    late = {name: seconds for name, seconds in probe.not_ok.items() if seconds > PROMISED}
    assert not late, late

    note += bob.timeline()
    bob.ok("rollback", NAME, "--detach", code=6)
    bob.answer(bob.gate("rollback/"))
    back = bob.wait()
    assert back.get("state") == "rolled back", json.dumps(back)[:3000]
    proofs.as_before(fresh, *before)
    note.append("rolled back as a whole: files, binaries and database as before")


def nobody_else_has_the_private_part(bed: Bed, bob: Operator) -> None:
    """Assert that neither jobs on Core's host, nor Docker's logs, nor the worker's machine hold Core's private key."""
    private = bed.on("core", "sed", "-n", "2p", f"{KEYS}/core.key").strip()
    assert len(private) == 64
    search = f"sed -n 2p {KEYS}/core.key | grep -rlF -f - /var/lib/komodo-upgrade /opt/komodo 2>/dev/null | sort"
    found = bed.on("core", "sh", "-c", search).split()
    assert {path.rpartition("/")[2] for path in found} == {"core.key"}, found
    for file in sorted((bob.folder / "state").rglob("*")):
        if file.is_file():
            assert private.encode() not in file.read_bytes(), file
    assert not [shown for shown in bob.transcript if private in shown]
