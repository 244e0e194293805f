"""Locks: one run at a time per test bed and per kind of programs, and one build at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.e2e.bed.images import Say
from tests.e2e.bed.settings import BED, FLAVOUR, Missing

FOLDER = Path("/run/lock")
"""A folder of the machine, not of the cache, because the engine's names are shared by all caches."""


def take(say: Say, seconds: float | None = None) -> list[IO[str]]:
    """Take the locks of a whole run; they end with the process or when the files are closed. Raises Missing."""
    return [_wait(f"bed-{BED or 'default'}", say, seconds), _wait(f"programs-{FLAVOUR}", say, seconds)]


@contextmanager
def building(say: Say) -> Iterator[None]:
    """Hold the lock for building, because all kinds share what is built."""
    file = _wait("building", say, None)
    try:
        yield
    finally:
        file.close()


def _wait(what: str, say: Say, seconds: float | None) -> IO[str]:
    patience = float(os.environ.get("KUE_WAIT", "1200")) if seconds is None else seconds
    path = FOLDER / f"komodo-upgrade-e2e-{what}"
    file = path.open("a+")
    end = time.monotonic() + patience
    reported = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            if time.monotonic() > end:
                file.close()
                raise Missing(f"another run ({what}, process {holder}) has not ended in {patience:.0f} s") from None
            if not reported:
                say(f"another run ({what}, process {holder}) is at work: waiting up to {patience:.0f} s")
                reported = True
            time.sleep(0.5)
            continue
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file
