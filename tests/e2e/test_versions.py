"""From one v2 to the next, many servers at once, and a Core whose machine has the old docker-compose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import FERRETDB, MIDDLE, NEW, OLD, OLD_COMPOSE
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
def ferretdb(built: Bed) -> Bed:
    """Core on the real FerretDB v2, in the shape of the official ferretdb.compose.yaml, with two servers."""
    bed = Bed.build(2, FERRETDB)
    bed.up()
    return bed


def test_a_core_on_ferretdb(ferretdb: Bed, tmp_path: Path, note: list[str]) -> None:
    """Its image has no dump tools. As long as mongodump is the only way to a backup, it is refused, and said so."""
    before = ferretdb.configs(), proofs.core_files(ferretdb)
    person = Person.of(ferretdb, tmp_path, **ALL_AT_ONCE)
    try:
        checked = person.tool("check")
        assert "FerretDB has no mongodump" in checked.stdout, person.said[-1]
        assert checked.returncode not in (0, 1), person.said[-1]
        started = person.tool("start", "--detach")
        assert started.returncode not in (0, 1, 6), person.said[-1]
    finally:
        person.leave()
    assert (ferretdb.configs(), proofs.core_files(ferretdb)) == before
    ferretdb.wait_ok(OLD, 30)
    note.append(f"refused by name, exit code {started.returncode}, nothing changed")


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
