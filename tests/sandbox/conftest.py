from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncssh
import pytest

from sandbox.fleet import Sandbox

Run = Callable[..., Awaitable[asyncssh.SSHCompletedProcess]]


async def until(condition: Callable[[], object], *, seconds: float = 10, what: str = "") -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {what or condition}"
        await asyncio.sleep(0.02)


async def connect(sandbox: Sandbox, name: str) -> asyncssh.SSHClientConnection:
    """A plain client: nothing of this project's own."""
    host = sandbox.hosts[name]
    return await asyncssh.connect(
        host.address,
        host.port,
        username=host.user,
        client_keys=[str(sandbox.folder / "id_ed25519")],
        known_hosts=str(sandbox.folder / "known_hosts"),
        config=None,
    )


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """The default fleet, twenty times faster than life. The sandbox itself must not have failed in the test."""
    async with await Sandbox.start(tmp_path, speed=20) as sandbox:
        yield sandbox
        assert sandbox.world.defects == []


@pytest.fixture
async def run(fleet: Sandbox) -> AsyncIterator[Run]:
    """Run a command line on a host over SSH."""
    open_connections: dict[str, asyncssh.SSHClientConnection] = {}

    async def do(name: str, command: str, stdin: str | None = None) -> asyncssh.SSHCompletedProcess:
        if name not in open_connections:
            open_connections[name] = await connect(fleet, name)
        return await asyncio.wait_for(open_connections[name].run(command, input=stdin), 20)

    yield do
    for connection in open_connections.values():
        connection.abort()
