"""Core's public key: X25519, SPKI DER in base64, 60 characters.

Komodo's upgrade guide and some articles call the keys Ed25519. Komodo takes X25519 only and answers anything else with
"Public key is not X25519" (moghtech/lib, crates/pki/src/key/public.rs as locked by v2.0.0 to v2.3.2).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from model.errors import KeyRejected

PLACEHOLDER = "{core_public_key}"
"""Takes the place of Core's key while it is not known: plans and their digests are made with it."""

PATTERN = re.compile(r"MCowBQYDK2VuAyEA[A-Za-z0-9+/]{43}=")
"""One key in Komodo's form (use `fullmatch`)."""

_LENGTH = 60
_PREFIX = "MCowBQYDK2VuAyEA"
_ED25519_PREFIX = "MCowBQYDK2VwAyEA"
_PRIVATE_PREFIX = "MC4CAQAwBQYDK2Vu"
_HINT = "copy Core's key from Komodo's Settings page, or from the log line 'Public Key:' of Core"


def validate(text: str) -> str:
    """The key without blanks around it. Raises KeyRejected, with a message for each of the usual mistakes."""
    key = text.strip().strip("\"'").strip()
    _reject_other_forms(key)
    if len(key) < _LENGTH and _PREFIX.startswith(key[:16]):
        raise KeyRejected(
            f"the key is cut off: {len(key)} of {_LENGTH} characters",
            hint=f"{_HINT}; it ends with '='",
        )
    try:
        loaded = load_der_public_key(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise KeyRejected(
            f"this is not a public key: {len(key)} characters that are not the base64 of one", hint=_HINT
        ) from error
    if not isinstance(loaded, X25519PublicKey):
        raise KeyRejected(f"this is a public key of another kind ({type(loaded).__name__}), not X25519", hint=_HINT)
    if not PATTERN.fullmatch(key):
        raise KeyRejected(f"this X25519 key is not in Komodo's form of {_LENGTH} characters", hint=_HINT)
    return key


def _reject_other_forms(key: str) -> None:
    if not key:
        raise KeyRejected("the key is empty: an agent with an empty key would accept any Core", hint=_HINT)
    if key == PLACEHOLDER:
        raise KeyRejected("this is the placeholder, not a key", hint=_HINT)
    if "PRIVATE KEY" in key or key.startswith(_PRIVATE_PREFIX):
        raise KeyRejected(
            "this is a private key: it must not leave the machine it was made on, and agents never need it",
            hint=f"{_HINT}; if it was shown to anyone, make Core a new one",
        )
    if key.startswith("-----BEGIN"):
        raise KeyRejected(
            "this is a key in PEM form", hint="give the one line between BEGIN and END; it starts with MCow"
        )
    if key.startswith("file:"):
        raise KeyRejected("this is a reference to a file, not a key", hint=f"give the key itself: {_HINT}")
    if key.startswith(_ED25519_PREFIX):
        raise KeyRejected(
            "this is an Ed25519 key; Komodo uses X25519 and refuses Ed25519",
            hint=f"{_HINT}; it starts with {_PREFIX}",
        )
    if "," in key or "\n" in key:
        raise KeyRejected("this is more than one line or key", hint="give exactly one key")


def from_pem(text: str) -> str:
    """The key of a PEM file such as Core's `core.pub`, in Komodo's one-line form. Raises KeyRejected."""
    if "PRIVATE KEY" in text:
        raise KeyRejected("this is a private key file, not a public one", hint="give core.pub, not core.key")
    try:
        loaded = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRejected("this is not a PEM file of a public key", hint="give core.pub as Core wrote it") from error
    der = loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return validate(base64.b64encode(der).decode())


def key_in_file(data: bytes) -> str:
    """The key that an agent reads from a file, PEM or one line; empty where it holds none."""
    try:
        text = data.decode()
        return from_pem(text) if "-----BEGIN" in text else understood(text.strip())
    except (UnicodeDecodeError, KeyRejected):
        return ""


def pinnable(text: str) -> str:
    """A key that may be written into a file: a valid one, or the placeholder of a plan. Raises KeyRejected."""
    return text if text == PLACEHOLDER else validate(text)


def pem_of(key: str) -> str:
    """The file that `file:` entries are read from, as Komodo writes it."""
    return f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n"


def command_to_write(key: str, path: str) -> str:
    """The line that writes a key to a file in the form that `file:` entries are read in (PEM)."""
    return f"printf '%s\\n' '-----BEGIN PUBLIC KEY-----' '{key}' '-----END PUBLIC KEY-----' | sudo tee {path}"


def with_key(value: str, key: str, same: Collection[str] = ()) -> str | None:
    """The value of PERIPHERY_CORE_PUBLIC_KEYS with one more key. None: it has the key, and v2 starts with it as it is.

    Other keys and `file:` entries stay, entries with which v2 does not start are removed. v2 splits this variable at
    commas and trims nothing: an entry with blanks is "not base64". `same`: entries that mean the same key.
    """
    entries = value.split(",")
    kept = [e.strip() for e in entries if e.strip().startswith("file:") or e.strip() == key or understood(e.strip())]
    there = key in kept or any(entry in same for entry in kept)
    if there and kept == entries:
        return None
    return ",".join(kept if there else [*kept, key])


def understood(entry: str) -> str:
    """The key of one entry of `core_public_keys`: a key, or one in PEM form; empty where it is neither.

    Blanks are not trimmed: around an entry, or before a PEM's lines, v2 takes them for part of the key and does not
    start (moghtech/lib crates/pki/src/key/public.rs).
    """
    try:
        if entry.startswith("-----BEGIN"):
            return "" if re.search(r"^[ \t]", entry, re.MULTILINE) else from_pem(entry)
        return validate(entry) if PATTERN.fullmatch(entry) else ""
    except KeyRejected:
        return ""
