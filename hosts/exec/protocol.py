"""The form of a call: a short constant command, and everything else framed on its standard input.

Login shells differ (bash with a long rc file, fish, csh), so the command holds no value, no backslash, no exclamation
mark and no line break, and what such a shell prints of its own lies before the marker and is dropped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hosts.exec.script import Script, packaged, quoted

COMMAND = (
    'exec sh -c \'IFS= read -r n || exit 74; ku_code=$(dd bs="$n" count=1 iflag=fullblock 2>/dev/null); '
    'case $ku_code in *"#end") eval "$ku_code" ;; *) exit 74 ;; esac\''
)
"""Reads the size of some code as a line, then exactly that code, and runs it with the rest of standard input."""

_END = "#end"


@dataclass(frozen=True, slots=True)
class Become:
    """How a call becomes root: sudo with or without a password, which is never shown."""

    password: str | None = None

    def __repr__(self) -> str:
        return "Become(password)" if self.password is not None else "Become()"


def opening(marker: str, become: Become | None, program: bytes) -> bytes:
    """What precedes the script's own standard input: `program` (see `call`), which root receives if `become` is set."""
    if become is None:
        return b"%d\n%s" % (len(program), program)
    sudo = f"{packaged('hosts.sh', 'become.sh')}\n{_END}".encode()
    way = "passwordless" if become.password is None else "password"
    secret = (become.password or "").encode()
    if b"\n" in secret or b"\0" in secret:
        raise ValueError("a sudo password cannot hold a line break")
    lead = b"%d\n%s%s\n%s\n%s\n" % (len(sudo), sudo, marker.encode(), way.encode(), secret)
    return lead + b"%s %d\n%s" % (marker.encode(), len(program), program)


def call(marker: str, script: Script, stamp: str = "", limit: int = 0) -> bytes:
    """A call as one piece of sh code: values, words and script, and what runs them (call.sh).

    In braces, so that none of it runs unless all of it is there. `limit` in seconds: after it the host itself ends the
    script, whether or not anybody is still there; 0: never.
    """
    values = {"ku_marker": marker, "ku_limit": str(limit)}
    return f"{{\n{_values(script, stamp, values)}\n{packaged('hosts.sh', 'call.sh')}\n}}\n{_END}".encode()


def job_frame(script: Script, data: bytes, stamp: str) -> str:
    """A call for a detached job (run.sh). It contains the data as text, so that the shell needs no file for it."""
    plain = data.isascii() and b"\0" not in data
    text = data.decode() if plain else base64.b64encode(data).decode()
    values = {"ku_data": text, "ku_encoded": "" if plain else "yes"}
    code = f"{{\n{_values(script, stamp, values)}\n}}\n{_END}"
    return f"{len(code.encode())}\n{code}"


def _values(script: Script, stamp: str, values: Mapping[str, str]) -> str:
    lines = [f"{name}={quoted(value)}" for name, value in {**values, "KU_STAMP": stamp}.items()]
    words = " ".join(map(quoted, script.words))
    return "\n".join([*lines, f"set -- {words}", f"ku_script() {{\n:\n{script.text}\n}}"])


NOISE = 1024 * 1024
"""Bytes that a login shell may print before our part begins."""


class Answer:
    """Collects the output on one stream, and finds our part of it: between `<marker> begin` and `<marker> end`.

    Each byte is searched once, and at most about twice `keep` bytes are stored. More than that is `flooded`, or with
    `tail` the last `keep` bytes are kept.
    """

    def __init__(self, marker: str, keep: int, *, tail: bool = False) -> None:
        self._begin = f"\n{marker} begin\n".encode()
        self._become = f"\n{marker} become\n".encode()
        self._end = re.compile(rb"\n%s end (\d{1,3})\n" % marker.encode())
        self._keep = keep
        self._tail = tail
        self._found = bytearray()
        self.begun = False
        self.code: int | None = None
        self.flooded = False

    def feed(self, chunk: bytes) -> None:
        """More from the stream."""
        if self.code is not None or self.flooded:
            return
        known = len(self._found)
        self._found += chunk
        if not self.begun:
            at = self._found.find(self._begin, max(0, known - len(self._begin)))
            if at < 0:
                self.flooded = len(self._found) > NOISE
                return
            self.begun = True
            known = 0
            del self._found[: at + len(self._begin)]
        end = self._end.search(self._found, max(0, known - 64))
        if end:
            self.code = int(end.group(1))
            del self._found[end.start() :]
        if len(self._found) <= self._keep:
            return
        if not self._tail:
            self.flooded = True
        elif self.code is not None or len(self._found) > 2 * self._keep:
            # The end marker may be half here.
            del self._found[: len(self._found) - self._keep - 64]

    @property
    def part(self) -> bytes:
        """Our part so far."""
        return bytes(self._found) if self.begun else b""

    @property
    def become_seen(self) -> bool:
        """sudo was called, and our part did not begin."""
        return not self.begun and self._become in self._found

    @property
    def talk(self) -> bytes:
        """The output if our part never began: that of sudo, or of the login shell."""
        if self.begun:
            return b""
        at = self._found.rfind(self._become)
        return bytes(self._found[at + len(self._become) :] if at >= 0 else self._found)
