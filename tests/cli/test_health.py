"""What supervises a worker learns from its ready file and from systemd's socket whether it is alive."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from model.errors import UpgradeError
from service.operation import health


class Server:
    """Temporal's answer to a health check, which a test changes."""

    def __init__(self) -> None:
        self.answers = True

    async def check_health(self, timeout: timedelta) -> bool:
        if self.answers:
            return True
        raise RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(health, "EVERY", timedelta(milliseconds=20))
    return Server()


def client(server: Server) -> Any:
    return SimpleNamespace(service_client=server)


async def becomes(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


async def test_the_file_says_whether_temporal_answers_and_is_written_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    async with health.reported(client(server), file):
        assert file.read_text() == f"{os.getpid()}\npolling\n"
        before = file.stat().st_ino, file.stat().st_mtime_ns
        await becomes(lambda: (file.stat().st_ino, file.stat().st_mtime_ns) != before)
        server.answers = False
        await becomes(lambda: "no answer from Temporal" in file.read_text())
        server.answers = True
        await becomes(lambda: "polling" in file.read_text())
    assert not os.listdir(tmp_path)  # noqa: PTH208 - in an asynchronous test


async def test_a_folder_that_does_not_exist_is_an_error_at_the_start(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UpgradeError, match="No such file or directory"):
        async with health.reported(client(server), tmp_path / "no" / "ready"):
            pass


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_notified_of_the_start_every_heartbeat_and_the_end(
    abstract: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"komodo-upgrade-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}" if abstract else name)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        async with health.reported(client(server), None):
            assert listener.recv(1000) == b"READY=1\nSTATUS=polling"
            assert await asyncio.to_thread(listener.recv, 1000) == b"WATCHDOG=1\nSTATUS=polling"
        received = [b""]
        while received[-1] != b"STOPPING=1":
            received.append(listener.recv(1000))
