"""Every sh file of the project: shellcheck, as it really runs, and the syntax of the shells at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hosts.script import Script, packaged
from hosts.wire import COMMAND, call, job_frame, opening

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "hosts" / "sh").glob("*.sh"), *(ROOT / "komodo" / "sh").glob("*.sh")])
# These run without the prelude: the first code on a host, and what a person runs without us.
ALONE = {"become.sh", "call.sh", "run.sh", "prelude.sh", "restore.sh"}
# Libraries are checked as part of what needs them.
LIBRARIES = {name for path in FILES for name in re.findall(r"^# needs: (\S+)$", path.read_text(), re.MULTILINE)}
SHELLS = [shell.split() for shell in ("dash", "bash --posix", "busybox sh") if shutil.which(shell.split()[0])]


def as_it_runs(path: Path) -> str:
    if path.name in ALONE:
        return path.read_text()
    return "#!/bin/sh\nset -eu\n" + Script.load(f"{path.parent.parent.name}.sh", path.name).text


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_shellcheck(path: Path) -> None:
    if path.name in LIBRARIES:
        return
    shellcheck = Path(sys.executable).with_name("shellcheck")
    # SC2034: variables of the prelude that this one script does not use.
    done = subprocess.run(
        [shellcheck, "-s", "sh", "-S", "style", "-e", "SC2034,SC2317,SC2329", "-"],
        input=as_it_runs(path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_syntax(path: Path) -> None:
    assert SHELLS
    for shell in SHELLS:
        done = subprocess.run([*shell, "-n"], input=as_it_runs(path), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), shell


def test_they_are_found() -> None:
    names = {path.name for path in FILES}
    assert {"job.sh", "prelude.sh", "run.sh"} <= names
    assert not [path for path in FILES if "\r" in path.read_text()]
    assert {"jobs.sh"} <= LIBRARIES <= names


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_call_without_ssh(shell: list[str], tmp_path: Path) -> None:
    """The command and the frame, given to a shell by hand."""
    marker = "ku-test"
    script = Script("t", 'printf "%s|" "$@" "$KU_STAMP"; cat; exit 3')
    args = ("", "a\nb\n", "ü \\ 'x'", "\x81")
    data = bytes(range(256)) * 300
    done = subprocess.run(
        [*shell, "-c", COMMAND.replace("exec sh", f"exec {' '.join(shell)}")],
        input=opening(marker, None, call(marker, script, args, "stamp")) + data,
        capture_output=True,
        check=False,
        timeout=20,
    )
    expected = "".join(f"{arg}|" for arg in (*args, "stamp")).encode() + data
    assert done.stdout == b"\nku-test begin\n" + expected + b"\nku-test end 3\n"
    assert done.stderr == b"\nku-test begin\n\nku-test end 3\n"
    assert done.returncode == 0


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_every_cut_of_a_call_ends_in_74_and_runs_nothing(shell: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    run = COMMAND.replace("exec sh", f"exec {' '.join(shell)}")
    frame = opening("ku-test", None, call("ku-test", Script("t", ': >"$1"'), (str(mark), "two\nlines")))
    for cut in [*range(0, len(frame) - 1, 7), len(frame) - 1]:
        done = subprocess.run(
            [*shell, "-c", run], input=frame[:cut], capture_output=True, check=False, timeout=20, cwd=tmp_path
        )
        assert done.returncode == 74, frame[:cut]
        assert b" end " not in done.stdout
        assert not mark.exists()
    subprocess.run([*shell, "-c", run], input=frame, capture_output=True, check=True, timeout=20)
    assert mark.exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_job_without_ssh(shell: list[str], tmp_path: Path) -> None:
    """job.sh alone under each shell: started, then found done."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (
        ("sh", f'#!/bin/sh\nexec {" ".join(shell)} "$@"\n'),
        ("systemd-run", "#!/bin/sh\nexit 1\n"),
    ):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    state = tmp_path / "state"
    place = state / "prod" / "20261123T221500Z" / "jobs" / "web-1" / "1" / "step"
    marker = "ku-test"
    data = bytes(range(256)) * 50
    for _ in range(2):
        frame = job_frame(Script("t", 'echo run >>"$1"; cat'), (str(tmp_path / "count"),), data, "stamp")
        words = (str(state), "prod", "20261123T221500Z", str(place), marker, packaged("hosts.sh", "run.sh"), frame)
        starter = call(marker, Script.load("hosts.sh", "job.sh"), words)
        done = subprocess.run(
            [*shell, "-c", COMMAND.replace("exec sh", f"exec {bin_}/sh")],
            input=opening(marker, None, starter),
            capture_output=True,
            check=False,
            timeout=30,
            env={"PATH": f"{bin_}:{os.environ['PATH']}"},
        )
        out = done.stdout.partition(b"result\t")[2]
        assert out.startswith(b"0\n" + data + b"\nku-test err\n\nku-test done\n"), done.stderr
    assert (tmp_path / "count").read_text() == "run\n"
