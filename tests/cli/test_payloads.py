"""Values travel as they do with the SDK's own converter: histories of either can be read by the other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter

from model.gates import Decision, Recorded, Verdict
from service.payloads import PayloadConverter, data_converter


def test_the_bytes_are_those_of_the_sdks_converter() -> None:
    decision = Decision(gate="core", verdict=Verdict.APPROVE, actor="ann", plan_digest="d1")
    for value in (
        Recorded(decision=decision, at=datetime(2026, 11, 23, tzinfo=UTC)),
        None,
        b"raw",
        "text",
        7,
        {"a": 1},
    ):
        ours = data_converter.payload_converter.to_payloads([value])
        theirs = pydantic_data_converter.payload_converter.to_payloads([value])
        assert ours == theirs
        assert data_converter.payload_converter.from_payloads(theirs, [type(value)]) == [value]
        assert data_converter.payload_converter.from_payloads(theirs) == (
            pydantic_data_converter.payload_converter.from_payloads(theirs)
        )


def test_what_does_not_fit_is_refused() -> None:
    [payload] = PayloadConverter().to_payloads([{"gate": "core"}])
    with pytest.raises(ValueError, match="verdict"):
        PayloadConverter().from_payload(payload, Decision)
