"""Attack: another local user connects to the worker's forwards, to Core's API or to its database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.hosts.conftest import Machine, ground, hosts, machine  # noqa: F401 - fixtures


def listening_ports() -> set[str]:
    """Local addresses of TCP sockets in state LISTEN (0A)."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {f"{fields[1]} {fields[9]}" for fields in lines if fields[3] == "0A"} & own_sockets(lines)


def own_sockets(lines: list[list[str]]) -> set[str]:
    """Of these, the ones that this process holds."""
    held = {str(f.readlink()) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()}
    return {f"{fields[1]} {fields[9]}" for fields in lines if f"socket:[{fields[9]}]" in held}


async def test_only_the_workers_user_reaches_a_forward(machine: Machine) -> None:  # noqa: F811
    before = listening_ports()
    async with machine.host.forward("127.0.0.1", 1) as socket:
        assert not listening_ports() - before
        folder = socket.parent.stat()
        assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, os.getuid())
