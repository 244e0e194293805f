"""Which host keys are on record. There is no way to switch the check off."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import asyncssh

_DEFAULT_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_FALLBACK = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
)
_CERTIFICATES = [
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
]


@dataclass(frozen=True)
class KnownHosts:
    """The known_hosts files that are read, and their entries."""

    files: tuple[Path, ...]
    _loaded: tuple[asyncssh.SSHKnownHosts, ...] = field(repr=False)

    @classmethod
    def read(cls, *files: Path) -> KnownHosts:
        """The entries of these files."""
        return cls(files, tuple(_load(path) for path in files))

    @classmethod
    def of(cls, from_config: Callable[[str], object], tokens: dict[str, str]) -> KnownHosts:
        """The files that the ssh config names, with its tokens filled in, else OpenSSH's usual ones.

        `UserKnownHostsFile none` (or /dev/null) in a config means the usual ones: it would switch the check off.
        """
        user = _names(from_config("UserKnownHostsFile"))
        names = [*(user or _DEFAULT_FILES), *(_names(from_config("GlobalKnownHostsFile")) or _SYSTEM_FILES)]
        return cls.read(*(Path(_expanded(name, tokens)).expanduser() for name in names))

    def lookup(self, host: str, port: int) -> list[list[asyncssh.SSHKey]]:
        """Trusted keys, trusted CA keys and revoked keys of a host. Its address is no name: only `host` counts."""
        found: list[list[asyncssh.SSHKey]] = [[], [], []]
        for loaded in self._loaded:
            for name in dict.fromkeys((host, host.lower())):
                result = loaded.match(name, "", port if port != 22 else None)
                for kind, keys in zip(found, result[:3], strict=True):
                    kind.extend(keys)
        return found

    def algorithms(self, host: str, port: int) -> list[str]:
        """The key types to request: those on record first, then others, so that a changed host shows its key."""
        trusted, authorities, _ = self.lookup(host, port)
        wanted = list(_CERTIFICATES) if authorities else []
        for key in trusted:
            wanted += [name.decode() for name in key.sig_algorithms if not name.startswith(b"webauthn")]
        return list(dict.fromkeys([*wanted, *_FALLBACK]))

    def where(self) -> str:
        """The files, for a message."""
        return ", ".join(str(path) for path in self.files)

    def file_with(self, host: str, port: int) -> Path:
        """The first file that has a key of this host, else the first one."""
        for path, loaded in zip(self.files, self._loaded, strict=True):
            if any(loaded.match(host, "", port if port != 22 else None)[:2]):
                return path
        return self.files[0]


def _names(value: object) -> list[str]:
    if not isinstance(value, (list, tuple)):
        return []
    return [str(name) for name in value if str(name).lower() not in ("none", "/dev/null")]


def _expanded(name: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%([a-zA-Z%])", lambda found: tokens.get(found.group(1), found.group(0)), name)


def config_tokens(host: str, given: str, port: int, user: str) -> dict[str, str]:
    """The values of %h, %p … in a file name of an ssh config."""
    home = str(Path.home())
    return {"%": "%", "h": host, "n": given, "k": host, "p": str(port), "r": user, "u": getpass.getuser(), "d": home}


def _load(path: Path) -> asyncssh.SSHKnownHosts:
    try:
        status = path.stat()
    except OSError:
        return asyncssh.import_known_hosts("")
    return _parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _parsed(path: Path, _changed: int, _size: int) -> asyncssh.SSHKnownHosts:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return asyncssh.import_known_hosts("")
    try:
        return asyncssh.import_known_hosts(text)
    except ValueError:
        # One line that cannot be read takes only itself away, as with OpenSSH.
        return asyncssh.import_known_hosts("\n".join(_readable(text.splitlines())))


def _readable(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        try:
            asyncssh.import_known_hosts(line)
        except ValueError:
            continue
        yield line


def describe(key: asyncssh.SSHKey) -> str:
    """`ssh-ed25519 SHA256:…`"""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def described(keys: Sequence[asyncssh.SSHKey]) -> str:
    """All of them, for a message."""
    return " or ".join(dict.fromkeys(describe(key) for key in keys))
