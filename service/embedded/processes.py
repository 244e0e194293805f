"""Processes by pid and start time, so that another process with a reused pid is never touched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path


def identity(pid: int) -> str:
    """When the process started, in the system's own words; empty when there is none."""
    if pid <= 0:
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        after_name = stat.rpartition(")")[2].split()
        return "" if after_name[0] == "Z" else after_name[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    shown = subprocess.run(  # noqa: S603 - a fixed command, the argument is a number
        ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607 - where ps lies differs per system
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip()


def is_alive(pid: int, known: str) -> bool:
    """Whether this process still runs."""
    return bool(known) and identity(pid) == known


async def end(pid: int, known: str, *, patience: timedelta) -> None:
    """SIGTERM, then SIGKILL after `patience`; returns when it is gone. Not this very process: nothing happens."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, timedelta(seconds=10))):
        if not is_alive(pid, known):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + wait.total_seconds()
        while is_alive(pid, known) and time.monotonic() < deadline:  # noqa: ASYNC110 - no child of ours to wait for
            await asyncio.sleep(0.05)
