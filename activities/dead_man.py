"""A host's dead-man timer: armed by the switch itself, looked at and disarmed from here.

It lies in the run's folder (`komodo/sh/dead_man.sh`) and needs nobody: not this tool, not a network, not Temporal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.signs import attach
from hosts.host import Completed, Host
from hosts.pool import Hosts
from hosts.script import Script, parse
from model.errors import HostError, PutItselfBack
from model.steps import Armed, DeadMan, ServerStep

_PATIENCE = timedelta(minutes=17)
"""Disarming waits up to 15 min for one that is putting the agent back right now."""


class DeadManTimer:
    """One server's timer."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def look_at_dead_man(self, step: ServerStep) -> DeadMan:
        """What is armed, or what became of it. Raises HostError."""
        host = await self._hosts.get(step.server.host)
        return await look(host, _folder(host, step))

    @activity.defn
    async def disarm_dead_man(self, step: ServerStep) -> DeadMan:
        """After Core has confirmed the server. Raises PutItselfBack when the timer was faster, HostError."""
        host = await self._hosts.get(step.server.host)
        folder = _folder(host, step)
        done = await attach(
            host,
            step.op.id("disarm"),
            folder,
            _script(),
            folder,
            "disarm",
            change=step.op.change,
            timeout=_PATIENCE,
        )
        found = _found(done)
        refuse_put_back(found, step.server.name, step.target)
        return found


async def look(host: Host, folder: str) -> DeadMan:
    """The timer of a run folder. Raises HostError."""
    return _found(await host.run(_script(), folder, "state"))


async def refuse_if_put_back(host: Host, step: ServerStep) -> None:
    """Raises PutItselfBack."""
    refuse_put_back(await look(host, _folder(host, step)), step.server.name, step.target)


def refuse_put_back(found: DeadMan, server: str, target: str) -> None:
    """Raises PutItselfBack where a timer has put the agent back, or tried to."""
    if found.state is Armed.FIRED:
        raise PutItselfBack(
            f"the host put itself back at {_when(found)}: Core had not logged in to {target} before its dead-man timer "
            "was over",
            host=server,
            left="the old version runs with its old config",
            cure="find out why Core did not see it, then retry",
        )
    if found.state is Armed.FAILED:
        raise PutItselfBack(
            f"the host tried to put itself back at {_when(found)}, and its restore.sh did not end well",
            host=server,
            left="see dead-man/log in the run's folder on that host",
            cure="run its restore.sh by hand",
        )


def _when(found: DeadMan) -> str:
    return f"{found.at:%Y-%m-%d %H:%M:%S} UTC" if found.at else "an unknown time"


def _folder(host: Host, step: ServerStep) -> str:
    return step.backup.folder if step.backup else step.op.folder(host.spec.state_dir)


def _script() -> Script:
    return Script.load("komodo.sh", "dead_man_call.sh")


def _found(done: Completed) -> DeadMan:
    for key, values in parse(done.text).items():
        try:
            state = Armed(key)
        except ValueError:
            continue
        at = values[0] if values else ""
        return DeadMan(state=state, at=datetime.fromtimestamp(int(at), UTC) if at.isdigit() else None)
    raise HostError("dead-man.sh said nothing", cure="look at dead-man/ in the run's folder on that host")
