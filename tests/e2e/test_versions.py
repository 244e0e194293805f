"""From one v2 to the next, many servers at once, and a Core whose machine has the old docker-compose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import MIDDLE, NEW, OLD_COMPOSE
from tests.e2e.person import NAME, Person
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
def compose1(built: Bed) -> Bed:
    """Core installed by docker-compose 1.29, with two servers."""
    bed = Bed.build(2, OLD_COMPOSE)
    bed.up()
    return bed


def test_docker_compose_1_29(compose1: Bed, tmp_path: Path, note: list[str]) -> None:
    """Other words for the same, no label for the env file, and back again."""
    before = compose1.configs(), proofs.core_files(compose1)
    person = Person.of(compose1, tmp_path, **ALL_AT_ONCE)
    try:
        person.start()
        assert person.approve_to_the_end()["state"] == "upgraded"
        proofs.upgraded(compose1)
        proofs.once_only(compose1)
        person.ok("rollback", NAME, "--detach", code=6)
        person.answer(person.gate("rollback/"))
        assert person.wait().get("state") == "rolled back"
        proofs.as_before(compose1, *before)
    finally:
        person.leave()
    version = compose1.on("core", "docker-compose", "version", "--short")
    assert version.startswith("1.29")
    note.append(f"docker-compose {version}: upgraded, and back")


@pytest.fixture
def thirty(built: Bed) -> Bed:
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
