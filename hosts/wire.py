"""How a call travels: a short constant command, and everything else framed on its standard input.

Login shells differ (bash with a long rc file, fish, csh), so the command holds no value, no backslash, no exclamation
mark and no line break, and what such a shell prints of its own lies before the marker and is dropped.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from hosts.script import Script, packaged

COMMAND = (
    'exec sh -c \'IFS= read -r n && ku_code=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null) && eval "$ku_code"\''
)
"""Reads the size of some code as a line, then exactly that code, and runs it with the rest of standard input."""

_END = "#end"


@dataclass(frozen=True, slots=True)
class Become:
    """How the call becomes root: sudo with or without a password. Never shows it."""

    password: str | None = None

    def __repr__(self) -> str:
        return "Become(password)" if self.password is not None else "Become()"


def opening(marker: str, become: Become | None) -> bytes:
    """What comes before the call itself: the code that receives it, as root if `become`."""
    run = packaged("hosts.sh", "run.sh").encode()
    if become is None:
        return b"%d\n%s" % (len(run), run)
    sudo = packaged("hosts.sh", "become.sh").encode()
    way = "passwordless" if become.password is None else "password"
    secret = (become.password or "").encode()
    if b"\n" in secret or b"\0" in secret:
        raise ValueError("a sudo password cannot hold a line break")
    lead = b"%d\n%s%s\n%s\n%s\n" % (len(sudo), sudo, marker.encode(), way.encode(), secret)
    return lead + b"%s %d\n%s" % (marker.encode(), len(run), run)


def call(marker: str, script: Script, args: tuple[str, ...], stamp: str = "", limit: int = 0) -> bytes:
    """The call: marker, stamp, limit, arguments, script. What follows on standard input is the script's own.

    `limit` in seconds: after it the host itself ends the script, whether or not anybody is still there; 0: never.
    """
    lines = [marker, stamp, str(limit), str(len(args))]
    for arg in args:
        if "\0" in arg:
            raise ValueError("an argument cannot hold a NUL")
        lines += [str(arg.count("\n") + 1), arg]
    text = f"{script.text}\n{_END}".encode()
    return "\n".join([*lines, str(len(text)), ""]).encode() + text


def job_frame(marker: str, script: Script, args: tuple[str, ...], data: bytes, stamp: str) -> bytes:
    """A call for a detached job: the data comes along, as text, so that a shell can hand it on without a file."""
    encoded = base64.b64encode(data)
    return b"%s%d\n%s\n%s end" % (call(marker, script, args, stamp), len(encoded), encoded, marker.encode())


class Answer:
    """Takes what comes back on one stream, and finds our part of it: between `<marker> begin` and `<marker> end`."""

    def __init__(self, marker: str, keep: int) -> None:
        self._begin = f"\n{marker} begin\n".encode()
        self._become = f"\n{marker} become\n".encode()
        self._end = re.compile(rb"\n%s end (\d+)\n" % marker.encode())
        self._keep = keep
        self._found = bytearray()
        self.begun = False
        self.code: int | None = None
        self.overflow = False

    def feed(self, chunk: bytes) -> None:
        """More from the stream."""
        if self.code is not None:
            return
        known = len(self._found)
        self._found += chunk
        if not self.begun:
            at = self._found.find(self._begin)
            if at < 0:
                return
            self.begun = True
            known = 0
            del self._found[: at + len(self._begin)]
        end = self._end.search(self._found, max(0, known - 64))
        if end:
            self.code = int(end.group(1))
            del self._found[end.start() :]
        if len(self._found) > self._keep:
            self.overflow = True
            # The end marker may be half here.
            del self._found[: len(self._found) - self._keep - 64]

    @property
    def part(self) -> bytes:
        """Our part so far (the last `keep` bytes of it)."""
        return bytes(self._found) if self.begun else b""

    @property
    def become_seen(self) -> bool:
        """sudo was asked, and our part did not begin."""
        return not self.begun and self._become in self._found

    @property
    def talk(self) -> bytes:
        """What there is when our part never began: sudo's own words, or the login shell's."""
        if self.begun:
            return b""
        at = self._found.rfind(self._become)
        return bytes(self._found[at + len(self._become) :] if at >= 0 else self._found)
