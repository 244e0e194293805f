"""Signs that this worker is alive, for whatever supervises it: a file for probes, and systemd's notifications."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from model.errors import UpgradeError

log = logging.getLogger("komodo_upgrade.worker")

EVERY = timedelta(seconds=10)
"""Between two signs. A probe allows for several: `find FILE -mmin -1`."""
_ANSWER = timedelta(seconds=5)
POLLING = "polling"
UNANSWERED = "no answer from Temporal"


@contextlib.asynccontextmanager
async def reported(client: Client, ready_file: Path | None) -> AsyncIterator[None]:
    """From the first poll to the end of the block. The file is removed at the end.

    Its first line is the process id, its second line `polling` or `no answer from Temporal`. It is written again every
    10 s, as long as the worker's event loop runs: an old file means a worker that hangs. Raises UpgradeError if the
    file cannot be written.
    """
    try:
        _write(ready_file, POLLING)
    except OSError as error:
        raise UpgradeError(
            f"{ready_file}: {error.strerror}",
            hint="--ready-file names a file in a folder that exists, and that the worker's user may write",
        ) from None
    notify("READY=1", f"STATUS={POLLING}")
    task = asyncio.create_task(_repeat(client, ready_file))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        notify("STOPPING=1")
        if ready_file:
            await asyncio.to_thread(ready_file.unlink, missing_ok=True)


def notify(*lines: str) -> None:
    """Tell systemd (`Type=notify`, `WatchdogSec=`); nothing happens where systemd does not ask for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto("\n".join(lines).encode(), address)


async def _repeat(client: Client, ready_file: Path | None) -> None:
    before = POLLING
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        state = POLLING if await _answers(client) else UNANSWERED
        if state != before:
            log.log(logging.INFO if state == POLLING else logging.WARNING, "Temporal: %s", state)
        before = state
        notify("WATCHDOG=1", f"STATUS={state}")
        try:
            _write(ready_file, state)
        except OSError as error:
            log.warning("%s: %s", ready_file, error.strerror)


async def _answers(client: Client) -> bool:
    try:
        return await client.service_client.check_health(timeout=_ANSWER)
    except RPCError:
        return False


def _write(ready_file: Path | None, state: str) -> None:
    if ready_file is not None:
        new = ready_file.with_name(f".{ready_file.name}.new")
        new.write_text(f"{os.getpid()}\n{state}\n")
        new.replace(ready_file)
