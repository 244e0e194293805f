"""X25519 key pairs in the forms Komodo takes and writes (mogh_pki: SPKI and PKCS#8, base64 DER or PEM)."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

_PREFIX = bytes.fromhex("302a300506032b656e032100")
_ED25519 = bytes.fromhex("302a300506032b6570032100")


def public_text(key: X25519PublicKey) -> str:
    """One line of 60 characters, `MCowBQYDK2VuAyEA…=`."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def ensure_pair(private_file: Path) -> tuple[str, bool]:
    """The public key of a pair kept at `private_file`, made there (0600, with a `.pub` next to it) if it is missing.

    Returns the public key's line and whether the pair is new. A given private key gets no `.pub`
    (v2.3.2:lib: crates/pki).
    """
    if private_file.is_file():
        return read_private(private_file.read_text()), False
    key = X25519PrivateKey.generate()
    private_file.parent.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_secret(private_file, pem)
    write_secret(private_file.with_suffix(".pub"), public)
    return public_text(key.public_key()), True


def write_public(path: Path, key: str) -> None:
    """A public key as the agent keeps it: PEM, 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_secret(path, f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n".encode())


def mint() -> tuple[str, str]:
    """A new pair as `km key generate` prints it: (private, public), both base64 DER."""
    key = X25519PrivateKey.generate()
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return base64.b64encode(der).decode(), public_text(key.public_key())


def write_secret(path: Path, data: bytes) -> None:
    """A file of mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    path.chmod(0o600)


def read_private(text: str) -> str:
    """The public key that belongs to a private one: PEM, base64 PKCS#8, or up to 32 bytes used raw."""
    if "-----BEGIN" in text:
        key = serialization.load_pem_private_key(text.encode(), None)
        assert isinstance(key, X25519PrivateKey)
    else:
        raw = text.encode()
        if len(raw) <= 32:
            key = X25519PrivateKey.from_private_bytes(raw.ljust(32, b"\0"))
        else:
            loaded = serialization.load_der_private_key(base64.b64decode(text), None)
            assert isinstance(loaded, X25519PrivateKey)
            key = loaded
    return public_text(key.public_key())


def check_core_key(text: str, locate: Callable[[str], Path]) -> tuple[str, str]:
    """(key, "") for a `core_public_keys` entry the agent takes; ("", its error line) otherwise."""
    advice = "Invalid hardcoded public key. If this is supposed to point to file, add 'file:' prefix.: "
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not locate(path).is_file():
            return "", f'Failed to read public key at "{path}": No such file or directory (os error 2)'
        text, advice = locate(path).read_text(), f'Invalid public key at "{path}": '
    if "-----BEGIN" in text:
        text = "".join(text.split("-----")[2].split())
    if len(text) % 4:
        return "", f"{advice}Public key is not base64: invalid length at {len(text) - len(text) % 4}"
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        bad = next((i for i, c in enumerate(text) if not (c.isalnum() or c in "+/=")), 0)
        return "", f"{advice}Public key is not base64: invalid symbol at {bad}"
    if der.startswith(_PREFIX) and len(der) == 44:
        return text, ""
    if der.startswith(_ED25519):
        return "", f"{advice}Public key is not X25519"
    return "", f"{advice}Public key is not valid SPKI"
