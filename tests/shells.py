"""The shell and the tools that run shell scripts in tests: dash and the machine's tools, or busybox for both."""

from __future__ import annotations

import os
import shutil

from hosts.exec.script import Script

TOOLS = os.environ.get("KU_TEST_TOOLS", "")
"""A folder of programs that precede the machine's. If it contains `sh`, that is the shell."""
SHELL = f"{TOOLS}/sh" if TOOLS else shutil.which("dash") or "sh"


def path(*first: object) -> str:
    """PATH of a simulated host: stand-ins first."""
    return ":".join([*map(str, first), *([TOOLS] if TOOLS else []), "/usr/bin", "/bin"])


def words_of(script: Script) -> list[str]:
    """The words after the shell's name that run a script as a host does."""
    return ["-c", f"set -eu\numask 077\n{script.text}", script.name, *script.words]
