"""From one v2 to the next, thirty servers, and Core with docker-compose 1.29."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import proofs
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import MIDDLE, NEW, OLD_COMPOSE
from tests.e2e.operator import NAME, Operator
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all


@pytest.mark.parametrize("bob", [{**ALL_AT_ONCE, "target": MIDDLE}], indirect=True)
def test_to_an_older_v2_and_on_to_the_newest(fresh: Bed, bob: Operator, note: list[str]) -> None:
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
    """Its commands differ, and it sets no label for the env file; upgrade and rollback."""
    before = compose1.configs(), proofs.core_files(compose1)
    operator = Operator.of(compose1, tmp_path, **ALL_AT_ONCE)
    try:
        operator.start()
        assert operator.approve_to_the_end()["state"] == "upgraded"
        proofs.upgraded(compose1)
        proofs.once_only(compose1)
        operator.ok("rollback", NAME, "--detach", code=6)
        operator.answer(operator.gate("rollback/"))
        assert operator.wait().get("state") == "rolled back"
        proofs.as_before(compose1, *before)
    finally:
        operator.leave()
    version = compose1.on("core", "docker-compose", "version", "--short")
    assert version.startswith("1.29")
    note.append(f"docker-compose {version}: upgrade and rollback")


@pytest.fixture
def thirty(built: Bed) -> Bed:
    """Thirty servers."""
    bed = Bed.build(30)
    bed.up()
    return bed


def test_thirty_servers(thirty: Bed, tmp_path: Path, note: list[str]) -> None:
    operator = Operator.of(thirty, tmp_path, rollout='wave = "34%"')
    try:
        operator.start()
        assert operator.approve_to_the_end(1200)["state"] == "upgraded"
        proofs.upgraded(thirty)
        proofs.once_only(thirty)
    finally:
        operator.leave()
    note.append("30 servers")
