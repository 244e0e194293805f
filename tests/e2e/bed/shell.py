"""Commands on the machine that runs the test bed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.bed.settings import Missing


class CommandError(RuntimeError):
    """A command failed; the message contains its output."""


def run(
    *command: str | Path, cwd: Path | None = None, data: str | None = None, check: bool = True, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture its output. Raises CommandError."""
    words = [str(c) for c in command]
    done = subprocess.run(
        words, cwd=cwd, input=data, stdin=None if data is not None else subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
    )  # fmt: skip
    if check and done.returncode:
        tail = (done.stdout[-1500:] + done.stderr[-2500:]).strip()
        raise CommandError(f"`{' '.join(words)[:300]}` ended with {done.returncode}:\n{tail}")
    return done


def fetch(*command: str | Path, timeout: float) -> None:
    """Run a command that downloads something, with retries. Raises Missing if all attempts fail."""
    for attempt in range(3):
        try:
            run(*command, timeout=timeout)
        except (CommandError, subprocess.TimeoutExpired) as error:
            if attempt == 2:
                raise Missing(f"cannot be fetched: {error}") from error
            time.sleep(5)
        else:
            return


def docker(*words: str | Path, check: bool = True, data: str | None = None, timeout: float = 600) -> str:
    """The standard output of a docker command, stripped."""
    return run("docker", *words, check=check, data=data, timeout=timeout).stdout.strip()


def inside(container: str, *words: str, check: bool = True, data: str | None = None, timeout: float = 120) -> str:
    """The standard output of a command that runs as root on a machine of the test bed."""
    head = ["exec", "-i", container] if data is not None else ["exec", container]
    return docker(*head, *words, check=check, data=data, timeout=timeout)


def wait_for(what: str, true: Callable[[], object], *, seconds: float, pause: float = 0.2) -> None:
    """Poll until the condition holds. Raises TimeoutError with `what` and the last exception."""
    end, last = time.monotonic() + seconds, ""
    while True:
        try:
            if true():
                return
        except (CommandError, OSError, subprocess.TimeoutExpired) as error:
            last = str(error)
        if time.monotonic() > end:
            raise TimeoutError(f"gave up after {seconds:.0f} s waiting for {what}. {last}")
        time.sleep(pause)
