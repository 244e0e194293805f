"""How a command on a simulated host reaches this process: one tiny client script, a unix socket, passed descriptors.

Each host has a folder `bin` first in PATH. `docker`, `systemctl` and the others in it are links to one Python script
that starts without `site` (about 15 ms), hands its three standard descriptors, argv, environment and folder to the
sandbox, and exits with the code it is told - or becomes another program, which is how `sudo` runs things.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import os
import select
import socket
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.host import SandboxHost

CLIENT = """#!{python} -IS
import _socket, posix, sys
NAME = sys.argv[0].rpartition("/")[2]
def raw(text): return text.encode("utf-8", "surrogateescape")
def gone():
    posix.write(2, raw(NAME + ": the sandbox is gone\\n"))
    posix._exit(69)
s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
try:
    s.connect({socket!r})
    fields = [{host!r}, b"%d" % posix.getppid(), raw(posix.getcwd()), b"%d" % (len(sys.argv)), raw(NAME)]
    fields += [raw(a) for a in sys.argv[1:]]
    fields += [k + b"=" + v for k, v in posix.environ.items()]
    body = b"\\0".join(fields)
    rights = b"".join(n.to_bytes(4, sys.byteorder) for n in (0, 1, 2))
    s.sendmsg([len(body).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    s.sendall(body)
    answer = b""
    while True:
        part = s.recv(65536)
        if not part: break
        answer += part
        if answer[:1] == b"E" and len(answer) >= 2: posix._exit(answer[1])
except OSError:
    gone()
if answer[:1] != b"X": gone()
argc, *words = answer[1:].split(b"\\0")
argv, env = words[1:int(argc) + 1], dict(w.split(b"=", 1) for w in words[int(argc) + 1:] if w)
try:
    posix.execve(words[0], argv, env)
except OSError as error:
    posix.write(2, raw(NAME + ": ") + argv[0] + b": " + raw(error.strerror) + b"\\n")
    posix._exit(126)
"""


def client_script(socket_path: str, host: str) -> str:
    """The stand-in for one host."""
    return CLIENT.format(python=sys.executable, socket=socket_path.encode(), host=host.encode())


@dataclass(frozen=True, slots=True)
class Become:
    """The client turns into this program (sudo, and shims around a real tool)."""

    path: str
    argv: tuple[str, ...]
    env: dict[str, str]

    def encode(self) -> bytes:
        """As the client reads it."""
        words = [str(len(self.argv)), self.path, *self.argv, *(f"{k}={v}" for k, v in self.env.items())]
        return b"X" + "\0".join(words).encode("utf-8", "surrogateescape")


@dataclass(slots=True)
class Call:
    """One command that a host was asked to run."""

    host: SandboxHost
    name: str
    argv: list[str]
    """Without the command's own name."""
    cwd: str
    env: dict[str, str]
    ppid: int
    fds: list[int]
    _pending: list[tuple[int, bytes]] = field(default_factory=list)
    _unread: bytes = b""

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

    def said(self) -> str:
        """What was written and not handed over yet."""
        return b"".join(data for _, data in self._pending).decode("utf-8", "replace")

    async def flush(self) -> None:
        """Hand over what was written so far."""
        pending, self._pending = self._pending, []
        for number, data in pending:
            await _write(self.fds[number], data)

    async def read(self, limit: int = 1 << 30) -> bytes:
        """Standard input to its end (or `limit`)."""
        parts = [self._unread]
        size = len(self._unread)
        self._unread = b""
        while size < limit:
            part = await _read(self.fds[0])
            if not part:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    async def read_line(self) -> bytes | None:
        """One line of standard input, without its end; None at the end.

        Read byte by byte, because what follows belongs to the next program on the same pipe.
        """
        line = b""
        while True:
            part = await _read(self.fds[0], 1)
            if not part:
                return line or None
            if part == b"\n":
                return line
            line += part


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


async def _read(fd: int, size: int = 65536) -> bytes:
    await _ready(fd, write=False)
    return os.read(fd, size)


async def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    size = len(data) if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF
    while view:
        await _ready(fd, write=True)
        written = os.write(fd, view[:size])
        view = view[written:]


Handler = Callable[[Call], Awaitable["int | Become"]]


class ControlSocket:
    """The unix socket on which all stand-ins of the fleet report."""

    def __init__(self, path: str, hosts: dict[str, SandboxHost]) -> None:
        self.path = path
        self.hosts = hosts
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(self.path)
        os.chmod(self.path, 0o600)  # noqa: PTH101
        self._listener.listen(256)
        self._accepting = asyncio.create_task(self._accept())

    async def stop(self) -> None:
        """Stop listening and end every call."""
        for task in [self._accepting, *self._calls]:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._listener is not None
        while True:
            client, _ = await loop.sock_accept(self._listener)
            client.setblocking(False)
            task = asyncio.create_task(self._serve(client))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        fds: list[int] = []
        tasks: list[asyncio.Future[Any]] = []
        try:
            call = await self._receive(client, fds)
            work = asyncio.ensure_future(self._run(call))
            tasks += [work, asyncio.ensure_future(loop.sock_recv(client, 1))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if work.done():  # else the client was killed
                answer = work.result()
                code = answer.encode() if isinstance(answer, Become) else bytes((69, answer & 255))
                await loop.sock_sendall(client, code)
        except OSError:
            pass
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
            client.close()
            for fd in fds:
                os.close(fd)

    async def _run(self, call: Call) -> int | Become:
        try:
            result = await call.host.dispatch(call)
            await call.flush()
        except BrokenPipeError:
            return 141
        except Exception as error:  # noqa: BLE001 - a defect of the sandbox must reach the test that meets it
            call.host.world.defects.append(f"{call.host.name}: {call.name} {call.argv}: {error!r}")
            call.err(f"{call.name}: sandbox defect: {error!r}\n")
            with contextlib.suppress(BrokenPipeError):
                await call.flush()
            return 70
        return result

    async def _receive(self, client: socket.socket, fds: list[int]) -> Call:
        loop = asyncio.get_running_loop()
        await _ready(client.fileno(), write=False)
        head, ancillary, _, _ = client.recvmsg(4, socket.CMSG_SPACE(12))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                fds.extend(numbers)
        if len(head) != 4 or len(fds) != 3:
            raise ConnectionError
        size = int.from_bytes(head, "big")
        body = b""
        while len(body) < size:
            part = await loop.sock_recv(client, min(65536, size - len(body)))
            if not part:
                raise ConnectionError
            body += part
        host, ppid, cwd, argc, *words = body.decode("utf-8", "surrogateescape").split("\0")
        argv, env = words[: int(argc)], dict(w.split("=", 1) for w in words[int(argc) :] if "=" in w)
        return Call(self.hosts[host], argv[0], argv[1:], cwd, env, int(ppid), fds)


def write_json(path: Path, value: object) -> None:
    """State that tests may read, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1, default=str))
    new.replace(path)
