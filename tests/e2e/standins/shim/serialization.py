"""Key formats, only for X25519."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


class Encoding:
    """Encodings of a key."""

    DER = "DER"
    PEM = "PEM"


class PublicFormat:
    """What of it."""

    SubjectPublicKeyInfo = "SubjectPublicKeyInfo"


class PrivateFormat:
    """What of it."""

    PKCS8 = "PKCS8"


class NoEncryption:
    """Unencrypted."""


def load_der_private_key(data: bytes, _password: object) -> X25519PrivateKey:
    """PKCS#8: the key is its last 32 bytes (openssl writes no attributes after it)."""
    if b"\x2b\x65\x6e" not in data[:20]:
        raise ValueError("no X25519 key")
    return X25519PrivateKey.from_private_bytes(data[16:48])


def load_pem_private_key(data: bytes, _password: object) -> X25519PrivateKey:
    """Load a PKCS#8 key in PEM."""
    lines = [line for line in data.decode().splitlines() if line and not line.startswith("-----")]
    return load_der_private_key(base64.b64decode("".join(lines)), None)
