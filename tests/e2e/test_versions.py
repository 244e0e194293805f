"""From one v2 to the next, and many servers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import MIDDLE, NEW
from tests.e2e.person import Person
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all


@pytest.mark.parametrize("bob", [{**ALL_AT_ONCE, "target": MIDDLE}], indirect=True)
def test_to_an_older_v2_and_on_to_the_newest(fresh: Bed, bob: Person, note: list[str]) -> None:
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh, version=MIDDLE)
    key = proofs.core_key(fresh)
    fresh.write_access(bob.folder, target=NEW, **ALL_AT_ONCE)
    bob.start()
    assert bob.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(fresh)
    assert proofs.core_key(fresh) == key, "Core's key pair is kept"
    note.append(f"1.19.5 to {MIDDLE} to {NEW}, the same key")


@pytest.fixture
def thirty() -> Bed:
    """Thirty servers."""
    bed = Bed.build(30)
    bed.up()
    return bed


def test_thirty_servers(thirty: Bed, tmp_path: Path, note: list[str]) -> None:
    person = Person.of(thirty, tmp_path, rollout='wave = "34%"')
    try:
        person.start()
        assert person.approve_to_the_end(1200)["state"] == "upgraded"
        proofs.upgraded(thirty)
        proofs.once_only(thirty)
    finally:
        person.leave()
    note.append("30 servers")
