"""Replay a recorded history and compare every input that the workflow sends with the one in the history.

Temporal's own replayer compares types and ids, never inputs: a step sent to another server would go unseen.
Run as a program with history files; prints one line per difference.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHistory
from temporalio.worker import (
    Interceptor,
    Replayer,
    SignalChildWorkflowInput,
    StartActivityInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from service.codec.compression import expand
from service.payloads import data_converter
from worker import WORKFLOWS
from workflows.runtime.sandbox import sandboxed_runner

WORDS = ("markdown", "json", "subject", "text", "commands", "way_back", "detail")
"""Fields of SaveReport, Notice, Plan and ServerOutcome that hold them."""
CONVERTER = data_converter.payload_converter


@dataclass(frozen=True)
class Sent:
    """A command that a workflow sent, or that its history recorded."""

    kind: str
    name: str
    payloads: Sequence[Payload]
    types: Sequence[type] = ()

    def values(self, types: Sequence[type]) -> Any:
        """As today's types read and write it, so that a field which is new, with its default, is no difference."""
        today = CONVERTER.to_payloads(
            CONVERTER.from_payloads([expand(payload) for payload in self.payloads], list(types))
        )
        return [_without_words(json.loads(payload.data)) for payload in today]


def _without_words(value: Any) -> Any:
    """Texts may change at any time; the steps, their targets and their other inputs may not."""
    if isinstance(value, dict):
        return {key: _without_words(inner) for key, inner in value.items() if key not in WORDS}
    return [_without_words(inner) for inner in value] if isinstance(value, list) else value


class Recording(Interceptor):
    """Keeps the commands that a replayed workflow sends, in order."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002
        input.unsafe_extern_functions["keep_sent"] = self._keep
        return _Inbound

    def _keep(self, kind: str, name: str, args: Sequence[Any]) -> None:
        self.sent.append(Sent(kind, name, CONVERTER.to_payloads(args), [type(arg) for arg in args]))


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        _keep("activity", input.activity, input.args)
        return super().start_activity(input)

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:  # noqa: A002
        _keep("child", input.workflow, input.args)
        return await super().start_child_workflow(input)

    async def signal_child_workflow(self, input: SignalChildWorkflowInput) -> None:  # noqa: A002
        _keep("signal", input.signal, input.args)
        await super().signal_child_workflow(input)


def _keep(kind: str, name: str, args: Sequence[Any]) -> None:
    workflow.extern_functions()["keep_sent"](kind, name, args)


def recorded(history: WorkflowHistory) -> list[Sent]:
    """The commands that the history recorded."""
    sent: list[Sent] = []
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            activity = event.activity_task_scheduled_event_attributes
            sent.append(Sent("activity", activity.activity_type.name, activity.input.payloads))
        elif event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            child = event.start_child_workflow_execution_initiated_event_attributes
            sent.append(Sent("child", child.workflow_type.name, child.input.payloads))
        elif event.HasField("signal_external_workflow_execution_initiated_event_attributes"):
            signal = event.signal_external_workflow_execution_initiated_event_attributes
            sent.append(Sent("signal", signal.signal_name, signal.input.payloads))
    return sent


async def differences(text: str) -> list[str]:
    """One line per difference between a history and what today's code makes of it. Raises what Replayer finds."""
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    history = WorkflowHistory.from_json(started["workflowId"], text)
    recording = Recording()
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=data_converter,
        interceptors=[recording],
        workflow_runner=sandboxed_runner(),
    )
    await replayer.replay_workflow(history)
    wanted, got = recorded(history), recording.sent
    found = [] if len(wanted) == len(got) else [f"{len(got)} things sent, {len(wanted)} recorded"]
    for number, (then, now) in enumerate(zip(wanted, got, strict=False), start=1):
        if (then.kind, then.name) != (now.kind, now.name):
            found.append(f"#{number} was {then.kind} {then.name}, is {now.kind} {now.name}")
            continue
        before, after = then.values(now.types), now.values(now.types)
        if before != after:
            found.append(f"#{number} {now.kind} {now.name}: {_where(before, after)}")
    return found


def _where(then: Any, now: Any, path: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            if then.get(key) != now.get(key):
                return _where(then.get(key), now.get(key), f"{path}.{key}")
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (a, b) in enumerate(zip(then, now, strict=True)):
            if a != b:
                return _where(a, b, f"{path}[{index}]")
    return f"{path or 'input'}: {str(then)[:80]} -> {str(now)[:80]}"


async def main(paths: Sequence[str]) -> int:
    texts = {Path(path).name: Path(path).read_text() for path in paths}  # noqa: ASYNC240 - nothing else runs here
    lines = [f"{name}: {line}" for name, text in texts.items() for line in await differences(text)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
