"""A place in which another user of the host owns folders, and scripts that root runs there."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts.exec.script import Script, library, packaged
from tests.shells import SHELL, path, words_of

ROOT = os.geteuid() == 0
OTHER = pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid()
"""The attacker: another user where the tests run as root. Else the tests' own user, who then attacks itself."""
FILES = packaged("hosts.sh", "lib/prelude.sh") + library("hosts.sh", "lib/files.sh")


@contextmanager
def open_ground() -> Iterator[Path]:
    """A folder that every user can enter, which pytest's own cannot."""
    with tempfile.TemporaryDirectory(prefix="ku-adversary-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def give(place: Path, uid: int = OTHER) -> Path:
    """It belongs to the other user, with all that is in it."""
    if ROOT:
        for each in (place, *place.rglob("*")):
            os.chown(each, uid, uid, follow_symlinks=False)
    return place


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def run(script: Script, data: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """As a host runs it, attached."""
    environment = {"PATH": path(), "LC_ALL": "C", "KU_STAMP": "20261123T221500Z", **env}
    return subprocess.run(
        [SHELL, *words_of(script)], input=data, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def with_files(code: str, *words: str) -> Script:
    """Code that uses lib/files.sh."""
    return Script("t", f"{FILES}\n{code}", words)


def tool(folder: Path, name: str, text: str) -> Path:
    """A program of the host, in front of the real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder


def copy_tools(folder: Path, *without: str) -> str:
    """A PATH with all programs but these."""
    folder.mkdir()
    for source in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"):
        for program in Path(source).iterdir():
            if program.name not in without and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    assert shutil.which("sh", path=str(folder))
    return str(folder)
