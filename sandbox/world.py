"""What all parts of one sandbox share: faults, speed, addresses, and which agent listens where."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.faults import Faults
from sandbox.mongo.store import Store
from sandbox.releases import Releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One command that a stand-in ran: never its standard input."""

    host: str
    argv: tuple[str, ...]
    """With the command's name first."""
    at: datetime
    code: int
    mutating: bool
    took: float = 0.0
    """Seconds inside the sandbox."""


@dataclass(slots=True)
class World:
    """One simulated fleet."""

    id: str
    """Marks the processes of this sandbox."""
    net: str
    """First three numbers of its loopback addresses: "127.83.19"."""
    speed: float = 1.0
    """How many times faster than the real thing Core's ticks, retries and starts are."""
    releases: Releases = field(default_factory=Releases)
    faults: Faults = field(default_factory=Faults)
    addresses: dict[str, str] = field(default_factory=dict)
    """Name of a host -> its loopback address."""
    listening: dict[tuple[str, int], object] = field(default_factory=dict)
    """(address, port) -> the agent that listens there."""
    dialling: list[object] = field(default_factory=list)
    """Agents that connect to Core by themselves."""
    journal: list[Recorded] = field(default_factory=list)
    commands_file: Path | None = None
    """The journal as lines of JSON, to be read by another process."""
    watchers: list[Callable[[str, tuple[str, ...]], None]] = field(default_factory=list)
    """Called with the host and command line of each stand-in before it runs."""
    defects: list[str] = field(default_factory=list)
    """Errors of the sandbox itself; a test should find none."""
    stores: dict[str, Store] = field(default_factory=dict)
    """Data volume -> what its mongod keeps there."""
    api_secret: str = ""
    """What the API key's hash in the database stands for."""
    minted: list[str] = field(default_factory=list)
    """Private keys that were made on request of the hosts: secrets, for leak tests."""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def record(self, entry: Recorded) -> None:
        """Add what a stand-in did to the journal."""
        self.journal.append(entry)
        if self.commands_file is not None:
            with self.commands_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(entry), "at": entry.at.isoformat()}) + "\n")

    def scaled(self, seconds: float) -> float:
        """Real seconds for something that takes `seconds` on a real fleet."""
        return seconds / self.speed

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the background until the sandbox stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.defects.append(f"{task.get_coro()!r}: {task.exception()!r}")

    async def cancel_all(self) -> None:
        """End what `spawn` started."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """As Rust's tracing writes it: 2026-11-23T18:13:36.366926Z."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def address_of(net: str, number: int) -> str:
    """Loopback address of the n-th machine: .1 to .99, then the next networks."""
    if number < 100:
        return f"{net}.{number}"
    first, second, third = net.split(".")
    number -= 100
    return f"{first}.{second}.{(int(third) + 1 + number // 250) % 256}.{number % 250 + 1}"


async def free_net() -> str:
    """A random 127.x.y in which the ports that we need are free."""
    for _ in range(50):
        net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        try:
            for number, port in ((1, 9120), (100, 27017), (101, 27017), (102, 9120)):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((f"{net}.{number}", port))
        except OSError:
            continue
        return net
    raise RuntimeError("no free loopback network: the sandbox needs Linux, where all of 127.0.0.0/8 is local")
