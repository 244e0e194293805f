"""The payload codec: AES-256-GCM, bound to the workflow that a payload belongs to.

The context (`workflow <namespace>/<id>` or `activity <type> <namespace>/<id>`) and the key's id stand in the metadata
and are authenticated with the data. A worker or a client compares the context with the one the SDK gives it; a codec
server, which is given none, only displays. What cannot be authenticated is not decoded: a marker takes its place, so
that one bad message cannot make a workflow task fail. A reader of the marker's value gets NotAuthenticated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from model.gates import MESSAGE_ID, REFUSED
from service.codec.compression import compress, expand, refused
from service.codec.key_ring import KeyRing

ENCODING = b"binary/encrypted"
KEY = "encryption-key-id"
CONTEXT = "encryption-context"
_NONCE = 12


def binding(context: SerializationContext | None) -> str:
    """What a payload is bound to; empty without a context."""
    if isinstance(context, WorkflowSerializationContext):
        return f"workflow {context.namespace}/{context.workflow_id}"
    if isinstance(context, ActivitySerializationContext) and context.workflow_id and context.activity_type:
        return f"activity {context.activity_type} {context.namespace}/{context.workflow_id}"
    return ""


@dataclass(frozen=True)
class EncryptingCodec(PayloadCodec, WithSerializationContext):
    """Of every client and worker that has a key ring."""

    ring: KeyRing
    bound_to: str = ""
    display: bool = False
    """A codec server: any context is shown."""

    def with_context(self, context: SerializationContext) -> EncryptingCodec:
        """A codec for the payloads of one workflow, or of one type of activity in it."""
        return EncryptingCodec(self.ring, binding(context))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt each payload, its metadata included."""
        return [self.seal(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt each payload; a marker for those that are refused. Never raises."""
        return [self.open(payload) for payload in payloads]

    def seal(self, payload: Payload) -> Payload:
        """One payload, compressed if it is large, and encrypted for the context of this codec."""
        if not self.bound_to:
            raise ValueError("a payload without a workflow cannot be bound to one")
        key_id, key = self.ring.current
        nonce = os.urandom(_NONCE)
        sealed = key.encrypt(nonce, compress(payload).SerializeToString(), _authenticated(key_id, self.bound_to))
        metadata = {"encoding": ENCODING, KEY: key_id.encode(), CONTEXT: self.bound_to.encode()}
        return Payload(metadata=metadata, data=nonce + sealed)

    def open(self, payload: Payload) -> Payload:
        """One payload as it was before `seal`, with the id of its message in the metadata; or a marker."""
        metadata = payload.metadata
        if metadata.get("encoding") != ENCODING:
            return refused("it is not encrypted")
        key_id, bound_to = (metadata.get(name, b"").decode(errors="replace") for name in (KEY, CONTEXT))
        if bound_to != self.bound_to and not self.display:
            return refused("it belongs to another workflow")
        key = self.ring.find(key_id)
        if key is None:
            return refused("its key is not in the key ring")
        nonce, sealed = payload.data[:_NONCE], payload.data[_NONCE:]
        try:
            opened = expand(Payload.FromString(key.decrypt(nonce, sealed, _authenticated(key_id, bound_to))))
        except (InvalidTag, ValueError, DecodeError):
            return refused("it is not authentic")
        opened.metadata[MESSAGE_ID] = nonce.hex().encode()
        return opened


def is_refused(payload: Payload) -> bool:
    """It is a marker."""
    return payload.metadata.get("encoding") == REFUSED.encode()


def _authenticated(key_id: str, bound_to: str) -> bytes:
    return b"\n".join((ENCODING, key_id.encode(), bound_to.encode()))
