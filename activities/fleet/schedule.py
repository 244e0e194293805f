"""When work may begin: the maintenance windows of a fleet, resolved with the time zones of the worker."""

from __future__ import annotations

from temporalio import activity

from hosts.ssh.pool import Hosts
from model.errors import FleetFileError
from model.fleet.windows import FindWindows, Windows, resolve


class Schedule:
    """Reads no host and no clock."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def find_windows(self, ask: FindWindows) -> Windows:
        """The next windows after a moment. Raises FleetFileError: the worker does not know the zone, or none opens."""
        try:
            windows = resolve(ask.texts, ask.after)
        except ValueError as error:
            raise FleetFileError(f"[rollout] window: {error}", hint="on the worker: pip install tzdata") from None
        if not windows:
            raise FleetFileError("[rollout] window: it never opens", hint="write a longer window")
        return Windows(windows=windows)
