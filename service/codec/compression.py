"""Large payloads travel compressed: lists of servers repeat the same fields, so they shrink to a tenth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from model.gates import REFUSED

ENCODING = b"binary/zlib"
_SMALLEST = 16 * 1024
"""Bytes. Smaller payloads stay readable in Temporal's UI."""
_LARGEST = 64 << 20
"""Bytes of a payload that is read; a sender must not be able to fill the memory of a worker."""


class CompressingCodec(PayloadCodec):
    """Of every client and worker without a key ring. With one, EncryptingCodec compresses before it encrypts."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See `compress`."""
        return [compress(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See `expand`. Never raises."""
        return [expand(payload) for payload in payloads]


def compress(payload: Payload) -> Payload:
    """The payload with its metadata, compressed if it is large."""
    if payload.ByteSize() < _SMALLEST:
        return payload
    return Payload(metadata={"encoding": ENCODING}, data=zlib.compress(payload.SerializeToString(), level=3))


def expand(payload: Payload) -> Payload:
    """The payload as it was before `compress`; a marker for one that cannot be read."""
    if payload.metadata.get("encoding") != ENCODING:
        return payload
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload.data, _LARGEST)
        return Payload.FromString(data) if reader.eof else refused("it is too large, or incomplete")
    except Exception as error:  # noqa: BLE001 - zlib and protobuf raise several classes, and one is a bare Exception
        return refused(f"it cannot be read: {type(error).__name__}")


def refused(why: str) -> Payload:
    """The marker in the place of a payload that was not decoded."""
    return Payload(metadata={"encoding": REFUSED.encode()}, data=why.encode())
