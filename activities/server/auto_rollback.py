"""A host's automatic rollback timer: the switch arms it, this module reads and disarms it.

Its script is in the run folder (`komodo/sh/server/auto_rollback.sh`) and needs neither this tool nor a network nor
Temporal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.heartbeat import attach
from hosts.exec.script import Script, parse
from hosts.host import Completed, Host
from hosts.ssh.pool import Hosts
from model.errors import AutoRolledBack, HostError
from model.steps import Armed, AutoRollback, SavedServerStep

_PATIENCE = timedelta(minutes=17)
"""Disarming waits up to 15 minutes for a timer that is restoring the agent at this time."""


class AutoRollbackTimer:
    """The automatic rollback timer of one server."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def check_auto_rollback(self, step: SavedServerStep) -> AutoRollback:
        """The timer's state. Raises HostError."""
        host = await self._hosts.get(step.server.host)
        return await read_timer(host, step.backup.folder)

    @activity.defn
    async def disarm_auto_rollback(self, step: SavedServerStep) -> AutoRollback:
        """Disarm the timer after Core has confirmed the server. Raises AutoRolledBack when the timer was faster,
        HostError.
        """
        host = await self._hosts.get(step.server.host)
        folder = step.backup.folder
        done = await attach(
            host,
            step.op.id("disarm"),
            folder,
            _script(folder, "disarm"),
            change=step.op.change,
            timeout=_PATIENCE,
        )
        found = _found(done)
        refuse_rolled_back(found, step.server.name, step.target)
        return found


async def read_timer(host: Host, folder: str) -> AutoRollback:
    """The timer of a run folder. Raises HostError."""
    return _found(await host.run(_script(folder, "state")))


async def refuse_if_rolled_back(host: Host, step: SavedServerStep) -> None:
    """Raises AutoRolledBack."""
    refuse_rolled_back(await read_timer(host, step.backup.folder), step.server.name, step.target)


def refuse_rolled_back(found: AutoRollback, server: str, target: str) -> None:
    """Raises AutoRolledBack where a timer has restored the agent, or has tried to."""
    if found.state is Armed.FIRED:
        raise AutoRolledBack(
            f"the host rolled back automatically at {_when(found)}: Core had not logged in to {target} before "
            "its timer was over",
            host=server,
            residue="the old version runs with its old config",
            hint="find out why Core did not see it, then retry",
        )
    if found.state is Armed.FAILED:
        raise AutoRolledBack(
            f"the host tried to roll back automatically at {_when(found)}, and its restore.sh failed",
            host=server,
            residue="see dead-man/log in the run's folder on that host",
            hint="run its restore.sh by hand",
        )


def _when(found: AutoRollback) -> str:
    return f"{found.at:%Y-%m-%d %H:%M:%S} UTC" if found.at else "an unknown time"


def time_of(printed: Sequence[str]) -> datetime | None:
    """When an armed timer fires, from the line `auto_rollback_at` of a switch; None: none is armed."""
    return datetime.fromtimestamp(int(printed[0]), UTC) if printed else None


def _script(folder: str, verb: str) -> Script:
    return Script.load("komodo.sh", "server/call_auto_rollback.sh", folder=folder, verb=verb)


def _found(done: Completed) -> AutoRollback:
    for key, values in parse(done.text).items():
        try:
            state = Armed(key)
        except ValueError:
            continue
        at = values[0] if values else ""
        return AutoRollback(state=state, at=datetime.fromtimestamp(int(at), UTC) if at.isdigit() else None)
    raise HostError("dead-man.sh printed nothing", hint="see dead-man/ in the run's folder on that host")
