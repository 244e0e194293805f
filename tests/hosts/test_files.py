"""Files are written completely or not at all, once, with owner and mode."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hosts.exec.script import Script, library, packaged
from model.errors import ArtifactError, CommandFailed, PlanChanged, Unreachable

from .conftest import Machine, until

SHELLS = ("dash", "bash --posix", "busybox sh", "sh")
PRELUDE = packaged("hosts.sh", "lib/prelude.sh") + library("hosts.sh", "lib/files.sh")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- push -------------------------------------------------------------------------------------------------------------


async def test_push(machine: Machine, tmp_path: Path) -> None:
    local = tmp_path / "binary"
    data = os.urandom(3_000_000)
    local.write_bytes(data)
    remote = machine.server.folder / "staged" / "the binary"
    await machine.host.push(local, str(remote), sha256=sha(data), mode="0755")
    assert remote.read_bytes() == data
    assert remote.stat().st_mode & 0o7777 == 0o755
    inode = remote.stat().st_ino
    await machine.host.push(local, str(remote), sha256=sha(data), mode="0755")
    assert remote.stat().st_ino == inode
    assert [path.name for path in remote.parent.iterdir()] == ["the binary"]


async def test_push_refuses_a_file_with_another_digest(machine: Machine, tmp_path: Path) -> None:
    local = tmp_path / "binary"
    local.write_bytes(b"other")
    remote = machine.server.folder / "binary"
    remote.write_bytes(b"old")
    with pytest.raises(ArtifactError, match="not what was expected"):
        await machine.host.push(local, str(remote), sha256=sha(b"binary"))
    assert remote.read_bytes() == b"old"


async def test_an_interrupted_push_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    local = tmp_path / "binary"
    data = os.urandom(60_000_000)
    local.write_bytes(data)
    remote = machine.server.folder / "staged" / "binary"
    pushing = asyncio.create_task(machine.host.push(local, str(remote), sha256=sha(data)))
    await until(lambda: list(remote.parent.glob("*")))
    machine.server.cut()
    with pytest.raises(Unreachable):
        await pushing
    await until(lambda: not list(remote.parent.glob("*")))


# --- the prelude, alone, under several shells -------------------------------------------------------------------------


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param.split()
    if subprocess.run(["which", words[0]], capture_output=True, check=False).returncode:
        pytest.skip(f"no {words[0]} on this machine")
    return words


def prelude(shell: list[str], text: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    script = f"set -eu\numask 077\n{PRELUDE}\n{text}\n"
    return subprocess.run(
        [*shell, "-c", script, "sh", *args],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", **env},
        timeout=30,
    )


COPY = """digest "$1"; as_owner "$2" copy_of "$1" "$2" "$sha256"; printf '%s\\n' "$ku_result\""""
REPLACE = 'replace_file "$1" "$2" "$3" "$4"'


def test_replace_file(shell: list[str], tmp_path: Path) -> None:
    new, dest = tmp_path / "new", tmp_path / "a dest"
    new.write_text("new\n")
    dest.write_text("old\n")
    dest.chmod(0o642)
    if os.geteuid() == 0:
        os.chown(dest, 1234, 4321)
    before = dest.stat()
    args = (str(new), str(dest), sha(b"old\n"), sha(b"new\n"))
    for _ in range(2):
        done = prelude(shell, REPLACE, *args)
        assert (done.returncode, done.stderr) == (0, "")
        assert dest.read_text() == "new\n"
    after = dest.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a dest", "new"]


def test_what_a_killed_call_has_left_is_removed(shell: list[str], tmp_path: Path) -> None:
    """A power failure between the temporary file and the rename."""
    new, dest = tmp_path / "new", tmp_path / "compose.env"
    new.write_text("new")
    dest.write_text("old")
    left = [tmp_path / f".{name}.komodo-upgrade.0b9f" for name in ("compose.env", "compose.env.bak_v1")]
    other = tmp_path / ".other.env.komodo-upgrade.0b9f"
    for file in (*left, other):
        file.write_text("SECRET=1")
    assert prelude(shell, COPY, str(dest), f"{dest}.bak_v1").returncode == 0
    done = prelude(shell, REPLACE, str(new), str(dest), sha(b"old"), sha(b"new"))
    assert (done.returncode, dest.read_text()) == (0, "new"), done.stderr
    assert not [file for file in left if file.exists()]
    assert other.exists()


