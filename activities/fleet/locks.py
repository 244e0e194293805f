"""The lock of a host: a host belongs to one fleet's upgrade at a time."""

from __future__ import annotations

from hosts.host import Host


async def lock_on(host: Host) -> tuple[str, str]:
    """`<fleet> <change>` of the lock that excludes others, and what it is used for; empty: not locked."""
    held = await host.held()
    if held is None or (held.expired and not held.job):
        return "", ""
    doing = "one of its jobs runs right now" if held.job else "none of its jobs runs right now"
    used = f"last used {held.used:%Y-%m-%d %H:%M:%S} UTC"
    return f"{held.fleet} {held.change}", f"since {held.since or 'an unknown time'}, {used}, {doing}"
