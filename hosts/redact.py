"""What comes from a host is cleaned before it goes into a message, a log or a result."""

from __future__ import annotations

import re

from hosts.known_secrets import MASK, mask

LIMIT = 4096
"""Bytes of a tail that are kept."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_IN_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@\"']*:[^\s/\"']*@")
_NAMED = re.compile(
    r"(?i)([\"']?[\w.-]*(?:passkeys?|passwords?|passwd|passphrase|secrets?|tokens?|api_?key|private_?key)[\"']?\s*[:=]\s*)"
    r"(?=\S).+"
)


def clean(text: str, *secrets: str) -> str:
    """Without escape sequences, without apparent secrets, at most the last 4 KiB.

    `secrets` are values that must not show up whatever they look like.
    """
    text = _CONTROL.sub("", _ANSI.sub("", text)).replace("\r\n", "\n").replace("\r", "\n")
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    text = mask(text)
    text = _NAMED.sub(r"\1•••", _IN_URI.sub(r"\1•••@", text)).strip()
    return tail(text)


def tail(text: str, limit: int = LIMIT) -> str:
    """The last `limit` bytes, from the beginning of a line where one begins there."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    cut = raw[-limit:].decode(errors="ignore")
    _, line_break, rest = cut.partition("\n")
    return rest if line_break and rest else cut


def last_line(text: str) -> str:
    """The last line that is not empty."""
    for line in reversed(text.splitlines()):
        if line.strip():
            return line.strip()
    return ""
