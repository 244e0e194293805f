"""What all parts of one sandbox share: hosts, faults, speed, and who listens where."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.faults import Faults
from sandbox.releases import Releases

if TYPE_CHECKING:
    from sandbox.agent import Agent
    from sandbox.host import SandboxHost
    from sandbox.mongo_store import Store
    from sandbox.standin import Handler


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
    handlers: dict[str, Handler] = field(default_factory=dict)
    """Command name -> what runs it."""
    hosts: dict[str, SandboxHost] = field(default_factory=dict)
    agents: dict[tuple[str, int], Agent] = field(default_factory=dict)
    """Running agents by (address, port)."""
    journal: list[Recorded] = field(default_factory=list)
    commands_file: Path | None = None
    """The same as lines of JSON, for whoever watches from another process."""
    watchers: list[Callable[[str, tuple[str, ...]], None]] = field(default_factory=list)
    """Told host and command line of each stand-in, before it does anything."""
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
        """Keep what a stand-in did."""
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
