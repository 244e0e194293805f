"""What another user may write to is neither run nor read nor trusted as root."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.errors import script_failed
from hosts.exec.script import Script, parse, standalone
from model.fleet.spec import HostSpec
from tests.adversary.ground import OTHER, ROOT, give, open_ground, run, sha, with_files
from tests.shells import SHELL, path

SECRET = "[secret]\nroot = 1\n"


@pytest.fixture
def ground() -> Iterator[Path]:
    with open_ground() as made:
        yield made


def survey(ground: Path, binary: Path | str = "", *configs: Path) -> subprocess.CompletedProcess[str]:
    params = {"state_dir": str(ground / "state"), "suffix": "bak_v1", "limit": "10000", "binary": str(binary)}
    return run(Script.load("komodo.sh", "server/survey_files.sh", *map(str, configs), **params))


def who_runs(folder: Path) -> Path:
    """A binary that notes as whom it is run."""
    binary = folder / "periphery"
    binary.write_text(f"#!/bin/sh\nid -u >>'{folder}/ran-as'\necho periphery 1.19.5\n")
    binary.chmod(0o755)
    return binary


def test_a_check_runs_no_binary_of_another_user_as_root(ground: Path) -> None:
    theirs = ground / "home"
    theirs.mkdir()
    binary = who_runs(theirs)
    give(theirs)
    done = survey(ground, binary)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)["binary_version"] == ["periphery 1.19.5 "]
    assert (theirs / "ran-as").read_text() == f"{OTHER}\n"


def test_a_binary_in_a_folder_of_root_belongs_to_its_owner(ground: Path) -> None:
    binary = who_runs(ground)
    (ground / "ran-as").touch()
    give(binary)
    give(ground / "ran-as")
    assert survey(ground, binary).returncode == 0
    assert (ground / "ran-as").read_text() == f"{OTHER}\n"


def test_a_binary_that_others_may_write_is_not_run_as_root(ground: Path) -> None:
    binary = who_runs(ground)
    binary.chmod(0o775)
    done = survey(ground, binary)
    if ROOT:
        assert (done.returncode, (ground / "ran-as").exists()) == (71, False)
        assert "other users may write to it" in done.stderr
    else:
        assert (ground / "ran-as").read_text() == f"{OTHER}\n"


def test_a_link_of_another_user_is_not_followed_as_root(ground: Path) -> None:
    """Neither by a check, nor where a file is read, nor by a backup."""
    theirs, secret = ground / "home", ground / "secret.toml"
    theirs.mkdir()
    secret.write_text(SECRET)
    secret.chmod(0)
    config = theirs / "periphery.config.toml"
    config.symlink_to(secret)
    give(theirs)
    folder = ground / "run"
    records = f"save\t{sha('planned')}\tconfig\tbak_v1\t{config}\n"
    for done in (
        survey(ground, "", config),
        run(Script.load("hosts.sh", "read_file.sh", path=str(config), limit="10000")),
        run(Script.load("komodo.sh", "server/back_up_server.sh", folder=str(folder), stamp="x"), records),
        run(Script.load("komodo.sh", "server/file_facts.sh", str(config))),
    ):
        encoded = base64.b64encode(SECRET.encode()).decode()
        assert not [text for text in ("root = 1", encoded, sha(SECRET)) if text in done.stdout + done.stderr]
        assert done.returncode != 0, done.stdout
    assert not [file for file in folder.rglob("*") if file.is_file() and SECRET in file.read_text()]


def test_links_are_followed_as_root_only_where_root_has_made_them(ground: Path) -> None:
    """/etc/komodo may be a link to a checkout, and that is handled as whoever owns it."""
    theirs = ground / "home"
    theirs.mkdir()
    (theirs / "config.toml").write_text("a = 1\n")
    give(theirs)
    (ground / "etc").symlink_to(theirs)
    new = ground / "new"
    new.write_text("a = 2\n")
    words = (str(new), str(ground / "etc/config.toml"), sha("a = 1\n"), sha("a = 2\n"))
    done = run(with_files('replace_file "$1" "$2" "$3" "$4"; ku_identity "$2"; echo "as ${ku_uid:-self}"', *words))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"as {OTHER if ROOT else 'self'}\n"
    assert (theirs / "config.toml").read_text() == "a = 2\n"
    assert (theirs / "config.toml").stat().st_uid == OTHER


IDENTITY = 'ku_identity "$1"; echo "${ku_uid:-self}"'


@pytest.mark.parametrize(
    ("mode", "inside", "allowed"),
    [
        (0o755, "config", True),
        (0o775, "config", False),
        (0o757, "sub/config", False),
        (0o1777, "sub/config", True),
        (0o1777, "config", False),
        (0o1777, "link/config", False),
    ],
)
def test_folders_of_root_that_others_may_write_to_are_refused(
    ground: Path, mode: int, inside: str, allowed: bool
) -> None:
    folder = ground / "etc"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "sub")
    (folder / inside).write_text("x")
    folder.chmod(mode)
    done = run(with_files(IDENTITY, str(folder / inside)))
    if allowed or not ROOT:
        assert (done.returncode, done.stdout) == (0, "self\n"), done.stderr
    else:
        assert done.returncode == 71
        assert f"other users may write to {folder}" in done.stderr
        assert f"chmod go-w {folder}" in done.stderr


def test_an_endless_link_ends(ground: Path) -> None:
    (ground / "loop").symlink_to("loop")
    done = run(with_files(IDENTITY, str(ground / "loop/x")))
    assert done.returncode == (71 if ROOT else 0)


def test_a_run_folder_of_another_user_is_refused(ground: Path) -> None:
    """Root runs restore.sh from there."""
    state = ground / "state"
    folder = state / "fleet/20261123T221500Z"
    folder.mkdir(parents=True)
    for kind in ("server/restore_server.sh", "core/restore_core.sh"):
        (folder / "restore.sh").write_text(standalone("komodo.sh", kind))
        (folder / "restore.list").write_text("unit\tp.service\nwait\t1\n")
        give(state)
        done = subprocess.run(
            [SHELL, str(folder / "restore.sh"), "--dry-run"],
            env={"PATH": path()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("is not safe to use as root" in done.stderr) == ROOT
        assert done.returncode == 1 or not ROOT
    done = survey(ground)
    assert done.returncode == (71 if ROOT else 0)
    assert ("state_dir" in done.stderr) == ROOT


def test_a_file_of_root_in_a_folder_of_another_user_is_not_given_away(ground: Path) -> None:
    theirs, new = ground / "home", ground / "new"
    theirs.mkdir()
    give(theirs)
    file = theirs / "compose.yaml"
    file.write_text("old\n")
    new.write_text("new\n")
    done = run(with_files('replace_file "$1" "$2" "$3" "$4"', str(new), str(file), sha("old\n"), sha("new\n")))
    assert file.stat().st_uid == os.geteuid()
    if ROOT:
        assert (done.returncode, file.read_text()) == (71, "old\n")
        assert "does not belong to the owner of its folder" in done.stderr
    else:
        assert (done.returncode, file.read_text()) == (0, "new\n")


def test_a_check_names_the_files_that_an_upgrade_could_not_replace(ground: Path) -> None:
    """They were refused in the middle of a run, when they were to be replaced."""
    theirs = ground / "home"
    theirs.mkdir()
    binary, config, good = who_runs(theirs), theirs / "periphery.config.toml", theirs / "other.config.toml"
    for file in (config, good):
        file.write_text("a = 1\n")
        file.chmod(0o644)
    give(theirs)
    give(binary, os.geteuid())
    give(config, os.geteuid())
    (theirs / "link").symlink_to(config)
    done = survey(ground, binary, theirs / "link", good)
    assert done.returncode == 0, done.stderr
    expected = [f"{OTHER}\t{file}" for file in (binary, config)] if ROOT else []
    assert parse(done.stdout).get("foreign", []) == expected
    done = run(Script.load("komodo.sh", "fleet/foreign_files.sh", str(config), str(good), str(theirs / "none")))
    assert (done.returncode, parse(done.stdout).get("foreign", [])) == (0, expected[1:]), done.stderr


def test_a_read_only_file_of_another_user_is_replaced_and_stays_read_only(ground: Path) -> None:
    theirs, new = ground / "home", ground / "new"
    theirs.mkdir()
    file = theirs / "compose.yaml"
    file.write_text("old\n")
    file.chmod(0o444)
    give(theirs)
    new.write_text("new\n")
    done = run(with_files('replace_file "$1" "$2" "$3" "$4"', str(new), str(file), sha("old\n"), sha("new\n")))
    assert (done.returncode, file.read_text()) == (0, "new\n"), done.stderr
    assert oct(file.stat().st_mode & 0o777) == "0o444"
    assert file.stat().st_uid == (OTHER if ROOT else os.geteuid())


@pytest.mark.skipif(not ROOT, reason="needs root: files of two users")
def test_a_private_file_of_root_in_a_folder_of_another_user_is_read(ground: Path) -> None:
    """A Core that runs as root in its container writes its keys into the operator's folder."""
    theirs = ground / "home"
    theirs.mkdir()
    give(theirs)
    key = theirs / "core.pub"
    key.write_text("key\n")
    key.chmod(0o600)
    for code in ('require_readable "$1"; read_as_owner "$1"', 'fetch_file "$1" "$2"; cat "$2"'):
        done = run(with_files(code, str(key), str(ground / "copy")))
        assert (done.returncode, done.stdout) == (0, "key\n"), done.stderr
    digest = with_files('file_digest "$1"; echo "$sha256"', str(key))
    for content in ("key\n", ""):
        key.write_text(content)
        assert run(digest).stdout.strip() == sha(content)
    secret = ground / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    key.unlink()
    key.symlink_to(secret)
    done = run(with_files('read_as_owner "$1"', str(key)))
    assert "secret" not in done.stdout
    key.unlink()
    key.hardlink_to(secret)
    for code in ('read_as_owner "$1"', 'file_digest "$1"', 'fetch_file "$1" "$2"'):
        done = run(with_files(code, str(key), str(ground / "stolen")))
        assert (done.returncode, done.stdout) == (71, ""), code
        assert "not safe to read as root" in done.stderr


def test_a_refusal_says_what_to_type_and_does_not_ask_for_more_rights() -> None:
    said = "/opt/komodo/.env is not safe to use as root: other users may write to /opt/komodo (mode 2775)."
    spec = HostSpec(name="core", address="10.0.0.1")
    for line in (said, "/home/ann/c.yaml does not belong to the owner of its folder, so it cannot be replaced safely."):
        error = script_failed(spec, "survey_core.sh", 71, f"{line} Remedy: chmod …\n", "/lock")
        assert "docs/security.md" in error.hint
        assert "sudo" not in error.hint
    assert (
        "sudo" in script_failed(spec, "survey_core.sh", 71, "/etc/x cannot be read: permission denied\n", "/lock").hint
    )
