"""One SSH connection per host: opened once for all who ask, kept open, shared, opened again when it broke."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from hosts.failures import host_key_refused, not_connected, ssh_line
from hosts.known_hosts import KnownHosts, config_tokens
from model.fleet import HostSpec, Sudo

if TYPE_CHECKING:
    from hosts.pool import Hosts

_log = logging.getLogger(__name__)

SESSIONS = 6
"""At once on one connection; sshd allows 10 (MaxSessions), and a person may be on it too."""
FIRST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Before asyncssh's own first choice, ChaCha20, which it does in Python: a sixth of a worker's processor time."""
KEEPALIVE_SECONDS = 15
KEEPALIVE_TRIES = 3


class _Client(asyncssh.SSHClient):
    """Remembers the host key that was shown; accepts none by itself."""

    shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self.shown = key
        return False


@dataclass(frozen=True)
class Route:
    """Where a spec leads once the ssh config has been read."""

    spec: HostSpec
    host: str
    port: int
    alias: str
    """The name its key is on record under."""
    jump: str
    jump_is_ours: bool
    """Named by the fleet file, not by the ssh config."""
    known: KnownHosts
    config: list[str]
    own_algorithms: bool
    """The ssh config says which host key algorithms to use."""
    own_ciphers: bool
    """It says which ciphers."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}" if self.port != 22 else self.host

    @property
    def line(self) -> str:
        """What a person types to get there."""
        return ssh_line(self.spec, self.spec.address, self.spec.port or 22, self.spec.jump)


def find_route(spec: HostSpec) -> Route:
    """Reads the ssh config for a host. Blocking."""
    if spec.ssh_config == "none":
        config: list[str] = []
    elif spec.ssh_config:
        config = [spec.ssh_config]
    else:
        usual = Path("~/.ssh/config").expanduser()
        config = [str(usual)] if usual.is_file() else []
    given: dict[str, Any] = {"port": spec.port} if spec.port else {}
    if spec.user:
        given["username"] = spec.user
    options = asyncssh.SSHClientConnectionOptions(host=spec.address, config=config, client_keys=None, **given)
    jump = spec.jump
    if not jump and isinstance(options.tunnel, str) and _hop(options.tunnel)[1] != spec.address:
        # (`Host *` with a ProxyJump means the jump host too, which cannot lead to itself.)
        jump = options.tunnel
    if jump.lower() == "none":
        jump = ""
    tokens = config_tokens(options.host, spec.address, options.port, options.username)
    return Route(
        spec=spec,
        host=options.host,
        port=options.port,
        alias=options.host_key_alias or options.host,
        jump=_whole_way(jump, config, spec.address),
        jump_is_ours=bool(spec.jump),
        known=KnownHosts.of(spec.known_hosts, options.config.get, tokens),
        config=config,
        own_algorithms=options.config.get("HostKeyAlgorithms") is not None,
        own_ciphers=options.config.get("Ciphers") is not None,
    )


class Link:
    """The one connection to a host. `session` hands out turns on it."""

    def __init__(self, hosts: Hosts, spec: HostSpec) -> None:
        self.spec = spec
        self._hosts = hosts
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._turns = asyncio.Semaphore(SESSIONS)
        self.handshakes = 0
        """How often it was opened; more than 1: it broke."""
        self.through_jump = False

    async def connection(self) -> asyncssh.SSHClientConnection:
        """The open connection, opened if need be. All who ask at the same time wait for the same handshake."""
        if self._connection is not None and not _is_gone(self._connection):
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        # Shielded: one who gives up does not take the connection from the others.
        return await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()
            self.handshakes += 1

    async def _connect(self) -> asyncssh.SSHClientConnection:
        spec = self.spec
        try:
            route = await asyncio.to_thread(find_route, spec)
        except (ValueError, OSError) as error:
            line = ssh_line(spec, spec.address, spec.port or 22, spec.jump)
            raise not_connected(spec, spec.address, line, _as_config_error(error), spec.connect_timeout) from None
        tunnel = await self._jump(route)
        login = await self._hosts.keys.login(spec)
        async with self._hosts.handshakes:
            return await self._handshake(route, tunnel, login)

    async def _jump(self, route: Route) -> asyncssh.SSHClientConnection | None:
        self.through_jump = bool(route.jump)
        if not route.jump:
            return None
        *before, last = route.jump.split(",")
        return await self._hosts.jump(jump_spec(route, last, ",".join(before))).connection()

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
            shown = clients[-1].shown if clients else None
            raise host_key_refused(spec, route.known, route.alias, route.host, route.port, shown, route.jump) from None
        except (OSError, TimeoutError, asyncssh.Error, ValueError) as error:
            raise not_connected(spec, route.where, route.line, error, spec.connect_timeout) from None

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A turn on the connection: at most SESSIONS at once, the others queue."""
        async with self._turns:
            yield await self.connection()

    async def close(self) -> None:
        """Closes the connection. Jobs on the host go on."""
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
    """A jump host as a host of its own: same settings, so that all who go through it share one connection."""
    user, host, port = _hop(name)
    spec = route.spec
    if route.jump_is_ours and not user and not _from_config(host, route.config).config.get("User"):
        user = spec.user
    return replace(
        spec,
        name=f"jump host {host}",
        address=host,
        port=port,
        user=user,
        key_files=spec.key_files if route.jump_is_ours else (),
        passphrase=spec.passphrase if route.jump_is_ours else None,
        jump=before or "none",
        sudo=Sudo.NONE,
        sudo_password=None,
        state_dir="",
    )


def _hop(name: str) -> tuple[str, str, int]:
    """user, host and port (0: not said) of `[user@]host[:port]`, the last one of several."""
    user, _, address = name.split(",")[-1].strip().removeprefix("ssh://").rpartition("@")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        host, port = address, "0"
    return user, host.strip("[]"), int(port)


def _whole_way(jump: str, config: list[str], target: str) -> str:
    """A jump host may have a jump host of its own in the ssh config: all hops, the first one first."""
    seen = {target}
    while jump:
        first = _hop(jump.split(",")[0])[1]
        if first in seen:
            break
        seen.add(first)
        before = _from_config(first, config).tunnel
        if not isinstance(before, str) or before.lower() == "none" or _hop(before)[1] in seen:
            break
        jump = f"{before},{jump}"
    return jump


def _from_config(host: str, config: list[str]) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(host=host, config=config, client_keys=None)


def _as_config_error(error: Exception) -> Exception:
    return error if isinstance(error, (asyncssh.Error, OSError)) else asyncssh.ConfigParseError(str(error))


def _is_gone(connection: asyncssh.SSHClientConnection) -> bool:
    return connection.is_closed()
