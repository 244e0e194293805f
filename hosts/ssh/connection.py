"""One SSH connection per host: shared by all callers, kept open, and reopened after it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh

from hosts.errors import host_key_refused, not_connected, ssh_line
from hosts.policy import policy
from hosts.ssh.keys import KeyRing
from hosts.ssh.known_hosts import KnownHosts, config_tokens
from model.fleet.spec import HostSpec, Sudo
from model.worker_policy import hop

SESSIONS = 6
"""Sessions at once on one connection. sshd allows 10 (MaxSessions); the rest is left for an operator."""
FIRST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Preferred over asyncssh's first choice, ChaCha20, whose implementation takes a sixth of a worker's CPU time."""
KEEPALIVE_SECONDS = 15
KEEPALIVE_TRIES = 3


class _Client(asyncssh.SSHClient):
    """Records the host key that the server presented, and accepts none on its own."""

    presented: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self.presented = key
        return False


@dataclass(frozen=True)
class Route:
    """A host's address and options after the ssh config has been read."""

    spec: HostSpec
    host: str
    port: int
    alias: str
    """The name of its key in known_hosts."""
    jump: str
    jump_in_fleet_file: bool
    """False: the ssh config names the jump host."""
    known: KnownHosts
    config: list[str]
    own_algorithms: bool
    """The ssh config sets HostKeyAlgorithms."""
    own_ciphers: bool
    """The ssh config sets Ciphers."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}" if self.port != 22 else self.host

    @property
    def line(self) -> str:
        """The `ssh` command that an operator would type."""
        return ssh_line(self.spec, self.spec.address, self.spec.port or 22, self.spec.jump)


def find_route(spec: HostSpec) -> Route:
    """Read the ssh config for a host. Blocking."""
    if spec.ssh_config == "none":
        config: list[str] = []
    elif spec.ssh_config:
        config = [str(policy().path(spec.ssh_config))]
    else:
        usual = Path("~/.ssh/config").expanduser()
        config = [str(usual)] if usual.is_file() else []
    given: dict[str, Any] = {"port": spec.port} if spec.port else {}
    if spec.user:
        given["username"] = spec.user
    options = asyncssh.SSHClientConnectionOptions(host=spec.address, config=config, client_keys=None, **given)
    jump = spec.jump
    if not jump and isinstance(options.tunnel, str) and hop(options.tunnel.split(",")[-1])[1] != spec.address:
        # A ProxyJump under `Host *` also matches the jump host, which cannot be its own jump host.
        jump = options.tunnel
    if jump.lower() == "none":
        jump = ""
    if spec.known_hosts:
        known = KnownHosts.read(policy().path(spec.known_hosts))
    else:
        tokens = config_tokens(options.host, spec.address, options.port, options.username)
        known = KnownHosts.of(options.config.get, tokens)
    return Route(
        spec=spec,
        host=options.host,
        port=options.port,
        alias=options.host_key_alias or options.host,
        jump=_all_hops(jump, config, spec.address),
        jump_in_fleet_file=bool(spec.jump),
        known=known,
        config=config,
        own_algorithms=options.config.get("HostKeyAlgorithms") is not None,
        own_ciphers=options.config.get("Ciphers") is not None,
    )


class Link:
    """The one connection to a host. `session` limits how many use it at once.

    `handshakes` limits how many connections are opened at once; `connect_jump` opens the connection to a jump host.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        keys: KeyRing,
        handshakes: asyncio.Semaphore,
        connect_jump: Callable[[HostSpec], Awaitable[asyncssh.SSHClientConnection]],
    ) -> None:
        self.spec = spec
        self._keys = keys
        self._handshake_slots = handshakes
        self._connect_jump = connect_jump
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._session_slots = asyncio.Semaphore(SESSIONS)
        self.through_jump = False

    async def connection(self) -> asyncssh.SSHClientConnection:
        """The open connection, opened if necessary. Concurrent callers share one handshake."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        # Shielded: a caller that is cancelled does not cancel the handshake of the others.
        return await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()

    async def _connect(self) -> asyncssh.SSHClientConnection:
        spec = self.spec
        try:
            route = await asyncio.to_thread(find_route, spec)
        except (ValueError, OSError) as error:
            line = ssh_line(spec, spec.address, spec.port or 22, spec.jump)
            raise not_connected(spec, spec.address, line, _as_config_error(error), spec.connect_timeout) from None
        tunnel = await self._jump(route)
        login = await self._keys.login(spec)
        async with self._handshake_slots:
            return await self._handshake(route, tunnel, login)

    async def _jump(self, route: Route) -> asyncssh.SSHClientConnection | None:
        self.through_jump = bool(route.jump)
        if not route.jump:
            return None
        *before, last = route.jump.split(",")
        return await self._connect_jump(jump_spec(route, last, ",".join(before)))

    async def _handshake(
        self, route: Route, tunnel: asyncssh.SSHClientConnection | None, login: dict[str, Any]
    ) -> asyncssh.SSHClientConnection:
        spec = self.spec
        clients: list[_Client] = []

        def client() -> _Client:
            clients.append(_Client())
            return clients[-1]

        options: dict[str, Any] = {**login, "config": route.config, "port": route.port}
        if spec.user:
            options["username"] = spec.user
        if not route.own_algorithms:
            options["server_host_key_algs"] = route.known.algorithms(route.alias, route.port)
        if not route.own_ciphers:
            options["encryption_algs"] = FIRST_CIPHERS
        try:
            async with asyncio.timeout(spec.connect_timeout.total_seconds()):
                return await asyncssh.connect(
                    spec.address,
                    tunnel=tunnel,
                    known_hosts=lambda host, _addr, port: [*route.known.lookup(host, port or 22), [], [], [], []],
                    client_factory=client,
                    agent_forwarding=False,
                    x11_forwarding=False,
                    password_auth=False,
                    kbdint_auth=False,
                    keepalive_interval=KEEPALIVE_SECONDS,
                    keepalive_count_max=KEEPALIVE_TRIES,
                    connect_timeout=None,
                    login_timeout=0,
                    **options,
                )
        except asyncssh.HostKeyNotVerifiable:
            key = clients[-1].presented if clients else None
            raise host_key_refused(spec, route.known, route.alias, route.host, route.port, key, route.jump) from None
        except (OSError, TimeoutError, asyncssh.Error, ValueError) as error:
            raise not_connected(spec, route.where, route.line, error, spec.connect_timeout) from None

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """The connection, for one session: at most SESSIONS at once, further callers wait."""
        async with self._session_slots:
            yield await self.connection()

    async def close(self) -> None:
        """Close the connection. Jobs on the host continue."""
        connecting, connection = self._connecting, self._connection
        self._connection = None
        if connecting is not None:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            if not connecting.cancelled() and connecting.exception() is None:
                connection = connecting.result()
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), 2)
            connection.abort()


def jump_spec(route: Route, name: str, before: str) -> HostSpec:
    """A jump host as a host. Hosts behind the same jump host get an equal spec and so share its connection."""
    user, host, port = hop(name)
    spec = route.spec
    if route.jump_in_fleet_file and not user and not _from_config(host, route.config).config.get("User"):
        user = spec.user
    return replace(
        spec,
        name=f"jump host {host}",
        address=host,
        port=port,
        user=user,
        key_files=spec.key_files if route.jump_in_fleet_file else (),
        passphrase=spec.passphrase if route.jump_in_fleet_file else None,
        jump=before or "none",
        sudo=Sudo.NONE,
        sudo_password=None,
        state_dir="",
    )


def _all_hops(jump: str, config: list[str], target: str) -> str:
    """All hops in order: the ssh config may name a jump host for a jump host."""
    seen = {target}
    while jump:
        first = hop(jump.split(",")[0])[1]
        if first in seen:
            break
        seen.add(first)
        before = _from_config(first, config).tunnel
        if not isinstance(before, str) or before.lower() == "none" or hop(before.split(",")[-1])[1] in seen:
            break
        jump = f"{before},{jump}"
    return jump


def _from_config(host: str, config: list[str]) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(host=host, config=config, client_keys=None)


def _as_config_error(error: Exception) -> Exception:
    return error if isinstance(error, (asyncssh.Error, OSError)) else asyncssh.ConfigParseError(str(error))
