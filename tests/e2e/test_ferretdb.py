"""Core on the real FerretDB, whose image has no dump tools: km of Core's image dumps and restores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import proofs
from tests.e2e.bed import install
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import FERRETDB, OLD
from tests.e2e.operator import NAME, Operator
from tests.e2e.test_crash import ALL_AT_ONCE

pytestmark = pytest.mark.e2e_all
BASES = "SELECT DISTINCT database_name FROM documentdb_api_catalog.collections ORDER BY 1"


@pytest.fixture
def ferretdb(built: Bed) -> Bed:
    """An installation with the structure of ferretdb.compose.yaml and two servers."""
    bed = Bed.build(2, FERRETDB)
    bed.up()
    return bed


@pytest.fixture
def cleo(ferretdb: Bed, tmp_path: Path) -> Iterator[Operator]:
    """The operator of that fleet."""
    operator = Operator.of(ferretdb, tmp_path, **ALL_AT_ONCE)
    try:
        yield operator
    finally:
        operator.leave()
        (tmp_path / "transcript.log").write_text("\n\n".join(operator.transcript))


def nothing_left(bed: Bed, *secrets: str) -> None:
    """Assert that no one-off container, scratch database, partial dump or secret remains."""
    assert bed.on("core", "docker", "ps", "-a", "-q", "--filter", "name=komodo-upgrade-km") == ""
    shown = bed.on(
        "core", "docker", "exec", "komodo-postgres-1", "psql", "-U", "komodo", "-d", "postgres", "-Atc", BASES
    )
    assert shown.split() == ["komodo"], shown
    folder = bed.run_folder("core", NAME)
    names = bed.on("core", "sh", "-c", f"ls {folder}/dumps").split()
    whole = (".km.tar", ".source.json", ".proof.json")
    assert [n for n in names if not n.endswith(whole)] == [], names
    for secret in secrets:
        assert bed.on("core", "sh", "-c", f"grep -rlF -- '{secret}' {folder}/jobs {folder}/dumps || true") == ""


@pytest.mark.parametrize("way", ["restore", "keep"])
def test_upgrade_and_rollback(ferretdb: Bed, cleo: Operator, way: str, note: list[str]) -> None:
    before = ferretdb.configs(), proofs.core_files(ferretdb)
    password = install.secrets().db_password
    had = proofs.variables(ferretdb)
    cleo.ok("check")
    assert "km database backup" in cleo.ok("plan", code=5)
    cleo.start()
    assert cleo.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(ferretdb)
    proofs.once_only(ferretdb)
    nothing_left(ferretdb, password)
    proofs.write_since(ferretdb)
    shown = cleo.ok("rollback", NAME, "--plan", "--database", way)
    assert ("final.km.tar" if way == "restore" else "is kept") in shown
    cleo.ok("rollback", NAME, "--detach", "--database", way, code=6)
    cleo.answer(cleo.gate("rollback/"))
    result = cleo.wait()
    assert result.get("state") == "rolled back", json.dumps(result)[:3000]
    proofs.as_before(ferretdb, *before)
    assert proofs.variables(ferretdb) == (had if way == "restore" else sorted([*had, "SINCE"]))
    nothing_left(ferretdb, password)
    assert password not in "\n".join(cleo.transcript)
    note.append("dumped and proven in a scratch database by km of Core's image; nothing remains of it")
    note.append("restored by km" if way == "restore" else "v1 has what was written since the upgrade")


def test_restore_sh_alone(ferretdb: Bed, cleo: Operator, note: list[str]) -> None:
    """Only psql in PostgreSQL's container can drop the database."""
    before = ferretdb.configs(), proofs.core_files(ferretdb)
    had = proofs.variables(ferretdb)
    cleo.start()
    assert cleo.approve_to_the_end()["state"] == "upgraded"
    proofs.write_since(ferretdb)
    cleo.leave()
    for name in ("core", *(s.name for s in ferretdb.servers)):
        script = f"{ferretdb.run_folder(name, NAME)}/restore.sh"
        ferretdb.on(name, "sh", script, "--dry-run")
        ferretdb.on(name, "sh", script)
    proofs.as_before(ferretdb, *before)
    assert proofs.variables(ferretdb) == had
    nothing_left(ferretdb, install.secrets().db_password)
    note.append("sh, docker, psql and km were enough")


def test_the_worker_killed_while_km_works(ferretdb: Bed, cleo: Operator, note: list[str]) -> None:
    before = ferretdb.configs(), proofs.core_files(ferretdb)
    killed = ["dump_before", "prove_before", "dump_final", "prove_final", "dump_pre_rollback", "restore_database"]
    cleo.begin()
    for job in killed[:2]:
        cleo.kill_worker_when("core", job)
    cleo.answer(cleo.gate("core"))
    for job in killed[2:4]:
        cleo.kill_worker_when("core", job)
    assert cleo.approve_to_the_end()["state"] == "upgraded"
    proofs.upgraded(ferretdb)
    proofs.once_only(ferretdb)
    nothing_left(ferretdb)
    cleo.ok("rollback", NAME, "--detach", code=6)
    cleo.answer(cleo.gate("rollback/"))
    for job in killed[4:]:
        cleo.kill_worker_when("core", job)
    assert cleo.wait().get("state") == "rolled back"
    proofs.as_before(ferretdb, *before)
    ferretdb.wait_ok(OLD, 30)
    nothing_left(ferretdb)
    note.append(f"SIGKILL at {', '.join(killed)}; every step ran once")
