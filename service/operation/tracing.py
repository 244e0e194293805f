"""OpenTelemetry traces of commands, workflows and steps, by the interceptor of Temporal's SDK (extra `otel`).

On when OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set; OpenTelemetry's other variables apply.
Spans hold ids, names of steps and texts of failures, as the worker's log does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from temporalio.client import Interceptor

log = logging.getLogger("komodo_upgrade.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "komodo-upgrade"


def interceptors(environ: Mapping[str, str] = os.environ) -> list[Interceptor]:
    """Of a client and of the workers that use it; none without an endpoint, or without the extra."""
    if not any(environ.get(name) for name in ENDPOINTS):
        return []
    try:
        return [interceptor(_exporting())]
    except ImportError:
        log.warning("no traces are sent: install the extra `otel` (%s is set)", " or ".join(ENDPOINTS))
        return []


def interceptor(provider: Any) -> Interceptor:
    """For a provider of OpenTelemetry's SDK. Raises ImportError without the extra."""
    from temporalio.contrib.opentelemetry import TracingInterceptor

    return TracingInterceptor(provider.get_tracer(SERVICE))


@cache
def _exporting() -> Any:
    """One provider for the process; spans are sent in batches, the last ones when it exits."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    defaults = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE)})
    provider = TracerProvider(resource=defaults, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def flush() -> None:
    """Send what is left, before a process ends without its exit handlers (service/process_exit.py)."""
    if _exporting.cache_info().currsize:
        _exporting().shutdown()
