"""Payloads are bound to one run: what another run of the same workflow wrote is refused when it is sent again.

The codec binds a payload to a workflow's id, which every later run of the fleet shares. So workers write into each
payload which run made it and that run's parent; clients write when they made it. All of that is encrypted with it.
A workflow accepts results of its own activities and children, a child accepts the input of its own parent, an activity
accepts the input of its own run, and a run accepts an input that was made shortly before it began.
A run that was reset first repeats events of the original run. Until the event of the reset it accepts what the original
run accepted; after it, only its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultFailureConverter,
    PayloadConverter,
    SerializationContext,
    StorageDriverStoreContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    WorkflowInstance,
)
from temporalio.worker._command_aware_visitor import CommandInfo
from temporalio.worker._workflow_instance import WorkflowInstanceDetails  # the argument of a public method
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info

from model.errors import NotAuthenticated
from model.gates import FOR_RUN, MADE_AT, MESSAGE_ID
from model.gates import MADE_BY_RUN as RUN
from service.codec.aead import EncryptingCodec, is_refused
from service.codec.compression import refused
from service.codec.key_ring import KeyRing
from service.payloads import PayloadConverter as PlainConverter

PARENT = "parent"
START_WITHIN = timedelta(minutes=10)
"""Between the start command and the run that it begins. A recorded start command is refused after that."""
SERVER_TYPES = ("AcceptedUpdateCompletedWorkflow",)
"""Types of application failures that the Temporal server itself makes; their words are not encrypted."""
_received: ContextVar[tuple[bytes, ...]] = ContextVar("received", default=())


class OriginConverter(PlainConverter, WithSerializationContext):
    """The converter of clients and activities: it writes when, or by which run, a payload was made."""

    context: SerializationContext | None = None

    def with_context(self, context: SerializationContext) -> OriginConverter:
        """A converter for one workflow's, or one activity's, payloads."""
        bound = OriginConverter()
        bound.context = context
        return bound

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """Payloads with their origin."""
        payloads = super().to_payloads(values)
        origin = self._origin()
        for payload in payloads:
            payload.metadata.update(origin)
        return payloads

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Values. Which runs made an activity's input is kept for OneRun."""
        if isinstance(self.context, ActivitySerializationContext):
            _received.set(_received.get() + tuple(payload.metadata.get(RUN, b"") for payload in payloads))
        return super().from_payloads(payloads, type_hints)

    def _origin(self) -> dict[str, bytes]:
        if isinstance(self.context, ActivitySerializationContext):
            return {RUN: (activity.info().workflow_run_id or "").encode()} if activity.in_activity() else {}
        return {MADE_AT: str(int(time.time())).encode()} if self.context is not None else {}


class OneRun(Interceptor):
    """Refuses an activity whose input another run made."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Wrap one activity."""
        return _OneRun(next)


