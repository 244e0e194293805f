"""Every sh file of the project: shellcheck, as it really runs, and the syntax of the shells at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hosts.exec.protocol import COMMAND, call, job_frame, opening
from hosts.exec.script import Script, _loaded, library, packaged, standalone
from tests.shells import words_of

ROOT = Path(__file__).parents[2]
FOLDERS = {package: ROOT / package.replace(".", "/") for package in ("hosts.sh", "komodo.sh")}
FILES = [(package, path) for package, folder in FOLDERS.items() for path in sorted(folder.rglob("*.sh"))]
# These run without the prelude: the first code on a host, and what a person runs without us.
ALONE = {"become.sh", "call.sh", "run.sh", "prelude.sh", "auto_rollback.sh"}
ALONE |= {"restore_core.sh", "restore_server.sh", "restore_container.sh"}
# Libraries are checked as part of what needs them.
LIBRARIES = [path for _, path in FILES if path.parent.name == "lib" and path.name != "prelude.sh"]
SHELLS = [shell.split() for shell in ("dash", "bash --posix", "busybox sh") if shutil.which(shell.split()[0])]


def as_it_runs(package: str, path: Path) -> str:
    name = path.relative_to(FOLDERS[package]).as_posix()
    if path.name in ALONE:
        return standalone(package, name)
    declared = re.findall(r"^# params: (.+)$", path.read_text(), re.MULTILINE)
    params = dict.fromkeys((param for param in " ".join(declared).split() if not param.endswith("?")), "x")
    text = Script.load(package, name, **params).text
    files = library("hosts.sh", "lib/files.sh")
    # As text, which shellcheck can read.
    plain = packaged("hosts.sh", "lib/prelude.sh") + "ku_carried=\n" + packaged("hosts.sh", "lib/files.sh")
    return "#!/bin/sh\nset -eu\n" + text.replace(files, plain)


@pytest.mark.parametrize(("package", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_shellcheck(package: str, path: Path) -> None:
    if path in LIBRARIES:
        return
    shellcheck = Path(sys.executable).with_name("shellcheck")
    # SC2034: variables of the prelude that this one script does not use. SC3067: dash, bash and busybox have `test -O`.
    done = subprocess.run(
        [shellcheck, "-s", "sh", "-S", "style", "-e", "SC2034,SC2317,SC2329,SC3067", "-"],
        input=as_it_runs(package, path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(("package", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_syntax(package: str, path: Path) -> None:
    assert SHELLS
    for shell in SHELLS:
        text = as_it_runs(package, path)
        done = subprocess.run([*shell, "-n"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), shell


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    """Loads a script that declares these parameters and prints them."""

    def load(line: str, *words: str, **params: str) -> Script:
        def text(package: str, name: str) -> str:
            return f"# params: {line}\n{SHOW}\n" if package == "test" else packaged(package, name)

        monkeypatch.setattr("hosts.exec.script.packaged", text)
        _loaded.cache_clear()
        return Script.load("test", "x", *words, **params)

    return load


def test_they_are_found() -> None:
    names = {path.name for _, path in FILES}
    assert {"job.sh", "prelude.sh", "run.sh", "switch_agent.sh"} <= names
    assert not [path for _, path in FILES if "\r" in path.read_text()]
    needed = {name for _, path in FILES for name in re.findall(r"^# needs: lib/(\S+)$", path.read_text(), re.MULTILINE)}
    assert needed - {"prelude.sh"} == {path.name for path in LIBRARIES if path.name != "params.sh"}


SHOW = 'printf "%s|" "$unit" "$invocation" "$@"'


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_parameters_are_variables_and_never_code(
    shell: list[str], tmp_path: Path, declare: Callable[..., Script]
) -> None:
    values = ("$(touch made)`touch made`; touch made\n'\"\\", "a=b", "--", "-n", "")
    for value in values:
        script = declare("unit invocation?", value, "--", unit=value)
        env = {"PATH": os.environ["PATH"], "unit": "of the environment", "invocation": "of the environment"}
        done = subprocess.run([*shell, *words_of(script)], cwd=tmp_path, env=env, capture_output=True, check=False)
        assert (done.stdout.decode(), done.stderr) == (f"{value}||{value}|--|", b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("words", [["other", "x"], ["unit"], ["unit;id", "x"], ["PATH", "x"], ["ku_given", "x"], []])
def test_sh_takes_declared_parameters_only(shell: list[str], words: list[str], declare: Callable[..., Script]) -> None:
    script = declare("unit invocation?", unit="x").given(*words)
    done = subprocess.run([*shell, *words_of(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (74, "")
    assert "parameter" in done.stderr


def test_python_takes_declared_parameters_only() -> None:
    with pytest.raises(TypeError, match="missing: \\['path'\\], unknown: \\['place'\\]"):
        Script.load("hosts.sh", "file_digest.sh", place="/x")


@pytest.mark.parametrize("line", ["unit unit", "Unit", "un-it", "ku_marker", "unit=1", "unit $(id)"])
def test_names_of_parameters_are_checked(line: str, declare: Callable[..., Script]) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        declare(line)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_call_without_ssh(shell: list[str], tmp_path: Path) -> None:
    """The command and the frame, given to a shell by hand."""
    marker = "ku-test"
    args = ("", "a\nb\n", "ü \\ 'x'", "\x81")
    script = Script("t", 'printf "%s|" "$@" "$KU_STAMP"; cat; exit 3', args)
    data = bytes(range(256)) * 300
    done = subprocess.run(
        [*shell, "-c", COMMAND.replace("exec sh", f"exec {' '.join(shell)}")],
        input=opening(marker, None, call(marker, script, "stamp")) + data,
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
    frame = opening("ku-test", None, call("ku-test", Script("t", ': >"$1"', (str(mark), "two\nlines"))))
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
        frame = job_frame(Script("t", 'echo run >>"$1"; cat', (str(tmp_path / "count"),)), data, "stamp")
        script = Script.load(
            "hosts.sh",
            "job.sh",
            state=str(state),
            fleet="prod",
            change="20261123T221500Z",
            job=str(place),
            nonce=marker,
            runner=packaged("hosts.sh", "run.sh"),
            frame=frame,
        )
        starter = call(marker, script)
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
