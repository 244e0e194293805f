"""How this project's values travel through Temporal: as JSON, read back and checked by pydantic."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
)

from model.errors import NotAuthenticated
from model.gates import REFUSED
from service.codec.compression import CompressingCodec


@lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


class _Json(PydanticJSONPlainPayloadConverter):
    """The SDK's own, but for the memory of how each type is read.

    That one is kept per converter, and every workflow has a converter of its own: each server's workflow would work it
    out again for each of its steps, which costs more than all else that is done for it.
    """

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return _adapter(Any if type_hint is None else type_hint).validate_json(payload.data)


class _Refused(EncodingPayloadConverter):
    """Reads the marker that the codec puts in the place of a payload that it refuses."""

    encoding = REFUSED

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ARG002 - the SDK's interface
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ARG002 - the SDK's interface
        why = payload.data.decode(errors="replace")[:200]
        raise NotAuthenticated(f"a message is not authentic: {why}")


class PayloadConverter(CompositePayloadConverter):
    """The SDK's converters with pydantic's JSON in place of the plain one, as in its `pydantic_data_converter`."""

    def __init__(self) -> None:
        json = _Json()
        default = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(*(json if isinstance(one, JSONPlainPayloadConverter) else one for one in default), _Refused())


data_converter = DataConverter(payload_converter_class=PayloadConverter, payload_codec=CompressingCodec())
"""Of every client and worker without a key ring (service/codec)."""
