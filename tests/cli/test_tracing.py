"""One trace from the command over the workflow to the step, without payloads."""

from __future__ import annotations

import uuid

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from model.status import UpgradeRequest
from service.connection import connect
from service.embedded.state import Running
from service.operation import tracing
from tests.workflows.doubles import CHANGE, Doubles, fleet
from workflows.check_fleet import CheckFleet
from workflows.runtime.sandbox import sandboxed_runner

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")


async def test_a_trace_goes_from_the_client_to_the_step(service: Running) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    plain = await connect({"target_host": service.address})
    settings = plain.config()
    settings["interceptors"] = [tracing.interceptor(provider)]
    client = Client(**settings)
    queue = f"traced-{uuid.uuid4()}"
    request = UpgradeRequest(fleet=fleet(1), change=CHANGE, requested_by="ann")
    async with Worker(
        client,
        task_queue=queue,
        workflows=[CheckFleet],
        activities=Doubles().activities(),
        workflow_runner=sandboxed_runner(),
    ):
        await client.execute_workflow("CheckFleet", request, id=queue, task_queue=queue)
    spans = exporter.get_finished_spans()
    assert {s.name for s in spans} >= {
        "StartWorkflow:CheckFleet",
        "RunWorkflow:CheckFleet",
        "RunActivity:survey_server",
    }
    assert len({s.context.trace_id for s in spans if s.context}) == 1
    assert not [s for s in spans if "example.net" in s.to_json()]


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing.interceptors({}) == []

    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(tracing, "_exporting", missing)
    assert tracing.interceptors({tracing.ENDPOINTS[0]: "http://127.0.0.1:4318"}) == []
