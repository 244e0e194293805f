"""The four that upgrade the same machines: how each is started, measured, killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench import machines
from bench.driver import ServersRequest, request_for
from bench.measure.adopted import end_below
from bench.measure.usage import busy, cpu_of_tree
from service.connection import without_settings
from service.embedded.server import GC_SETTINGS, IP, command, free_port, set_up

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
SETTLING = 3.0
"""Seconds for the tool's services to become idle before a run."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one run, in seconds."""

    wall: float
    """From the command to its end, interpreter and imports included."""
    cpu: dict[str, float]
    """By part: command; for the tool also worker, temporal."""
    hosts: float
    foreign: float
    """CPU that everything else on this machine used during the run."""
    code: int
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def controller(self) -> float:
        """CPU of everything that is not the hosts."""
        return sum(self.cpu.values())


class Lines:
    """A process that speaks JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.pid = process, process.pid

    async def said(self) -> Any:
        """Read the next line."""
        assert self.process.stdout  # noqa: S101 - it was started with a pipe
        line = await self.process.stdout.readline()
        if not line:
            raise SystemExit("a part of the measurement ended early; see above, and the logs")
        return json.loads(line)

    async def ask(self, word: str) -> Any:
        """Send a line and read one."""
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()
        return await self.said()

    def hang_up(self) -> None:
        """Close its standard input."""
        if self.process.stdin:
            self.process.stdin.close()


async def spawn(*argv: str, env: dict[str, str] | None = None, log: Path | None = None) -> Lines:
    """Start a child; its output is a pipe, or goes to `log`."""
    pipe = asyncio.subprocess.PIPE
    output: Any = await asyncio.to_thread(log.open, "ab") if log else pipe
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=output, stderr=output if log else None, cwd=ROOT, env=env, limit=1 << 24
    )
    if log:
        output.close()
    return Lines(process)


class Fleet:
    """The machines, running."""

    def __init__(self, folder: Path, count: int, lines: Lines, site: str) -> None:
        self.folder, self.count, self.site, self._lines = folder, count, site, lines

    @classmethod
    @asynccontextmanager
    async def up(cls, folder: Path, count: int) -> AsyncIterator[Fleet]:
        """Start the machines, and stop them at the end."""
        lines = await spawn(sys.executable, "-m", "bench.machines", str(folder), "--hosts", str(count))
        try:
            yield cls(folder, count, lines, (await lines.said())["site"])
        finally:
            lines.hang_up()
            await lines.process.wait()

    async def reset(self) -> None:
        """Install v1 on every host."""
        await self._lines.ask("reset")

    async def seen(self) -> dict[str, dict[str, Any]]:
        """The state of every host."""
        return dict(await self._lines.ask("survey"))

    @property
    def cpu(self) -> float:
        """CPU of everything that ran on the hosts so far."""
        return cpu_of_tree(self._lines.pid)

    def stopped(self) -> int:
        """How many agents were stopped at least once, from the hosts' records."""
        notes = (self.folder / "hosts" / name / "commands" for name in machines.names(self.count))
        return sum("stop" in note.read_text() for note in notes if note.exists())


