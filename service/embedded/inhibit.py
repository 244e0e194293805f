"""Prevent the machine from sleeping while an upgrade runs, where systemd can do that. Best effort."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable

from service.embedded.child import Child

log = logging.getLogger("komodo_upgrade.supervisor")

POLL_SECONDS = 20.0


class Inhibitor:
    """Holds a systemd inhibitor while `busy` returns True."""

    def __init__(self, busy: Callable[[], Awaitable[bool]]) -> None:
        self._busy = busy
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, worker: Child) -> None:
        """Until cancelled."""
        tool = shutil.which("systemd-inhibit")
        if tool is None:
            return
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if not worker.ready:
                    continue
                try:
                    busy = await self._busy()
                except Exception as error:  # noqa: BLE001 - the server may be between two lives
                    log.debug("cannot ask for running upgrades: %s", error)
                    continue
                if not await self._hold(tool, wanted=busy):
                    return
        finally:
            await self._release()

    async def _hold(self, tool: str, *, wanted: bool) -> bool:
        if not wanted:
            await self._release()
            return True
        if self._process is not None and self._process.returncode is not None:
            log.info("sleep cannot be inhibited here")
            return False
        if self._process is None:
            why = "Komodo is being upgraded"
            self._process = await asyncio.create_subprocess_exec(
                *(tool, "--what=sleep:idle", "--who=komodo-upgrade", f"--why={why}", "cat"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        return True

    async def _release(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            await asyncio.wait_for(process.wait(), 2)
