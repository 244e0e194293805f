"""The installed wheel works from any folder without the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, ROOT],
        check=True,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel. It uses the dependencies of this environment by path, so that nothing is
    downloaded. The checkout's editable install is not included, because nested .pth files are not read."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    here = next(p for p in sys.path if p.endswith("site-packages"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (Path(purelib) / "dependencies.pth").write_text(here + "\n")
    return python


def run(python: Path, *command: str, timeout: float, home: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_wheel_contains_every_package_and_its_shell_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("activities", "cli", "hosts", "komodo", "model", "sandbox", "service", "web", "workflows"):
        here = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        assert here <= names, f"missing in the wheel: {sorted(here - names)}"
    assert {"starter.py", "worker.py"} <= names
    assert not [n for n in names if n.startswith("tests/")]


def test_the_installed_commands_work_in_another_folder(clean_python: Path, tmp_path: Path) -> None:
    where = run(clean_python, "python", "-c", "import starter; print(starter.__file__)", timeout=60, home=tmp_path)
    assert str(clean_python.parent.parent) in where.stdout, where.stdout + where.stderr
    shown = run(clean_python, "komodo-upgrade", "--help", timeout=60, home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "demo" in shown.stdout


def test_the_installed_demo_upgrades_and_rolls_back_in_another_folder(clean_python: Path, tmp_path: Path) -> None:
    """A server that fails is restored, its gate opens, and it is retried; then the whole fleet is rolled back."""
    words = ("demo", "--yes", "--servers", "2", "--fail", "db-1", "--rollback")
    ended = run(clean_python, "komodo-upgrade", *words, timeout=240, home=tmp_path)
    assert ended.returncode == 7, ended.stdout + ended.stderr
    assert "gate failure/db-1/1: db-1 is left on v1: retry, roll back or skip?" in ended.stderr
    assert "retry, by the demo" in ended.stderr
    assert re.search(r"db-1 +upgraded +2\.3\.2", ended.stdout), ended.stdout
    assert "LOST: everything written to Komodo since" in ended.stderr
    assert re.search(r"core +rolled back +1\.19\.5", ended.stdout), ended.stdout
    assert re.search(r"db-1 +rolled back +1\.19\.5", ended.stdout), ended.stdout
