"""Passwords of a dashboard that listens beyond this machine: `htpasswd` lines with bcrypt, and a limit of tries."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import bcrypt

from hosts.private_file import PrivateFile
from model.errors import UpgradeError

_LINE = re.compile(r"([^:\s]{1,64}):(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})")
_NOBODY = b"$2b$12$C6UzMDM.H6dfI/f/IKcEeO7ZUpaRfRCzYfHvGR2JuLwe2Qjj6WlLa"
"""Compared for unknown names, so that the time does not reveal whether a name is known."""
_LONGEST = 72
"""Bytes that bcrypt reads."""
FREE_TRIES = 5
_LONGEST_WAIT = 300.0
_ADDRESSES = 1000


class PasswordFileUnusable(UpgradeError):
    """The password file cannot be used."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """Read at every login: a name that is removed from it cannot log in any more."""

    path: Path

    def users(self) -> dict[str, bytes]:
        """Hashes by name. Raises PasswordFileUnusable."""
        text, _ = PrivateFile(self.path, PasswordFileUnusable, secret=True).read()
        found: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if not match:
                raise PasswordFileUnusable(
                    f"{self.path}, line {number}: not NAME:HASH with a bcrypt hash",
                    hint="write it with: htpasswd -B FILE NAME",
                )
            found[match[1]] = match[2].encode()
        if not found:
            raise PasswordFileUnusable(f"{self.path} names nobody", hint="write it with: htpasswd -B FILE NAME")
        return found

    async def accepts(self, name: str, password: str) -> bool:
        """Whether this is the password of that name. Takes equally long for a name that is unknown."""
        secret = password.encode()
        known = self.users().get(name)
        fits = await asyncio.to_thread(bcrypt.checkpw, secret[:_LONGEST], known or _NOBODY)
        return fits and known is not None and 0 < len(secret) <= _LONGEST


@dataclass(slots=True)
class Tries:
    """Failed logins of each address: after a few, each further one has to wait twice as long."""

    _failed: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)
    """Count, and the time of the next try."""

    def wait(self, address: str) -> float:
        """Seconds before this address may try again."""
        return max(self._failed.get(address, (0, 0.0))[1] - monotonic(), 0.0)

    def failed(self, address: str) -> None:
        """Count one."""
        count = self._failed.pop(address, (0, 0.0))[0] + 1
        pause = min(2.0 ** (count - FREE_TRIES), _LONGEST_WAIT) if count >= FREE_TRIES else 0.0
        self._failed[address] = (count, monotonic() + pause)
        while len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures."""
        self._failed.pop(address, None)
