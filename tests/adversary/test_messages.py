"""Signals and updates of any shape: none fails the workflow task, and each refused one is shown in `status`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from model.gates import ControlVerb, Decision, Verdict
from tests.workflows.doubles import Doubles, fleet
from tests.workflows.driver import Driver, LocalServer, Talk
from workflows.runtime.gates import MOST_CONTROLS, MOST_WARNINGS

JSON = b"json/plain"
APPROVE = b'{"gate": "core", "verdict": "approve", "actor": "eve", "plan_digest": "%s"}'


@pytest.fixture(scope="module")
def server() -> Any:
    local = LocalServer()
    try:
        yield local
    finally:
        local.stop()


@pytest.fixture
async def real(server: LocalServer) -> AsyncIterator[WorkflowEnvironment]:
    async with server.connect() as env:
        yield env


@pytest.fixture
async def waiting(real: WorkflowEnvironment) -> AsyncIterator[Talk]:
    """An upgrade that waits at gate core."""
    async with Driver.serving(real, Doubles()) as driver:
        talk = await driver.upgrade(fleet(1))
        await talk.gate("core")
        yield talk


def raw(data: bytes, encoding: bytes | None = JSON, **more: bytes) -> RawValue:
    metadata = dict(more) if encoding is None else {"encoding": encoding, **more}
    return RawValue(Payload(metadata=metadata, data=data))


async def _still_waits(talk: Talk) -> list[str]:
    """The queries answer, the gate is open, and no workflow task failed."""
    progress = await talk.progress()
    assert progress.gate
    assert progress.gate.id == "core"
    assert not progress.decisions
    events = [event async for event in talk.handle.fetch_history_events()]
    assert not [event for event in events if event.HasField("workflow_task_failed_event_attributes")]
    return list(progress.warnings)


ODD: dict[str, Sequence[RawValue]] = {
    "no input": [],
    "two inputs": [raw(APPROVE), raw(APPROVE)],
    "null": [raw(b"", b"binary/null")],
    "bytes": [raw(APPROVE, b"binary/plain")],
    "protobuf": [raw(b"{}", b"json/protobuf", messageType=b"temporal.api.common.v1.Payload")],
    "unknown encoding": [raw(APPROVE, b"binary/encrypted")],
    "no encoding": [raw(APPROVE, None)],
    "not JSON": [raw(b"{")],
    "deep": [raw(b"[" * 5000)],
    "list": [raw(b"[]")],
    "typo": [raw(APPROVE.replace(b"approve", b"aprove"))],
    "long actor": [raw(APPROVE.replace(b"eve", b"e" * 201))],
    "huge": [raw(APPROVE.replace(b"eve", b"e" * 1_500_000))],
    "odd origin": [raw(APPROVE, **{"message-id": b"\xff", "made-at": b"\x00"})],
    "odd run": [raw(APPROVE, **{"for-run": b"\xff"})],
    "not UTF-8": [raw(b'{"gate": "\xff"}')],
}


@pytest.mark.parametrize("name", ["decide", "control", "decid"])
async def test_odd_signals_are_refused_and_shown(waiting: Talk, name: str) -> None:
    for args in ODD.values():
        await waiting.handle.signal(name, args=list(args))
    progress = await waiting.until(lambda p: len(p.warnings) >= len(ODD), "all shown")
    assert all(f"the signal {name}" in warning for warning in progress.warnings[-len(ODD) :])
    assert sum(len(warning) for warning in await _still_waits(waiting)) < 20_000
    await waiting.answer("core")
    assert (await waiting.result()).decisions


@pytest.mark.parametrize("name", ["decide", "control"])
async def test_odd_updates_are_refused_with_the_reason(waiting: Talk, name: str) -> None:
    for args in ODD.values():
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await waiting.handle.execute_update(name, args=list(args))
        cause = refused.value.cause
        assert isinstance(cause, ApplicationError)
        assert cause.type == "MessageRefused"
    await _still_waits(waiting)


async def test_a_typo_is_named(waiting: Talk) -> None:
    """It was dropped with a success message and no trace."""
    await waiting.handle.signal("decide", args=list(ODD["typo"]))
    progress = await waiting.until(lambda p: bool(p.warnings), "shown")
    assert "aprove" in progress.warnings[-1]
    assert "verdict" in progress.warnings[-1]


async def test_a_flood_is_counted(waiting: Talk) -> None:
    for number in range(3 * MOST_WARNINGS):
        await waiting.handle.signal("decide", Decision(gate=f"wave/{number}", verdict=Verdict.APPROVE, actor="eve"))
    progress = await waiting.until(lambda p: "further messages" in "".join(p.warnings[-1:]), "counted")
    assert len(progress.warnings) <= MOST_WARNINGS + 5
    await _still_waits(waiting)


async def test_a_flood_of_accepted_controls_stays_readable(waiting: Talk) -> None:
    """1,000 of them with 2,000 characters each made the state too large for the answer of a query."""
    for number in range(1_000):
        verb = ControlVerb.RESUME if number % 2 else ControlVerb.PAUSE
        await waiting.control(verb, reason=f"{number} {'x' * 1_900}")
    progress = await waiting.until(lambda p: any(c.reason.startswith("999 ") for c in p.controls), "all received")
    assert len(progress.controls) == MOST_CONTROLS
    assert not progress.paused
    await _still_waits(waiting)


_texts = st.text(max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_values = st.one_of(_json, st.sampled_from(["core", "approve", "pause", "eve", "", "wave/1"]))
_messages = st.dictionaries(st.sampled_from(["gate", "verdict", "verb", "actor", "reason", "plan_digest"]), _values)
_encodings = st.sampled_from([JSON, JSON, JSON, b"binary/null", b"binary/plain", b"json/protobuf", b"binary/protobuf"])


@st.composite
def _payloads(draw: st.DrawFn) -> RawValue:
    import json

    text = draw(st.one_of(_messages.map(json.dumps), _json.map(json.dumps), st.binary(max_size=50)))
    data = text if isinstance(text, bytes) else text.encode()
    encoding = draw(st.one_of(_encodings, st.binary(max_size=10)))
    more = draw(st.dictionaries(st.sampled_from(["message-id", "for-run", "made-at", "run"]), st.binary(max_size=8)))
    return RawValue(Payload(metadata={**more, "encoding": encoding}, data=data))


_ARGS = st.lists(_payloads(), max_size=3)
_STREAMS = st.lists(st.tuples(st.sampled_from(["decide", "control", "x"]), _ARGS), min_size=40, max_size=40)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=_STREAMS)
def test_arbitrary_payloads_never_fail_the_workflow_task(server: LocalServer, stream: Any) -> None:
    asyncio.run(_throw(server, stream))


async def _throw(server: LocalServer, stream: Sequence[tuple[str, list[RawValue]]]) -> None:
    async with server.connect() as env, Driver.plain(env, Doubles(), forgetful=True) as driver:
        talk = await driver.upgrade(fleet(1))
        await talk.gate("core")
        for number, (name, args) in enumerate(stream):
            if number % 2:
                await talk.handle.signal(name, args=args)
                continue
            try:
                await asyncio.wait_for(talk.handle.execute_update(name, args=args), 10)
            except WorkflowUpdateFailedError as refused:
                assert isinstance(refused.cause, ApplicationError)  # noqa: PT017 - a control may also be accepted
        await talk.progress()
        events = [event async for event in talk.handle.fetch_history_events()]
        assert not [event for event in events if event.HasField("workflow_task_failed_event_attributes")]
