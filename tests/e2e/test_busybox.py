"""The shell scripts run with the tools of busybox: its shell, cp, stat, df, awk, sed, sha256sum, …"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import ROOT, cache

pytestmark = pytest.mark.e2e_all
TESTS = (
    "tests/hosts",
    "tests/activities/test_core_scripts.py",
    "tests/activities/test_server_scripts.py",
    "tests/activities/test_server_switch_scripts.py",
)


@pytest.fixture
def tools(built: Bed, tmp_path: Path) -> Path:
    """Debian's busybox from the machines' root file system, linked under all its names."""
    program = tmp_path / "busybox"
    with program.open("wb") as file:
        root = cache() / "roots" / "machine.tar"
        subprocess.run(["tar", "-xOf", root, "./usr/bin/busybox"], stdout=file, check=True)
    program.chmod(0o755)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (folder / name).symlink_to(program)
    return folder


def test_shell_scripts_under_busybox(tools: Path, tmp_path: Path, note: list[str]) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("KUE_")}
    env |= {"KU_TEST_TOOLS": str(tools), "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed.group(1)) > 300
    note.append(f"{passed.group(0)} with busybox first in PATH")