class _OneRun(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        run = (activity.info().workflow_run_id or "").encode()
        if any(made_by != run for made_by in _received.get()):
            raise _not_authentic("the input of this step was made by another run")
        return await super().execute_activity(input)


@dataclass
class _Reset:
    """How far a run is in the events that it repeats after a reset."""

    repeats: bytes
    """The original run, as long as its results are accepted. Empty in a run that was not reset."""
    at: float = 0.0
    """When the first task after the reset began; 0 before that."""


@dataclass(frozen=True)
class _Origin:
    """Who a workflow instance is."""

    workflow_id: str
    run: bytes
    parent: bytes
    continued: bytes
    began: float
    reset: _Reset

    def message(self, payload: Payload) -> Payload:
        """A decision or control; a marker for one that was made before the reset and is applied after it."""
        metadata = payload.metadata
        if not self.reset.at or RUN in metadata:
            return payload
        outdated = metadata[FOR_RUN] != self.run if FOR_RUN in metadata else _made_at(payload) < int(self.reset.at)
        return refused("it was made before this run was reset") if outdated and not is_refused(payload) else payload

    def why_not(self, payload: Payload, context: SerializationContext | None) -> str:
        """Why this workflow must not accept the payload; empty: it may. Without a context nothing is compared."""
        made_by = payload.metadata.get(RUN, b"")
        own = [run for run in (self.run, self.reset.repeats) if run]
        if isinstance(context, ActivitySerializationContext):
            return "" if made_by in own else "another run's activity made it"
        if not isinstance(context, WorkflowSerializationContext):
            return ""
        if made_by and (made_by in own or payload.metadata.get(PARENT) in own):
            return ""
        if self.continued:
            return "" if made_by == self.continued else "another run made it"
        if context.workflow_id != self.workflow_id:
            return "another run's child made it"
        if self.parent:
            return "" if made_by == self.parent else "its parent did not make it"
        if made_by:
            return "another run made it"
        return (
            ""
            if abs(self.began - _made_at(payload)) <= START_WITHIN.total_seconds()
            else "it was made long before this run"
        )


def _made_at(payload: Payload) -> int:
    text = payload.metadata.get(MADE_AT, b"")
    return int(text) if text.isdigit() and len(text) < 20 else 0


class InstanceConverter(PayloadConverter, WithSerializationContext):
    """The converter of one workflow instance: it writes its run into each payload and checks those that it reads."""

    def __init__(self, inner: PayloadConverter, origin: _Origin, context: SerializationContext | None = None) -> None:
        self.inner = inner
        self._origin = origin
        self._context = context

    def with_context(self, context: SerializationContext) -> InstanceConverter:
        """A converter that knows whose payloads it reads."""
        return InstanceConverter(self.inner, self._origin, context)

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """Payloads with their origin."""
        payloads = self.inner.to_payloads(values)
        for payload in payloads:
            payload.metadata[RUN] = self._origin.run
            if self._origin.parent:
                payload.metadata[PARENT] = self._origin.parent
        return payloads

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Values. An ApplicationError fails the workflow: any other error would be retried for ever."""
        if type_hints and all(hint is RawValue for hint in type_hints):
            return self.inner.from_payloads([self._origin.message(payload) for payload in payloads], type_hints)
        for payload in payloads:
            why = "" if is_refused(payload) else self._origin.why_not(payload, self._context)
            if why:
                raise _not_authentic(f"a message is not authentic: {why}")
        try:
            return self.inner.from_payloads(payloads, type_hints)
        except NotAuthenticated as error:
            raise _not_authentic(error.what) from None


class _Instance(WorkflowInstance):
    """A workflow instance that notices the event of a reset: the SDK then changes the seed of its random numbers."""

    def __init__(self, inner: WorkflowInstance, reset: _Reset) -> None:
        self._inner = inner
        self._reset = reset

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """See base class. One activation holds the last events before the reset and the first ones after it."""
        is_reset = any(job.HasField("update_random_seed") for job in act.jobs)
        if is_reset:
            self._reset.at = act.timestamp.ToMicroseconds() / 1e6
        completion = self._inner.activate(act)
        if is_reset:
            self._reset.repeats = b""
        return completion

    def get_serialization_context(self, command_info: CommandInfo | None) -> SerializationContext | None:
        """See base class."""
        return self._inner.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: CommandInfo | None) -> StorageDriverStoreContext:
        """See base class."""
        return self._inner.get_external_store_context(command_info)

    def get_info(self) -> Info:
        """See base class."""
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        """See base class."""
        return self._inner.get_thread_id()


class BoundRunner(SandboxedWorkflowRunner):
    """Gives each workflow instance a converter that knows its run."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See base class."""
        info = det.info
        reset = _Reset(
            info.original_execution_run_id.encode() if info.original_execution_run_id != info.run_id else b""
        )
        origin = _Origin(
            info.workflow_id,
            info.run_id.encode(),
            info.parent.run_id.encode() if info.parent else b"",
            (info.continued_run_id or "").encode(),
            info.workflow_start_time.timestamp(),
            reset,
        )
        factory = det.payload_converter_factory
        bound = replace(det, payload_converter_factory=lambda: InstanceConverter(factory(), origin))
        return _Instance(super().create_instance(bound), reset)


class FailureConverter(DefaultFailureConverter):
    """Words of failures travel encrypted; those that are not authenticated are replaced."""

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """See base class."""
        reader = payload_converter.inner if isinstance(payload_converter, InstanceConverter) else payload_converter
        known = Failure()
        known.CopyFrom(failure)
        authentic = MESSAGE_ID in known.encoded_attributes.metadata
        if known.HasField("application_failure_info") and not authentic:
            info = known.application_failure_info
            if info.type not in SERVER_TYPES:
                info.type = "NotAuthenticated"
                known.message = "a step failed with words that are not authentic"
        if not authentic:
            known.ClearField("encoded_attributes")
            known.stack_trace = ""
        for details in _details(known):
            if any(is_refused(payload) for payload in details.payloads):
                del details.payloads[:]
        return super().from_failure(known, reader)


def _details(failure: Failure) -> list[Payloads]:
    return [
        failure.application_failure_info.details,
        failure.timeout_failure_info.last_heartbeat_details,
        failure.canceled_failure_info.details,
    ]


def _not_authentic(why: str) -> ApplicationError:
    return ApplicationError(why, type="NotAuthenticated", non_retryable=True)


def encrypted(ring: KeyRing) -> DataConverter:
    """The data converter of clients and workers that share this key ring."""
    return DataConverter(
        payload_converter_class=OriginConverter,
        payload_codec=EncryptingCodec(ring),
        failure_converter_class=FailureConverter,
    )


def is_encrypting(client: Client) -> bool:
    """The client, and a worker that uses it, have a key ring."""
    return isinstance(client.data_converter.payload_codec, EncryptingCodec)
