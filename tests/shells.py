"""Which shell and which tools run the sh files in tests: dash and the machine's own, or all of it busybox."""

from __future__ import annotations

import os
import shutil

TOOLS = os.environ.get("KU_TEST_TOOLS", "")
"""A folder of programs that go before the machine's; with an `sh` in it, that is the shell."""
SHELL = f"{TOOLS}/sh" if TOOLS else shutil.which("dash") or "sh"


def path(*first: object) -> str:
    """PATH of a host under test: stand-ins first."""
    return ":".join([*map(str, first), *([TOOLS] if TOOLS else []), "/usr/bin", "/bin"])
