"""One command that a simulated host was asked to run: its words, environment, input and output."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import select
import shlex
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.machine.disks import real
from sandbox.machine.host import SandboxHost


@dataclass(frozen=True, slots=True)
class Become:
    """The client turns into this program (sudo, and shims around a real tool)."""

    path: str
    argv: tuple[str, ...]
    env: dict[str, str]

    def line(self) -> str:
        """As the client runs it."""
        words = [
            "/usr/bin/env",
            "-i",
            *(f"{name}={value}" for name, value in self.env.items()),
            self.path,
            *self.argv[1:],
        ]
        return f"exec {shlex.join(words)}\n"


@dataclass(slots=True)
class Call:
    """One command that a host was asked to run."""

    host: SandboxHost
    name: str
    argv: list[str]
    """Without the command's own name."""
    cwd: str
    env: dict[str, str]
    pid: int = 0
    """Of the client; 0 where there is none."""
    answer: int = -1
    """A pipe to the client, which runs the shell lines that it reads there."""
    _pending: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def root(self) -> bool:
        """The command runs as root (through the stand-in for sudo, or by logging in as root)."""
        return self.env.get("KU_SANDBOX_UID") == "0"

    def out(self, data: str | bytes) -> None:
        """Write to standard output (buffered until the end or `flush`)."""
        self._pending.append((1, data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data))

    def err(self, data: str | bytes) -> None:
        """Write to standard error."""
        self._pending.append((2, data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data))

    def pending(self) -> str:
        """What was written and not handed over yet."""
        return b"".join(data for _, data in self._pending).decode("utf-8", "replace")

    async def flush(self) -> None:
        """Let the client write what was written so far."""
        pending, self._pending = self._pending, []
        for stream, data in pending:
            await self.send(f"{_printing(data)} >&{stream}\n")

    async def send(self, line: str) -> None:
        """A line of shell for the client."""
        data = memoryview(line.encode("utf-8", "surrogateescape"))
        while data:
            await _ready(self.answer, write=True)
            data = data[os.write(self.answer, data[: select.PIPE_BUF]) :]

    def stdout_path(self) -> Path:
        """The file, or the name of the pipe, that standard output goes to."""
        return Path(f"/proc/{self.pid}/fd/1").readlink()

    def parent(self) -> int:
        """Process id of what started the command."""
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])

    async def read(self) -> bytes:
        """Standard input to its end."""
        parts = []
        with self._stdin() as fd:
            while part := await _read(fd, 65536):
                parts.append(part)
        return b"".join(parts)

    async def read_line(self) -> bytes | None:
        """One line of standard input, without its end; None at the end.

        Read byte by byte, because what follows belongs to the next program on the same pipe.
        """
        line = b""
        with self._stdin() as fd:
            while (part := await _read(fd, 1)) and part != b"\n":
                line += part
        return line if line or part else None

    @contextlib.contextmanager
    def _stdin(self) -> Iterator[int]:
        fd = os.open(f"/proc/{self.pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield fd
        finally:
            os.close(fd)


def _printing(data: bytes) -> str:
    """A command that writes this. A shell's text holds no NUL: such data goes through base64."""
    if b"\0" in data:
        return f"printf %s {base64.b64encode(data).decode()} | {real('base64')} -d"
    return f"printf %s {shlex.quote(data.decode('utf-8', 'surrogateescape'))}"


async def _ready(fd: int, *, write: bool) -> None:
    """Wait until a pipe can be used without blocking; files and /dev/null always can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    own = os.dup(fd)  # epoll refuses one descriptor twice
    try:
        (loop.add_writer if write else loop.add_reader)(own, wake)
    except OSError as error:
        os.close(own)
        if error.errno == errno.EPERM:
            return
        raise
    try:
        await done
    finally:
        (loop.remove_writer if write else loop.remove_reader)(own)
        os.close(own)


async def _read(fd: int, size: int) -> bytes:
    await _ready(fd, write=False)
    return os.read(fd, size)


Handler = Callable[[Call], Awaitable[int | Become]]
"""What runs a command; its exit code, or the program that the client turns into."""


def options(argv: list[str], valued: str, *, first: bool = False) -> tuple[dict[str, list[str]], list[str]]:
    """Options and words; `valued` lists the options with a value. `first`: options end at the first word."""
    known = set(valued.split())
    found: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            words.append(word)
            if first:
                return found, words + rest
        elif name in known:
            value = value if equals else (rest.pop(0) if rest else "")
            found.setdefault(name, []).append(value)
        elif word.startswith("--"):
            found.setdefault(name, []).append(value)
        elif word[:2] in known:
            found.setdefault(word[:2], []).append(word[2:])
        else:
            for letter in word[1:]:
                found.setdefault(f"-{letter}", []).append("")
    return found, words
