"""mongodump and mongorestore in the database's container: the contract that real ones (100.12) and stand-ins share."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.bed import install
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import PREFIX

pytestmark = pytest.mark.e2e_all
URI = "mongodb://komodo@127.0.0.1:27017/?authSource=admin"
ARCHIVE = "/tmp/archive.gz"


@pytest.fixture(scope="module")
def bed(built: Bed) -> Bed:
    built.up()
    return built


class Tools:
    """Runs a tool as the upgrade does: in the container, with the password on standard input."""

    def __init__(self, password: str) -> None:
        self._password = password

    def run(self, *words: str, password: str | None = None, uri: str = URI) -> tuple[int, str, bytes]:
        """(exit code, standard error, standard output)."""
        given = f"password: {self._password if password is None else password}\n"
        done = subprocess.run(
            ["docker", "exec", "-i", f"{PREFIX}core", "docker", "exec", "-i", "komodo-mongo-1",
             words[0], f"--uri={uri}", "--config=/dev/stdin", *words[1:]],
            input=given.encode(), capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        # 100.12 writes names without quotation marks, newer versions with different ones.
        shown = done.stderr.decode(errors="replace").replace("`", "").replace('"', "")
        return done.returncode, shown, done.stdout

    def plain(self, *words: str) -> None:
        """Run a command in the container that must succeed."""
        subprocess.run(
            ["docker", "exec", f"{PREFIX}core", "docker", "exec", "komodo-mongo-1", *words], check=True, timeout=60
        )


@pytest.fixture(scope="module")
def tools(bed: Bed) -> Tools:
    """The tools, and an archive of Core's database."""
    found = Tools(install.secrets().db_password)
    code, shown, out = found.run("mongodump", "--db=komodo", "--gzip", f"--archive={ARCHIVE}")
    assert (code, out) == (0, b""), shown
    assert "done dumping komodo.User (1 document)" in shown
    assert "writing komodo.User to archive" in shown
    return found


def test_a_wrong_password(tools: Tools, note: list[str]) -> None:
    code, shown, _ = tools.run("mongodump", "--db=komodo", "--gzip", "--archive", password="no")
    assert code == 1
    assert "Failed: can't create session: failed to connect to mongodb://" in shown
    assert "AuthenticationFailed" in shown
    note.append("exit 1")


def test_a_database_that_is_not_there(tools: Tools, note: list[str]) -> None:
    code, shown, out = tools.run("mongodump", "--db=nowhere", "--gzip", "--archive")
    assert (code, shown) == (0, "")
    assert out.startswith(b"\x1f\x8b")
    note.append(f"exit 0, no output, a valid archive of {len(out)} bytes")


def test_an_unknown_word_in_the_config(tools: Tools, note: list[str]) -> None:
    code, shown, _ = tools.run("mongodump", "--db=komodo", "--gzip", "--archive", password="x\nusername: y")
    assert code == 1
    assert "username" in shown
    note.append("exit 1")


def test_over_documents_that_are_there(tools: Tools, note: list[str]) -> None:
    code, shown, _ = tools.run("mongorestore", "--gzip", f"--archive={ARCHIVE}")
    assert code == 0
    assert "0 document(s) restored successfully." in shown
    assert "0 document(s) failed" not in shown
    note.append("exit 0 though every document failed")


def test_another_name(tools: Tools, note: list[str]) -> None:
    names = ("--nsFrom=komodo.*", "--nsTo=scratch.*")
    code, shown, _ = tools.run("mongorestore", "--gzip", f"--archive={ARCHIVE}", "--drop", *names)
    assert code == 0
    assert "finished restoring scratch.User (1 document, 0 failures)" in shown
    assert " 0 document(s) failed to restore." in shown
    assert "done dumping scratch.User (1 document)" in tools.run("mongodump", "--db=scratch", "--gzip", "--archive")[1]
    note.append("renamed, complete")


def test_a_filter_that_looks_like_a_name(tools: Tools, note: list[str]) -> None:
    code, shown, _ = tools.run("mongorestore", "--gzip", f"--archive={ARCHIVE}", "--db=other")
    assert code == 0
    assert "0 document(s) restored successfully. 0 document(s) failed to restore." in shown
    note.append("exit 0, nothing restored")


def test_a_truncated_archive(tools: Tools, note: list[str]) -> None:
    tools.plain("sh", "-c", f"head -c $(($(stat -c %s {ARCHIVE}) / 2)) {ARCHIVE} >/tmp/cut.gz")
    dry, _, _ = tools.run("mongorestore", "--gzip", "--archive=/tmp/cut.gz", "--dryRun")
    names = ("--nsFrom=komodo.*", "--nsTo=cut.*")
    code, shown, _ = tools.run("mongorestore", "--gzip", "--archive=/tmp/cut.gz", *names)
    assert (dry, code) == (0, 1), shown
    assert "Failed: " in shown
    note.append("dry run 0, restore 1")


def test_gzip_left_out_and_too_much(tools: Tools, note: list[str]) -> None:
    code, shown, _ = tools.run("mongorestore", f"--archive={ARCHIVE}")
    assert code == 1
    assert "does not appear to be a mongodump archive" in shown
    tools.plain("sh", "-c", f"gzip -dc {ARCHIVE} >/tmp/plain")
    code, shown, _ = tools.run("mongorestore", "--gzip", "--archive=/tmp/plain")
    assert code == 1
    assert "gzip: invalid header" in shown
    note.append("exit 1 both ways")
