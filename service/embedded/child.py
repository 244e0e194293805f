"""One supervised process: restarted with backoff when it ends, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import IO

from service.embedded import processes

log = logging.getLogger("komodo_upgrade.supervisor")

FIRST_DELAY = 0.3
LONGEST_DELAY = 30.0
HEALTHY_SECONDS = 60.0
"""Seconds after which a process counts as healthy and the delay starts small again."""


class Child:
    """`prepare` returns command and environment for each start; `started` is awaited after it."""

    def __init__(
        self,
        name: str,
        *,
        prepare: Callable[[], tuple[Sequence[str], Mapping[str, str]]],
        open_log: Callable[[], IO[bytes]],
        patience: timedelta,
        changed: Callable[[], None],
        started: Callable[[], Awaitable[None]] | None = None,
        keep: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.pid = 0
        self.identity = ""
        self.ready = False
        self.restarts = 0
        self.failures = 0
        """Starts in a row that ended before the process was ready."""
        self._prepare = prepare
        self._open_log = open_log
        self._patience = patience
        self._changed = changed
        self._started = started
        self._keep = keep
        self._process: asyncio.subprocess.Process | None = None
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._was_ready = False
        self._spawning = asyncio.Lock()

    def start(self) -> None:
        """Begin; returns at once."""
        if self._loop is None:
            self._stopping = False
            self.failures = 0
            self._loop = asyncio.create_task(self._run(), name=f"child {self.name}")

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after `patience`; the process is gone when this returns."""
        self._stopping = True
        async with self._spawning:  # wait for a process that is being started, then end it
            process = self._process
        loop, self._loop = self._loop, None
        if process is not None and process.returncode is None:
            await self._end(process)
        if loop is not None:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop
        # Published before the next start: whoever waits for the next process must not see this one's readiness.
        self.ready, self.pid, self.identity = False, 0, ""
        self._changed()

    async def restart(self) -> None:
        """Stop and start."""
        await self.stop()
        self.start()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._patience.total_seconds())
        except TimeoutError:
            log.warning("%s did not end within %s: killed", self.name, self._patience)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _run(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping:
            began = time.monotonic()
            code = await self._once()
            if self._stopping:
                return
            self.restarts += 1
            self.failures = 0 if self._was_ready else self.failures + 1
            lived = time.monotonic() - began
            delay = FIRST_DELAY if lived > HEALTHY_SECONDS else min(delay * 2, LONGEST_DELAY)
            log.warning("%s ended with %s after %.0f s: starting again in %.1f s", self.name, code, lived, delay)
            self._changed()
            await asyncio.sleep(delay)

    async def _once(self) -> int:
        """Run the process once, from its start to its end."""
        self.ready = self._was_ready = False
        command, environment = self._prepare()
        async with self._spawning:
            if self._stopping:
                return 0
            with self._open_log() as output:
                self._process = process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(environment),
                    pass_fds=self._keep,
                )
        self.pid, self.identity = process.pid, processes.identity(process.pid)
        log.info("%s started, pid %d", self.name, process.pid)
        self._changed()
        watch = asyncio.create_task(self._announce()) if self._started else None
        try:
            return await process.wait()
        finally:
            self.ready = False
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch
            if process.returncode is None and not self._stopping:
                await self._end(process)
            if process.returncode is not None:
                self.pid, self.identity = 0, ""

    async def _announce(self) -> None:
        if self._started is None:
            return
        try:
            await self._started()
        except Exception:
            log.exception("%s: after its start", self.name)
            return
        self.ready = self._was_ready = True
        self.failures = 0
        self._changed()