class Contestant:
    """A tool that is a single command: asyncssh, pyinfra, Ansible."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> None:
        self.name, self._argv = name, argv
        self._env = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self.log = Path(os.devnull)

    @asynccontextmanager
    async def ready(self, folder: Path) -> AsyncIterator[None]:
        """Services it needs, for one run."""
        self.log = folder / f"{self.name}.log"
        yield

    def parts(self) -> dict[str, int]:
        """Processes of those services."""
        return {}

    async def begin(self) -> Lines:
        """Start the command under bench.measure.adopted and read its first line."""
        lines = await spawn(sys.executable, "-m", "bench.measure.adopted", str(self.log), *self._argv, env=self._env)
        await lines.said()
        return lines

    async def revive(self) -> None:
        """Start the services again after kill -9 of everything."""


class Tool(Contestant):
    """This project: a Temporal server with SQLite on disk and one worker as services, and a starter as the command."""

    def __init__(self, fleet: Fleet) -> None:
        request = fleet.folder / "request.json"
        adapter = TypeAdapter(ServersRequest)
        request.write_bytes(adapter.dump_json(request_for(fleet.folder, fleet.count, fleet.site)))
        super().__init__("komodo-upgrade", [sys.executable, "-m", "bench.start", str(request)])
        self._services: dict[str, Lines] = {}
        self._folder, self._port = Path(), 0

    @asynccontextmanager
    async def ready(self, folder: Path) -> AsyncIterator[None]:
        """A server with an empty database, and a worker."""
        self._folder, self._port = folder, free_port()
        self.log = folder / "starter.log"
        empty = folder / "temporal.toml"
        empty.touch()
        self._env = without_settings(self._env, empty) | {"TEMPORAL_ADDRESS": f"{IP}:{self._port}"}
        try:
            await self.revive()
            await asyncio.sleep(SETTLING)
            yield
        finally:
            for name in ("worker", "temporal"):
                if (service := self._services.pop(name, None)) and service.process.returncode is None:
                    service.process.terminate()
                    await service.process.wait()

    def parts(self) -> dict[str, int]:
        """Worker and Temporal."""
        return {name: service.pid for name, service in self._services.items()}

    async def revive(self) -> None:
        """Start both services on the present database."""
        ready = self._folder / "worker.ready"
        ready.unlink(missing_ok=True)
        server = command(self._port, self._folder / "temporal.db")
        self._services["temporal"] = await spawn(
            *server, env=self._env | GC_SETTINGS, log=self._folder / "temporal.log"
        )
        await asyncio.to_thread(_until_set_up, f"{IP}:{self._port}")
        worker = (sys.executable, "-m", "bench.driver", str(ready))
        self._services["worker"] = await spawn(*worker, env=self._env, log=self._folder / "worker.log")
        end = time.monotonic() + 60
        while not ready.exists():
            if time.monotonic() > end:
                raise SystemExit(f"the worker does not start: {self._folder}/worker.log")
            await asyncio.sleep(0.05)


def _until_set_up(address: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            return asyncio.run(set_up(address))
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def contestants(fleet: Fleet, peers: Path, only: list[str]) -> list[Contestant]:
    """The selected tools, with inventories of the running machines. `peers`: the environment of the other tools."""
    count, folder = str(fleet.count), str(fleet.folder)
    plain = [sys.executable, "-m", "bench.peers.plain", folder, count, fleet.site]
    facts = {"target": machines.TARGET, "sha256": machines.digest(machines.TARGET)}
    hosts = {
        name: {
            "root": f"{folder}/hosts/{name}",
            "url": f"{fleet.site}/{name}/periphery-{machines.TARGET}-{machines.arch()}",
            **facts,
        }
        for name in machines.names(fleet.count)
    }
    known, key = f"{folder}/known_hosts", f"{folder}/client_key"
    ssh: dict[str, Any] = {"ansible_user": "root", "ansible_port": machines.PORT, "ansible_ssh_private_key_file": key}
    ssh["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"
    theirs = {n: {"ansible_host": machines.address(n), **ssh, **h, "key": machines.KEY} for n, h in hosts.items()}
    (fleet.folder / "ansible.json").write_text(json.dumps({"all": {"hosts": theirs}}))
    login: dict[str, Any] = {
        "ssh_user": "root",
        "ssh_port": machines.PORT,
        "ssh_key": key,
        "ssh_known_hosts_file": known,
    }
    ours = [
        (n, {"ssh_hostname": machines.address(n), **login, **h, "core_key": machines.KEY}) for n, h in hosts.items()
    ]
    (fleet.folder / "inventory.py").write_text(f"hosts = {ours!r}\n")
    pyinfra = [f"{peers}/bin/pyinfra", "-y", "--parallel", "20", f"{folder}/inventory.py", str(PEERS / "deploy.py")]
    ansible = [f"{peers}/bin/ansible-playbook", "-i", f"{folder}/ansible.json", str(PEERS / "playbook.yml")]
    env = {"ANSIBLE_CONFIG": str(PEERS / "ansible.cfg"), "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp"}
    every = [
        Contestant("asyncssh", plain),
        Tool(fleet),
        Contestant("pyinfra", pyinfra),
        Contestant("ansible", ansible, env),
    ]
    return [one for one in every if one.name in only]


async def measured(fleet: Fleet, one: Contestant, folder: Path) -> Measured:
    """One run without interruption on fresh machines."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    await fleet.reset()
    async with one.ready(folder):
        return await _window(fleet, one)


async def _window(fleet: Fleet, one: Contestant) -> Measured:
    parts = one.parts()
    before = {name: cpu_of_tree(pid) for name, pid in parts.items()}
    hosts, machine = fleet.cpu, busy()
    lines = await one.begin()
    end = await lines.said()
    cpu = {name: cpu_of_tree(pid) - before[name] for name, pid in parts.items()} | {"command": end["cpu"]}
    hosts, machine = fleet.cpu - hosts, busy() - machine
    await lines.process.wait()
    foreign = max(0.0, machine - hosts - sum(cpu.values()))
    return Measured(end["wall"], cpu, hosts, foreign, end["code"], await fleet.seen())


@dataclass(frozen=True)
class Killed:
    """kill -9 of every process of a controller, and its result."""

    then: dict[str, dict[str, Any]]
    """The hosts a second after it."""
    again: Measured
    """Seconds for the services, if any, and the same command again."""
    back: float
    """Seconds until the services were there again; 0 without services."""


async def killed(fleet: Fleet, one: Contestant, folder: Path) -> Killed:
    """Kill all processes of the controller when half of the agents have been stopped."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    await fleet.reset()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(one.ready(folder))
        lines = await one.begin()
        while await asyncio.to_thread(fleet.stopped) < fleet.count / 2:  # noqa: ASYNC110 - files do not tell
            await asyncio.sleep(0.01)
        for pid in (lines.pid, *one.parts().values()):
            end_below(pid)
        for service in one.parts().values():
            os.kill(service, 9)
        if (await lines.said())["code"] == 0:
            raise SystemExit(f"{one.name} was over before it could be killed")
        await lines.process.wait()
        await asyncio.sleep(1)
        then, begun = await fleet.seen(), time.monotonic()
        await one.revive()
        back = time.monotonic() - begun if one.parts() else 0.0
        return Killed(then, await _window(fleet, one), back)
