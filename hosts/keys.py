"""The keys we log in with."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from hosts.failures import key_unusable
from hosts.secrets import resolve
from model.fleet import HostSpec


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
                await asyncio.to_thread(self._take, spec, name, passphrase, found)
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

    def _take(self, spec: HostSpec, name: str, passphrase: str | None, found: _Found) -> None:
        path = Path(name).expanduser()
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
            raise key_unusable(
                spec, path, (error.strerror or "").lower(), f"ls -l {path}, as the worker's user"
            ) from None
        except asyncssh.KeyImportError as error:
            public = path.with_name(path.name + ".pub")
            if "passphrase" not in str(error).lower():
                raise key_unusable(spec, path, str(error), f"ssh-keygen -lf {path}") from None
            if not public.exists():
                raise key_unusable(
                    spec, path, "it is encrypted", "name its passphrase in the fleet file: passphrase_env = …"
                ) from None
            # Encrypted, and we have no passphrase: its other half may be in an agent.
            found.in_agent.append(str(public))
        except asyncssh.KeyEncryptionError as error:
            cure = f"check {spec.passphrase}; by hand: ssh-keygen -yf {path}"
            if "bcrypt" in str(error).lower():
                cure = "install the Python package bcrypt beside this tool, or use an agent"
            raise key_unusable(spec, path, str(error).lower(), cure) from None

    def _private(self, path: Path, passphrase: str | None) -> asyncssh.SSHKey:
        status = path.stat()
        mark = hashlib.sha256((passphrase or "").encode()).hexdigest()
        where = (str(path), status.st_mtime_ns, status.st_size, mark)
        if where not in self._keys:
            self._keys[where] = asyncssh.read_private_key(path, passphrase)
        return self._keys[where]


@dataclass
class _Found:
    keys: list[asyncssh.SSHKey] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    in_agent: list[str] = field(default_factory=list)
