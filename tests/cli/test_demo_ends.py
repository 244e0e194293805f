"""However a demo ends, nothing of it keeps running."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.embedded import processes
from service.embedded.state import ENV, Running, StateDir


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def _demo_on_a_terminal(root: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The demo in a session with a terminal of its own; closing the returned descriptor hangs it up."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, ENV: str(root), "TERM": "xterm"}
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "starter", "demo", "--servers", "1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    return process, ours


def _service(root: Path) -> StateDir | None:
    return next((StateDir(path / "service") for path in (root / "demo").glob("*") if (path / "service").exists()), None)


def _alive(now: Running) -> list[int]:
    known = ((now.pid, now.identity), (now.server_pid, now.server_identity), (now.worker_pid, now.worker_identity))
    return [pid for pid, identity in known if processes.is_alive(pid, identity)]


@pytest.mark.parametrize("end", ["hang up", "SIGTERM", "SIGKILL"])
def test_the_service_of_a_demo_ends_with_the_demo(end: str, tmp_path: Path) -> None:
    process, terminal = _demo_on_a_terminal(tmp_path)
    try:
        _until(lambda: (state := _service(tmp_path)) is not None and state.read().phase == "ready", 60)
        state = _service(tmp_path)
        assert state is not None
        now = state.read()
        assert len(_alive(now)) == 3
        if end == "hang up":
            os.close(terminal)
        else:
            process.send_signal(getattr(signal, end))
        process.wait(240)
        _until(lambda: not _alive(now), 60)
        if end != "SIGKILL":
            assert not list((tmp_path / "demo").iterdir()), "the demo has not removed its folder"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", ["demo", "dashboard"])
def test_in_the_background_sigint_is_not_ignored_any_more(command: str) -> None:
    """A shell ignores it in what it starts in the background: nothing else would end the command as Ctrl-C does."""
    code = (
        "import asyncio, signal, sys; from starter import main; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "def run(work, **_):\n"
        "    work.close(); print(signal.getsignal(signal.SIGINT) is signal.default_int_handler); sys.exit(0)\n"
        f"asyncio.run = run; sys.argv[1:] = [{command!r}]; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "True\n", ran.stderr
