"""Temporal's servers for tests, started with patience: the SDK waits 5 s for one, a busy machine needs more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from temporalio.testing import WorkflowEnvironment

_ATTEMPTS = 6


async def started(start: Callable[[], Awaitable[WorkflowEnvironment]]) -> WorkflowEnvironment:
    """What `start` starts, tried anew when it was not up in time. Raises its last error."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await start()
        except RuntimeError as error:
            if "did not start within" not in str(error):
                raise
    return await start()
