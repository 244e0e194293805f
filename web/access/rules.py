"""How a dashboard is reached and by whom, worked out from the options of the command."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from model.errors import UpgradeError
from web.access.passwords import PasswordFile

DEFAULT_LISTEN = "127.0.0.1:8240"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HELP = "komodo-upgrade dashboard --help"


class DashboardRefused(UpgradeError):
    """These options would let people in who should stay outside."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As typed."""

    listen: str = DEFAULT_LISTEN
    url: str = ""
    password_file: str = ""
    trust_header: str = ""
    trust_from: tuple[str, ...] = ()
    read_only: bool = False
    encrypted: bool = False
    """The dashboard itself speaks TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the guard checks (web/access/guard.py)."""

    host: str
    port: int
    authorities: tuple[str, ...]
    """Values of the header Host, in lower case: a name that an attacker points at this address is refused."""
    origins: tuple[str, ...]
    """Pages that may send answers: those of the dashboard itself."""
    prefix: str = ""
    """Of every path. With a token it is random and the cookie's path: cookies ignore ports, so that a server of
    another user of this machine would receive the cookie, were its path known."""
    passwords: PasswordFile | None = None
    trust_header: str = ""
    """In lower case; the proxy's header with the user's name."""
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    read_only: bool = False

    @property
    def by_token(self) -> bool:
        """The printed link opens it."""
        return not self.passwords and not self.trust_header

    @property
    def secure(self) -> bool:
        """The browser speaks https, so the cookie is for https only."""
        return all(origin.startswith("https://") for origin in self.origins)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return self.origins[0] + self.prefix

    def trusts(self, address: str) -> bool:
        """Whether this peer may name the user."""
        try:
            peer = ip_address(address)
        except ValueError:
            return False
        return any(peer in network for network in self.trusted)


def rules(options: Options) -> Rules:
    """Raises DashboardRefused."""
    host, port = _listen(options.listen)
    loopback = _is_loopback(host)
    passwords = PasswordFile(Path(options.password_file).expanduser()) if options.password_file else None
    header = options.trust_header.strip().lower()
    if passwords and header:
        raise DashboardRefused("a password file and a trusted header are two ways in: choose one", hint=_HELP)
    if bool(header) != bool(options.trust_from):
        raise DashboardRefused(
            "--trust-header needs --trust-from ADDRESS: only the proxy may name the user, and it needs a header",
            hint=_HELP,
        )
    if not (loopback or passwords or header):
        raise DashboardRefused(
            f"{host} can be reached from other machines, so the printed link is not enough",
            hint="add --password-file FILE, or --trust-header NAME with --trust-from ADDRESS; "
            "or forward the port: ssh -L 8240:127.0.0.1:8240 THIS-MACHINE",
        )
    if passwords:
        passwords.users()  # an error in the file is shown at the start
    if not (loopback or options.url):
        raise DashboardRefused(
            "without --url, it is unknown under which name browsers find this dashboard",
            hint="add --url https://upgrade.example.net, as typed in the browser",
        )
    authorities, origins = _names(options, port)
    return Rules(
        host=host,
        port=port,
        authorities=authorities,
        origins=origins,
        prefix=f"/{secrets.token_hex(8)}" if not (passwords or header) else "",
        passwords=passwords,
        trust_header=header,
        trusted=tuple(_networks(options.trust_from)),
        read_only=options.read_only,
    )


def warnings(found: Rules) -> list[str]:
    """What the one who starts it should know."""
    lines = []
    if not _is_loopback(found.host) and not found.secure:
        what = "passwords and cookies" if found.passwords else "answers"
        lines.append(f"{what} travel in the clear to {found.url}: use https (--tls-cert, or a proxy)")
    if any(network.is_loopback for network in found.trusted):
        lines.append("--trust-from names this machine: every user of it can claim any name")
    return lines


def _listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT` or `PORT`; port 0 is a free one."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise DashboardRefused(f"{text} is no address to listen on", hint="such as 127.0.0.1:8240")
    return host, int(port) or _free_port()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names(options: Options, port: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Values of Host, and origins."""
    if options.url:
        parts = urlsplit(options.url.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or "@" in parts.netloc:
            raise DashboardRefused(
                f"{options.url} is no URL of a dashboard", hint="such as https://upgrade.example.net, without a path"
            )
        authority = parts.netloc.lower()
        return (authority,), (f"{parts.scheme}://{authority}",)
    scheme = "https" if options.encrypted else "http"
    hosts = [f"[{name}]" if ":" in name else name for name in ("127.0.0.1", *_LOOPBACK_NAMES)]
    authorities = tuple(dict.fromkeys(f"{name}:{port}" for name in hosts))
    return authorities, tuple(f"{scheme}://{authority}" for authority in authorities)


def _networks(texts: Iterable[str]) -> Iterable[IPv4Network | IPv6Network]:
    for text in texts:
        try:
            yield ip_network(text)
        except ValueError as error:
            raise DashboardRefused(f"--trust-from {text}: {error}", hint="an address or a network") from None
