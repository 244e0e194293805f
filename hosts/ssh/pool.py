"""All hosts of a worker, each with one shared connection."""

from __future__ import annotations

import asyncio
from types import TracebackType

import asyncssh

from hosts.host import Host
from hosts.policy import check_host
from hosts.ssh.connection import Link
from hosts.ssh.keys import KeyRing
from model.fleet.spec import HostSpec

HANDSHAKES = 8
"""Handshakes at once. More would compete for this machine's CPUs, and look like an attack to a jump host."""


class Hosts:
    """The hosts by their spec. Belongs to one event loop; call `close` or use `async with`."""

    def __init__(self) -> None:
        self._handshakes = asyncio.Semaphore(HANDSHAKES)
        self._keys = KeyRing()
        self._hosts: dict[HostSpec, Host] = {}
        self._links: dict[HostSpec, Link] = {}

    async def get(self, spec: HostSpec) -> Host:
        """The host, connected.

        Raises Unreachable, HostKeyUnknown, HostKeyChanged, AuthenticationFailed, PolicyRefused.
        """
        check_host(spec)
        if spec not in self._hosts:
            self._hosts[spec] = Host(spec, self._link(spec))
        await self._link(spec).connection()
        return self._hosts[spec]

    def _link(self, spec: HostSpec) -> Link:
        if spec not in self._links:
            self._links[spec] = Link(
                spec, keys=self._keys, handshakes=self._handshakes, connect_jump=self._connect_jump
            )
        return self._links[spec]

    async def _connect_jump(self, spec: HostSpec) -> asyncssh.SSHClientConnection:
        return await self._link(spec).connection()

    async def close(self) -> None:
        """Close every connection, those through a jump host first. Jobs on the hosts continue."""
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
