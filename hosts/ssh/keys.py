"""The keys we log in with."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from hosts.errors import key_unusable
from hosts.policy import policy
from hosts.secrets import resolve
from model.errors import AuthenticationFailed
from model.fleet.spec import HostSpec


class KeyRing:
    """Private keys, decrypted once: an encrypted key costs a good part of a second, a fleet has one for all hosts."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, int, int, str], asyncssh.SSHKey] = {}
        self._lock = asyncio.Lock()

    async def login(self, spec: HostSpec) -> dict[str, Any]:
        """Arguments for asyncssh.connect. Named files only where the fleet file names them, else the usual ones."""
        passphrase = await resolve(spec.passphrase) if spec.passphrase else None
        if not spec.key_files:
            return {"passphrase": passphrase} if passphrase else {}
        found = _Found()
        async with self._lock:
            for name in spec.key_files:
                await asyncio.to_thread(self._take, spec, policy().path(name), passphrase, found)
        login: dict[str, Any] = {"client_keys": found.keys, "client_certs": found.certificates}
        if found.in_agent:
            login["agent_identities"] = found.in_agent
            if not found.keys:
                # An empty list would mean the usual files.
                login["client_keys"] = ()
                login["ignore_encrypted"] = True
        elif found.keys:
            login["agent_path"] = None
        return login

    def _take(self, spec: HostSpec, path: Path, passphrase: str | None, found: _Found) -> None:
        certificate = path.with_name(path.name + "-cert.pub")
        try:
            if path.suffix == ".pub":
                found.in_agent.append(str(path))
                asyncssh.read_public_key(path)
                return
            found.keys.append(self._private(path, passphrase))
            if certificate.exists():
                found.certificates.append(str(certificate))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise key_unusable(spec, path, reason, f"ls -l {path}, as the worker's user") from None
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            public = path.with_name(path.name + ".pub")
            encrypted = re.search(r"(?i)passphrase|decrypt|encrypt", str(error)) is not None
            if encrypted and passphrase is None and public.exists():
                # Its other half may be in an agent.
                found.in_agent.append(str(public))
                return
            raise _refused(spec, path, encrypted, str(error)) from None

    def _private(self, path: Path, passphrase: str | None) -> asyncssh.SSHKey:
        status = path.stat()
        mark = hashlib.sha256((passphrase or "").encode()).hexdigest()
        where = (str(path), status.st_mtime_ns, status.st_size, mark)
        if where not in self._keys:
            self._keys[where] = asyncssh.read_private_key(path, passphrase)
        return self._keys[where]


def _refused(spec: HostSpec, path: Path, encrypted: bool, reason: str) -> AuthenticationFailed:
    if "bcrypt" in reason:
        # Only keys in OpenSSH's own format need it.
        hint = "install this project again with its requirements.lock, or use an SSH agent"
        return key_unusable(spec, path, "it is encrypted, and the Python package bcrypt is missing", hint)
    if not encrypted:
        return key_unusable(spec, path, reason, f"ssh-keygen -lf {path}")
    if spec.passphrase is None:
        return key_unusable(
            spec, path, "it is encrypted", 'name its passphrase in the fleet file: passphrase_env = "…"'
        )
    return key_unusable(spec, path, f"{spec.passphrase} does not open it", f"by hand: ssh-keygen -yf {path}")


@dataclass
class _Found:
    keys: list[asyncssh.SSHKey] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    in_agent: list[str] = field(default_factory=list)
