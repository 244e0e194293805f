"""The pipes through which commands on simulated hosts reach this process, and the record of what they did."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import shutil
from pathlib import Path

from sandbox.machine import stand_ins
from sandbox.machine.call import Become, Call, Handler
from sandbox.machine.host import SandboxHost
from sandbox.world import Recorded, now

UNRECORDED = frozenset({"sudo", "id", "df", "chown"})
_DOCKER = frozenset({"pull", "create", "run", "rm", "rmi", "start", "stop", "restart", "kill", "cp", "tag", "exec"})
_COMPOSE = frozenset({"up", "down", "stop", "start", "restart", "pull", "create", "rm", "run", "exec"})
_SYSTEMCTL = frozenset({"start", "stop", "restart", "try-restart", "enable", "disable", "daemon-reload", "kill"})


def mutates(name: str, argv: list[str]) -> bool:
    """Whether a command changes something (mongodump inside `docker exec` counts, because it is expensive)."""
    plain = [a for a in argv if not a.startswith("-")]
    if argv[-1:] == ["--version"]:
        return False
    if name == "systemctl":
        return bool(_SYSTEMCTL.intersection(plain[:1]))
    if name == "docker" and plain[:1] == ["compose"]:
        return bool(_COMPOSE.intersection(plain)) and "config" not in plain
    if name == "docker":
        return bool(_DOCKER.intersection(plain[:1]))
    return name in {"curl", "wget", "systemd-run"}


class Control:
    """The pipe to which all stand-ins of a fleet report, and what answers them.

    A client makes a pipe named after its process id and writes that id; /proc has all else about it. It runs the shell
    lines that it then reads from its pipe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hosts: dict[str, tuple[SandboxHost, dict[str, Handler]]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._pipe = -1

    def add(self, host: SandboxHost, handlers: dict[str, Handler]) -> None:
        """Serve a host, and write its programs. `handlers`: command name -> what runs it."""
        self._hosts[host.name] = host, handlers
        stand_ins.write(host, self.folder, sorted(handlers))

    async def start(self) -> None:
        """Make the folder and listen."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        os.mkfifo(self.folder / "calls", 0o600)
        self._pipe = os.open(self.folder / "calls", os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._pipe, self._accept)

    async def stop(self) -> None:
        """Stop listening and end every call."""
        if self._pipe >= 0:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
        shutil.rmtree(self.folder, ignore_errors=True)
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _accept(self) -> None:
        for line in os.read(self._pipe, select.PIPE_BUF * 16).decode().splitlines():
            pid, _, host = line.partition(" ")
            task = asyncio.create_task(self._serve(int(pid), host))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _serve(self, pid: int, host: str) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:  # the client may be killed at any time
            answer = await self._open(pid)
            closing.callback(os.close, answer)
            call = self._receive(pid, host, answer)
            loop, work = asyncio.get_running_loop(), asyncio.ensure_future(self._run(call))
            loop.add_reader(answer, work.cancel)  # there is nothing to read: the client has ended
            closing.callback(loop.remove_reader, answer)
            try:
                result = await work
            except asyncio.CancelledError:
                work.cancel()
                return
            await call.send(result.line() if isinstance(result, Become) else f"exit {result & 255}\n")

    async def _open(self, pid: int) -> int:
        """The client's pipe, once the client has opened it, too."""
        path = self.folder / str(pid)
        while True:
            try:
                answer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO or not _runs(pid):
                    raise
                await asyncio.sleep(0.001)
            else:
                path.unlink()
                return answer

    def _receive(self, pid: int, host: str, answer: int) -> Call:
        process = Path(f"/proc/{pid}")
        _, program, *argv = process.joinpath("cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
        variables = process.joinpath("environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
        env = dict(v.split("=", 1) for v in variables if "=" in v)
        name = program.rpartition("/")[2]
        return Call(self._hosts[host][0], name, argv, str(process.joinpath("cwd").readlink()), env, pid, answer)

    async def _run(self, call: Call) -> int | Become:
        try:
            result = await self._dispatch(call)
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

    async def _dispatch(self, call: Call) -> int | Become:
        """Run one stand-in's command and record it."""
        host = call.host
        world = host.world
        for watcher in list(world.watchers):
            watcher(host.name, (call.name, *call.argv))
        slow = world.faults.on("slow", host.name)
        if slow and slow.options.get("command", "") in ("", call.name):
            await asyncio.sleep(float(slow.options.get("seconds", 1)))
        if world.faults.on("hang", host.name):
            await asyncio.Event().wait()
        handler = self._hosts[host.name][1][call.name]
        at = now()
        code: int | Become = 1
        try:
            code = await handler(call)
        finally:
            if call.name not in UNRECORDED:
                entry = Recorded(
                    host=host.name,
                    argv=(call.name, *call.argv),
                    at=at,
                    code=code if isinstance(code, int) else 0,
                    mutating=mutates(call.name, call.argv),
                    took=round((now() - at).total_seconds(), 4),
                )
                host.commands.append(entry)
                world.record(entry)
        return code


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
