"""Files of this machine that decide what a worker may do and with which keys, read and replaced safely.

Such a file counts only if no other user can change it: it and its folder belong to this user or to root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from model.errors import UpgradeError

LARGEST = 1 << 20
"""Bytes of such a file."""
_PATIENCE = 10.0
"""Seconds that another process may take to replace the file."""
Stamp = tuple[int, int]


@dataclass(frozen=True)
class PrivateFile:
    """One file. `error` is raised where it cannot be used."""

    path: Path
    error: type[UpgradeError]
    secret: bool = False
    """Others may not read it either."""

    def stamp(self) -> Stamp:
        """Another one after the file was replaced."""
        try:
            return _stamp(self.path.stat())
        except OSError as error:
            raise self._unusable("read", error) from None

    def read(self) -> tuple[str, Stamp]:
        """Its text, and its stamp."""
        try:
            with open(self.path, "rb", opener=_open_what_is_named) as file:
                facts = os.fstat(file.fileno())
                self._check(facts)
                data = file.read(LARGEST + 1)
        except OSError as error:
            raise self._unusable("read", error) from None
        if len(data) > LARGEST:
            raise self.error(f"{self.path} is larger than {LARGEST >> 20} MiB", hint=f"ls -l {self.path}")
        try:
            return data.decode(), _stamp(facts)
        except UnicodeDecodeError:
            raise self.error(f"{self.path} is not UTF-8 text", hint="correct the file") from None

    def replace(self, change: Callable[[str], str]) -> None:
        """Write what `change` makes of its text, "" where there is no file yet. One process at a time, atomically."""
        try:
            self._require_private(self.path.parent, self.path.parent.stat(), sticky=True)
            with self._locked() as (file, new):
                try:
                    before = self.read()[0] if os.path.lexists(self.path) else None
                    after = change(before or "")
                    if after != before:
                        _write(file, after)
                        new.replace(self.path)
                        _flush_folder(self.path.parent)
                finally:
                    if _is_named(file, new):
                        new.unlink()
        except OSError as error:
            raise self._unusable("written", error) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[IO[bytes], Path]]:
        """The file that is to take the place of this one. One that a killed process left is used again."""
        new = self.path.with_name(f".{self.path.name}.new")
        deadline = time.monotonic() + _PATIENCE
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            with os.fdopen(os.open(new, flags, 0o600), "r+b") as file:
                facts = os.fstat(file.fileno())
                if facts.st_uid != os.getuid() or facts.st_nlink > 1 or not stat.S_ISREG(facts.st_mode):
                    raise self.error(f"{new} is in the way", hint=f"ls -l {new}; remove it")
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_named(file, new):
                        yield file, new
                        return
            if time.monotonic() > deadline:
                raise self.error(f"another process is replacing {self.path}", hint="try again")
            time.sleep(0.02)

    def _check(self, facts: os.stat_result) -> None:
        if not stat.S_ISREG(facts.st_mode):
            raise self.error(f"{self.path} is not a file", hint=f"ls -l {self.path}")
        self._require_private(self.path, facts, secret=self.secret)
        self._require_private(self.path.parent, self.path.parent.stat(), sticky=True)

    def _require_private(
        self, name: Path, facts: os.stat_result, *, secret: bool = False, sticky: bool = False
    ) -> None:
        """`sticky`: a folder in which only the owner of a file may replace it, such as /tmp, is good enough."""
        if facts.st_uid not in (os.getuid(), 0):
            raise self.error(f"{name} belongs to another user (uid {facts.st_uid})", hint=f"ls -ld {name}")
        if sticky and facts.st_mode & stat.S_ISVTX:
            return
        remedy, forbidden = ("go-rwx", 0o077) if secret else ("go-w", 0o022)
        if facts.st_mode & forbidden:
            mode = f"{stat.S_IMODE(facts.st_mode):04o}"
            raise self.error(f"{name} is open to other users (mode {mode})", hint=f"chmod {remedy} {name}")

    def _unusable(self, verb: str, error: OSError) -> UpgradeError:
        return self.error(f"{self.path} cannot be {verb}: {error.strerror}", hint=f"ls -l {self.path}")


def _open_what_is_named(path: str, flags: int) -> int:
    """No symlink; a FIFO does not wait."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_ino, facts.st_mtime_ns


def _is_named(file: IO[bytes], name: Path) -> bool:
    """Is it still the file of this name? A process that was first has renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), name.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write(file: IO[bytes], text: str) -> None:
    file.truncate()
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
