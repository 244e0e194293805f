"""Live updates: parts of a page as server-sent events, each sent when it differs from what the browser has."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from model.errors import UpgradeError
from web.parts import Parts

T = TypeVar("T")
EVERY = 1.0
"""Seconds between two queries, independent of the number of browsers."""
MOST_STREAMS = 100
_KEEP_ALIVE = 15.0


class Feed(Generic[T]):
    """The data of one page, read once for all its streams."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._last: T | None = None
        self._read_at = 0.0
        self._answers = 0
        self._lock = asyncio.Lock()

    async def data(self) -> T:
        """At most EVERY seconds old, and no older than the last answer. Raises UpgradeError."""
        async with self._lock:
            while self._last is None or time.monotonic() - self._read_at >= EVERY:
                answers = self._answers
                self._last, self._read_at = await self._read(), time.monotonic()
                if answers != self._answers:
                    self._last = None
            return self._last

    def answered(self) -> None:
        """Somebody sent an answer: what was read before shows a gate that is closed."""
        self._answers += 1
        self._last = None


async def stream(feed: Feed[T], render: Callable[[T], Parts], ended: Callable[[], bool]) -> AsyncIterator[str]:
    """Events: the ids of all parts, and `{id: [key, html]}` of those that changed.

    Ends with the server; browsers try again.
    """
    sent: dict[str, str] = {}
    quiet_since = time.monotonic()
    yield "retry: 2000\n\n"
    while not ended():
        try:
            parts = render(await feed.data())
        except UpgradeError as error:
            yield f"event: problem\ndata: {json.dumps(error.what)}\n\n"
            await asyncio.sleep(EVERY * 5)
            continue
        changed = {name: [part.key, part.html] for name, part in parts.items() if sent.get(name) != part.key}
        if changed:
            yield f"data: {json.dumps({'ids': [*parts], 'parts': changed})}\n\n"
            sent, quiet_since = {name: part.key for name, part in parts.items()}, time.monotonic()
        elif time.monotonic() - quiet_since > _KEEP_ALIVE:
            yield ": still here\n\n"
            quiet_since = time.monotonic()
        await asyncio.sleep(EVERY)
