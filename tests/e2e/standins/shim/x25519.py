"""X25519 (RFC 7748) in plain Python. Slow and not constant in time: for tests only."""

from __future__ import annotations

import base64
import os
from typing import Any

P = 2**255 - 19
PUBLIC, PRIVATE = bytes.fromhex("302a300506032b656e032100"), bytes.fromhex("302e020100300506032b656e04220420")


def _ladder(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & ~(1 << 255)) | (1 << 254)
    u = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for bit in range(254, -1, -1):
        now = (k >> bit) & 1
        if swap != now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = now
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % P, c * b % P, a * a % P, b * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _written(der: bytes, encoding: Any, label: str) -> bytes:
    if encoding == "DER":
        return der
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


class X25519PublicKey:
    """The methods of cryptography that are used."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def from_public_bytes(cls, data: bytes) -> X25519PublicKey:
        """A key from 32 bytes."""
        return cls(data)

    def public_bytes(self, encoding: Any, _form: Any) -> bytes:
        """SubjectPublicKeyInfo."""
        return _written(PUBLIC + self.raw, encoding, "PUBLIC KEY")


class X25519PrivateKey:
    """The methods of cryptography that are used."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    @classmethod
    def generate(cls) -> X25519PrivateKey:
        """A random key."""
        return cls(os.urandom(32))

    @classmethod
    def from_private_bytes(cls, data: bytes) -> X25519PrivateKey:
        """A key from 32 bytes."""
        return cls(data)

    def public_key(self) -> X25519PublicKey:
        """The public key."""
        return X25519PublicKey(_ladder(self._raw, (9).to_bytes(32, "little")))

    def exchange(self, peer: X25519PublicKey) -> bytes:
        """The shared secret."""
        return _ladder(self._raw, peer.raw)

    def private_bytes(self, encoding: Any, _form: Any, _encryption: Any) -> bytes:
        """PKCS#8."""
        return _written(PRIVATE + self._raw, encoding, "PRIVATE KEY")
