"""Key ring and policy count only if no other user can change them, and are never half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.app import cli
from hosts import private_file
from hosts.policy import Policy
from hosts.private_file import LARGEST, PrivateFile
from model.errors import KeyRingError, PolicyRefused, UpgradeError
from service.codec import key_ring


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def _ring(path: Path) -> None:
    key_ring.from_file(path)


def _policy(path: Path) -> None:
    Policy(file=path).host("a.example")


@pytest.fixture(params=[_ring, _policy])
def read(request: pytest.FixtureRequest, folder: Path) -> Callable[[], None]:
    """Read the file, which is good."""
    function: Callable[[Path], None] = request.param
    path = folder / "file"
    if function is _ring:
        key_ring.create(path)
    else:
        path.write_text('hosts = ["*"]')
        path.chmod(0o600)
    function(path)
    return lambda: function(path)


def _refused(read: Callable[[], None], why: str) -> str:
    with pytest.raises((KeyRingError, PolicyRefused), match=why) as caught:
        read()
    return caught.value.hint


def test_a_file_that_others_may_change_is_refused(read: Callable[[], None], folder: Path) -> None:
    file = folder / "file"
    for mode in (0o620, 0o602, 0o1622):
        file.chmod(mode)
        assert _refused(read, "open to other users").endswith(str(file)), "a sticky bit protects files of a folder only"
    file.chmod(0o600)
    folder.chmod(0o770)
    assert _refused(read, "open to other users") == f"chmod go-w {folder}"
    folder.chmod(0o1777)
    read()
    folder.chmod(0o755)
    read()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_or_folder_of_another_user_is_refused(read: Callable[[], None], folder: Path) -> None:
    os.chown(folder / "file", 65534, 65534)
    _refused(read, "file belongs to another user")
    os.chown(folder / "file", 0, 0)
    os.chown(folder, 65534, 65534)
    _refused(read, "belongs to another user")


def test_what_is_no_regular_file_is_refused_without_waiting(read: Callable[[], None], folder: Path) -> None:
    (folder / "file").rename(folder / "real")
    (folder / "file").symlink_to(folder / "real")
    _refused(read, "cannot be read")
    (folder / "file").unlink()
    os.mkfifo(folder / "file", 0o600)
    _refused(read, "not a file")
    (folder / "file").unlink()
    (folder / "file").mkdir()
    _refused(read, "cannot be read")


def test_a_file_is_never_cut(read: Callable[[], None], folder: Path) -> None:
    with (folder / "file").open("a") as file:
        file.write("\n#" + "x" * LARGEST)
    _refused(read, "larger than 1 MiB")


def test_a_key_ring_may_not_be_read_by_others_either(folder: Path) -> None:
    key_ring.create(folder / "ring")
    (folder / "ring").chmod(0o640)
    assert _refused(lambda: _ring(folder / "ring"), "open to other users") == f"chmod go-rwx {folder}/ring"


# --- replacing --------------------------------------------------------------------------------------------------------


def test_rotations_at_the_same_time_lose_no_key(folder: Path) -> None:
    key_ring.create(folder / "ring")
    code = (
        "import sys; from pathlib import Path; from service.codec import key_ring; key_ring.rotate(Path(sys.argv[1]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(folder / "ring")]) for _ in range(4)]
    threads = [threading.Thread(target=key_ring.rotate, args=(folder / "ring",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert len(key_ring.from_file(folder / "ring")) == 13
    assert [path.name for path in folder.iterdir()] == ["ring"]


def test_creations_at_the_same_time_agree(folder: Path) -> None:
    keys: list[str] = []
    threads = [
        threading.Thread(target=lambda: keys.append(key_ring.create(folder / "ring").current[0])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_killed_process_leaves_nothing_that_stays(folder: Path) -> None:
    """It also holds no lock any more. Its text is not taken over."""
    key_ring.create(folder / "ring")
    code = (
        "import os, sys, pathlib, hosts.private_file as f; from service.codec import key_ring\n"
        "f._flush_folder = f.os.fsync = lambda _: (print('now', flush=True), sys.stdin.read())\n"
        "key_ring.rotate(pathlib.Path(sys.argv[1]))"
    )
    line = [sys.executable, "-c", code, str(folder / "ring")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / ".ring.new").exists()
    assert len(key_ring.from_file(folder / "ring")) == 1
    assert len(key_ring.rotate(folder / "ring")) == 2
    assert [path.name for path in folder.iterdir()] == ["ring"]


def test_a_process_that_hangs_does_not_block_others_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_file, "_PATIENCE", 0.1)
    file = PrivateFile(folder / "file", PolicyRefused)
    with file._locked(), pytest.raises(PolicyRefused, match="another process"):
        file.replace(lambda _: "x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_what_another_user_plants_is_not_written_to(folder: Path) -> None:
    folder.chmod(0o1777)
    victim = folder / "victim"
    victim.write_text("untouched")
    file = PrivateFile(folder / "file", PolicyRefused)
    planted = folder / ".file.new"
    for plant in (planted.symlink_to, planted.hardlink_to):
        plant(victim)
        with pytest.raises(PolicyRefused):
            file.replace(lambda _: "x")
        planted.unlink()
    planted.write_text("of nobody")
    os.chown(planted, 65534, 65534)
    with pytest.raises(PolicyRefused):
        file.replace(lambda _: "x")
    assert planted.read_text() == "of nobody"
    assert victim.read_text() == "untouched"
    assert not (folder / "file").exists()


def test_a_folder_that_others_may_write_to_is_refused_before_anything_is_made(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(UpgradeError, match="open to other users"):
        PrivateFile(folder / "file", PolicyRefused).replace(lambda _: "x")
    assert not list(folder.iterdir())


def test_the_folder_is_flushed_after_the_file_was_renamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    flush = os.fsync

    def recorded(descriptor: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (folder / "file").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    PrivateFile(folder / "file", PolicyRefused).replace(lambda _: "x")
    assert flushed == [(str(folder / ".file.new"), False), (str(folder), True)]
    assert (folder / "file").stat().st_mode & 0o777 == 0o600


def test_an_unknown_key_does_not_read_an_unchanged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone who reaches Temporal can send payloads with unknown keys."""
    key_ring.create(folder / "ring")
    ring = key_ring.from_file(folder / "ring")
    monkeypatch.setattr(PrivateFile, "read", lambda _: pytest.fail("the file was read"))
    began = time.process_time()
    for number in range(1_000):
        assert ring.find(str(number)) is None
    assert time.process_time() - began < 1


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", " "])
def test_a_codec_server_with_an_empty_token_does_not_start(token: str, folder: Path) -> None:
    environment = {"KOMODO_UPGRADE_CODEC_TOKEN": token, "KOMODO_UPGRADE_STATE": str(folder)}
    done = CliRunner().invoke(cli, ["codec", "serve", "--port", "0"], env=environment)
    assert done.exit_code == 2
    assert "KOMODO_UPGRADE_CODEC_TOKEN is empty" in done.output


def test_rotate_does_not_touch_the_embedded_ring_for_a_temporal_of_ones_own(folder: Path) -> None:
    environment = {
        "KOMODO_UPGRADE_STATE": str(folder / "state"), "TEMPORAL_ADDRESS": "127.0.0.1:1",
        **dict.fromkeys(key_ring.VARIABLES, ""),
    }  # fmt: skip
    done = CliRunner().invoke(cli, ["codec", "rotate"], env=environment)
    assert done.exit_code == 10
    assert "no variable names its key ring" in done.output
    assert not (folder / "state").exists()
    named = {**environment, key_ring.ENV_FILE: str(folder / "ring")}
    assert CliRunner().invoke(cli, ["codec", "rotate"], env=named).exit_code == 0
    assert len(key_ring.from_file(folder / "ring")) == 1
