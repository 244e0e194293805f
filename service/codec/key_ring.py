"""The keys that payloads are encrypted with: from a file, a variable or a command. The first key writes, all read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hosts.private_file import PrivateFile, Stamp
from model.errors import KeyRingError

ENV = "KOMODO_UPGRADE_KEY_RING"
ENV_FILE = "KOMODO_UPGRADE_KEY_RING_FILE"
ENV_COMMAND = "KOMODO_UPGRADE_KEY_RING_COMMAND"
VARIABLES = (ENV, ENV_FILE, ENV_COMMAND)
_KEY_BYTES = 32
_COMMAND_SECONDS = 30
_HINT = "each line holds one key, 32 random bytes in base64, the newest first; `komodo-upgrade codec rotate` writes it"


class KeyRing:
    """Keys by id. A ring that comes from a file is read again when an unknown key is asked for."""

    def __init__(self, text: str, source: str, file: PrivateFile | None = None, stamp: Stamp | None = None) -> None:
        self._source = source
        self._file = file
        self._stamp = stamp
        self._keys: dict[str, AESGCM] = {}
        self._take(text)

    @property
    def current(self) -> tuple[str, AESGCM]:
        """The key that new payloads are encrypted with, and its id."""
        return next(iter(self._keys.items()))

    def find(self, key_id: str) -> AESGCM | None:
        """The key of this id. None: it is not in the ring."""
        found = self._keys.get(key_id)
        if found is None and self._reload():
            found = self._keys.get(key_id)
        return found

    def __len__(self) -> int:
        return len(self._keys)

    def _take(self, text: str) -> None:
        keys: dict[str, AESGCM] = {}
        for number, line in enumerate(_lines(text), start=1):
            try:
                raw = base64.b64decode(line, validate=True)
            except (binascii.Error, ValueError):
                raw = b""
            if len(raw) != _KEY_BYTES:
                raise KeyRingError(f"{self._source}: key {number} is not 32 bytes in base64", hint=_HINT)
            keys[_key_id(raw)] = AESGCM(raw)
        if not keys:
            raise KeyRingError(f"{self._source} holds no key", hint=_HINT)
        self._keys = keys

    def _reload(self) -> bool:
        """Read a file that was replaced since. A file that cannot be used leaves the ring as it is."""
        if self._file is None:
            return False
        try:
            if self._file.stamp() == self._stamp:
                return False
            text, self._stamp = self._file.read()
            self._take(text)
        except KeyRingError:
            return False
        return True


def from_environment(environ: Mapping[str, str] | None = None) -> KeyRing | None:
    """The ring that the variables name. None: none of them is set. Raises KeyRingError."""
    environ = os.environ if environ is None else environ
    named = [name for name in VARIABLES if environ.get(name)]
    if len(named) > 1:
        raise KeyRingError(f"{' and '.join(named)} are set", hint="set one of them")
    if not named:
        return None
    value = environ[named[0]]
    if named[0] == ENV:
        return KeyRing("\n".join(value.split()), f"the variable {ENV}")
    return from_file(Path(value)) if named[0] == ENV_FILE else _from_command(value)


def from_file(path: Path) -> KeyRing:
    """The ring in this file, which only its owner may read or write. Raises KeyRingError."""
    file = _file(path)
    text, stamp = file.read()
    return KeyRing(text, str(file.path), file, stamp)


def create(path: Path) -> KeyRing:
    """The ring in this file; a new one where there is none yet."""
    if not path.exists():
        _file(path).replace(lambda text: text or _rendered([_new_key()]))
    return from_file(path)


def rotate(path: Path) -> KeyRing:
    """Add a key that encrypts from now on. Older keys stay: they read what they encrypted."""

    def with_new_key(text: str) -> str:
        if text:
            KeyRing(text, str(path))
        return _rendered([_new_key(), *_lines(text)])

    _file(path).replace(with_new_key)
    return from_file(path)


def _file(path: Path) -> PrivateFile:
    return PrivateFile(path.expanduser().absolute(), KeyRingError, secret=True)


def _from_command(command: str) -> KeyRing:
    source = f"the command in {ENV_COMMAND}"
    try:
        done = subprocess.run(  # noqa: S603 - named by the owner of this process's environment
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        raise KeyRingError(f"{source} did not end well", hint="run it by hand") from None
    if done.returncode:
        raise KeyRingError(f"{source} ended with exit code {done.returncode}", hint="run it by hand")
    return KeyRing(done.stdout, source)


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _rendered(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def _key_id(raw: bytes) -> str:
    return hashlib.sha256(b"komodo-upgrade key id\n" + raw).hexdigest()[:16]
