"""Which release began a run, and refusal of runs whose workflow code this release does not have.

Clients write their release and the format of its histories into a header of each run, and workflows pass it to their
children. A worker that cannot continue a run says so in the failure of the workflow task, instead of a
non-determinism error; Temporal offers the task again until a worker of the right release takes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.client import OutboundInterceptor, StartWorkflowInput, WorkflowHandle
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from service.upgrades import WATCH_TYPE
from service.version import release

HEADER = "komodo-upgrade-release"
HISTORY_FORMAT = 1
"""Increased by a release whose workflow code cannot replay the histories of the one before."""
REPLAYED = (1,)
"""Formats that this release continues."""
_RELEASE = re.compile(r"[0-9A-Za-z.+-]{1,40}")


class ForeignRun(Exception):
    """Fails the workflow task, which Temporal offers again; never the run."""


class Releases(ClientInterceptor, Interceptor):
    """Of clients and workers."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        """Write the header."""
        return _Client(next)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002, ARG002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor]:
        """Read the header, and pass it on."""
        return _Inbound


class _Client(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002 - the SDK's name
        text = json.dumps({"release": release(), "format": HISTORY_FORMAT})
        payload = Payload(metadata={"encoding": b"json/plain"}, data=text.encode())
        input.headers = {**input.headers, HEADER: payload}
        return await super().start_workflow(input)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound, self))

    header: Payload | None = None

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002 - the SDK's name
        self.header = input.headers.get(HEADER)
        # A watch moves on to the newest release: its code keeps replaying the histories of all.
        if self.header is not None and workflow.info().workflow_type != WATCH_TYPE:
            _require_known(self.header)
        return await super().execute_workflow(input)


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, inbound: _Inbound) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._inbound = inbound

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:  # noqa: A002 - the SDK's name
        input.headers = self._with(input.headers)
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> Any:  # noqa: A002 - the SDK's name
        input.headers = self._with(input.headers)
        return super().continue_as_new(input)

    def _with(self, headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
        return headers if self._inbound.header is None else {**headers, HEADER: self._inbound.header}


def _require_known(header: Payload) -> None:
    """The header is not authenticated: it decides nothing but who may continue the run. Raises ForeignRun."""
    try:
        found = json.loads(header.data)
        begun_by, format_ = str(found["release"]), int(found["format"])
    except (ValueError, TypeError, KeyError):
        return
    if format_ in REPLAYED or not _RELEASE.fullmatch(begun_by):
        return
    known = ", ".join(map(str, REPLAYED))
    raise ForeignRun(
        f"release {begun_by} began this run (history format {format_}); this worker is of release {release()}, which "
        f"continues format {known} only: start a worker of release {begun_by}"
    )
