"""All hosts of a worker: one shared connection each."""

from __future__ import annotations

import asyncio
from types import TracebackType

from hosts.connection import Link
from hosts.host import Host
from hosts.keys import KeyRing
from model.fleet import HostSpec

HANDSHAKES = 8
"""At once. More only queue on this machine's processors, and look like an attack to a jump host."""


class Hosts:
    """Hands out hosts. Belongs to one event loop; `close` it (or use `async with`)."""

    def __init__(self) -> None:
        self.handshakes = asyncio.Semaphore(HANDSHAKES)
        self.keys = KeyRing()
        self._hosts: dict[HostSpec, Host] = {}
        self._links: dict[HostSpec, Link] = {}

    async def get(self, spec: HostSpec) -> Host:
        """The host, connected. Raises Unreachable, HostKeyUnknown, HostKeyChanged, AuthenticationFailed."""
        if spec not in self._hosts:
            self._hosts[spec] = Host(spec, self._link(spec))
        await self._link(spec).connection()
        return self._hosts[spec]

    def jump(self, spec: HostSpec) -> Link:
        """The one connection to a jump host, for all who go through it."""
        return self._link(spec)

    def _link(self, spec: HostSpec) -> Link:
        if spec not in self._links:
            self._links[spec] = Link(self, spec)
        return self._links[spec]

    async def close(self) -> None:
        """Closes every connection; those through a jump host first. Jobs on the hosts go on."""
        links = list(self._links.values())
        self._links.clear()
        self._hosts.clear()
        for through_jump in (True, False):
            await asyncio.gather(*(link.close() for link in links if link.through_jump is through_jump))

    async def __aenter__(self) -> Hosts:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