def test_replace_file_keeps_a_link(shell: list[str], tmp_path: Path) -> None:
    new, real, link = tmp_path / "new", tmp_path / "real", tmp_path / "link"
    new.write_text("new")
    real.write_text("old")
    link.symlink_to("real")
    assert prelude(shell, REPLACE, str(new), str(link), sha(b"old"), sha(b"new")).returncode == 0
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_replace_file_of_a_file_that_is_not_there(shell: list[str], tmp_path: Path) -> None:
    new, dest = tmp_path / "new", tmp_path / "dest"
    new.write_text("new")
    assert prelude(shell, REPLACE, str(new), str(dest), "", sha(b"new")).returncode == 0
    assert dest.read_text() == "new"
    done = prelude(shell, REPLACE, str(new), str(tmp_path / "other"), sha(b"old"), sha(b"new"))
    assert done.returncode == 72
    assert "no such file" in done.stderr


def test_replace_file_refuses_what_was_not_planned(shell: list[str], tmp_path: Path) -> None:
    new, dest = tmp_path / "new", tmp_path / "dest"
    new.write_text("new")
    dest.write_text("changed by hand")
    done = prelude(shell, REPLACE, str(new), str(dest), sha(b"old"), sha(b"new"))
    assert done.returncode == 72
    assert dest.read_text() == "changed by hand"
    new.write_text("half a n")
    dest.write_text("old")
    done = prelude(shell, REPLACE, str(new), str(dest), sha(b"old"), sha(b"new"))
    assert done.returncode == 74
    assert dest.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "new"]


@pytest.mark.parametrize("shell", [s for s in SHELLS if not s.startswith("busybox")], indirect=True)  # its own cp
def test_replace_file_on_a_full_disk(shell: list[str], tmp_path: Path) -> None:
    """cp fails on a full disk (a stand-in does): the file is unchanged, and no temporary file remains."""
    new, dest, bin_ = tmp_path / "new", tmp_path / "dest", tmp_path / "bin"
    new.write_text("new")
    dest.write_text("old")
    bin_.mkdir()
    cp = bin_ / "cp"
    cp.write_text(
        """#!/bin/sh
for last; do :; done
: >"$last"
echo "cp: error writing '$last': No space left on device" >&2
exit 1
"""
    )
    cp.chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    if Path(shutil.which(shell[0]) or "").resolve().name == "busybox":
        pytest.skip("busybox runs its own cp")
    done = prelude(shell, REPLACE, str(new), str(dest), sha(b"old"), sha(b"new"), PATH=path)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert dest.read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bin", "dest", "new"]


def test_copy_of(shell: list[str], tmp_path: Path) -> None:
    source, kept = tmp_path / "compose.yaml", tmp_path / "compose.yaml.bak_v1"
    source.write_text("one")
    source.chmod(0o640)

    def keep() -> str:
        done = prelude(shell, COPY, str(source), str(kept), KU_STAMP="20261123T221500Z")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert keep() == f"{kept}\n"
    assert keep() == f"{kept}\n"
    assert kept.stat().st_mode & 0o7777 == 0o640
    source.write_text("two")
    assert keep() == f"{kept}.20261123T221500Z\n"
    assert keep() == f"{kept}.20261123T221500Z\n"
    source.write_text("three")
    assert keep() == f"{kept}.20261123T221500Z.2\n"
    assert kept.read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 4


def test_say_and_sha256_of(shell: list[str], tmp_path: Path) -> None:
    file = tmp_path / "-n file"
    file.write_bytes(b"x")
    text = """say key 'one  value \\n'; say many 'a\nb'; say empty ''
say sum "$(sha256_of "$1")"; say none "$(sha256_of "$1.no")\""""
    done = prelude(shell, text, str(file))
    assert done.stdout == f"key\tone  value \\n\nmany\ta\nmany\tb\nempty\t\nsum\t{sha(b'x')}\nnone\t\n"


def test_die(shell: list[str]) -> None:
    done = prelude(shell, 'die 72 "it differs"; echo never')
    assert (done.returncode, done.stdout, done.stderr) == (72, "", "it differs\n")


async def test_exit_codes_of_the_libraries_become_typed_errors(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "dest").write_text("by hand")
    script = Script("t", f"{PRELUDE}\n{REPLACE}")
    with pytest.raises(PlanChanged, match="is not what it was"):
        await machine.host.run(script.given(str(tmp_path / "new"), str(tmp_path / "dest"), sha(b"old"), sha(b"new")))
    with pytest.raises(CommandFailed):
        await machine.host.run(Script("t", f"{PRELUDE}\n{COPY}").given("/nowhere", "/nowhere.bak"))
