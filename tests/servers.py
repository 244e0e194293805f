"""Start Temporal servers for tests on busy machines, where the SDK's limit of 5 s is too short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from temporalio.testing import WorkflowEnvironment

_ATTEMPTS = 6


async def started(start: Callable[[], Awaitable[WorkflowEnvironment]]) -> WorkflowEnvironment:
    """The environment of `start`, which is repeated if the server did not start in time. Raises the last error."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await start()
        except RuntimeError as error:
            if "did not start within" not in str(error):
                raise
    return await start()
