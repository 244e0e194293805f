"""What Temporal knows about a run and its workflow cannot say: attempts, last failures, pauses, code that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import (
    EventType,
    PendingActivityState,
    PendingWorkflowTaskState,
    WorkflowTaskFailedCause,
)
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.converter import ActivitySerializationContext, SerializationContext, WorkflowSerializationContext
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from model.serialization import span
from service.operation.pollers import advice, pollers

_ANSWER = timedelta(seconds=10)
_CHILDREN = 50
"""Running children that are examined: more servers are not upgraded at the same time."""
_EVENTS = 20
"""Newest events that are searched for the failure of a workflow task."""
_LONGEST = 500
UNTAKEN_AFTER = timedelta(seconds=5)
"""A worker that is there takes a task within milliseconds."""

_STATES = {
    PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED: "waiting",
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED: "running",
    PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED: "cancelling",
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED: "paused",
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED: "paused after this attempt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStep:
    """An activity that has not ended."""

    workflow_id: str
    activity_id: str
    name: str
    state: str
    """waiting | running | cancelling | paused | paused after this attempt"""
    attempt: int
    attempts: int
    """Temporal gives up after so many; 0: never."""
    since: datetime | None
    """When this attempt was started, or when it can be."""
    worker: str
    """That had the last attempt."""
    failure: str
    """Of the last attempt; one line."""
    hint: str = ""
    """What the failure says to do."""

    def is_untaken(self, now: datetime) -> bool:
        """Its first attempt could run, but no worker takes it."""
        return self.state == "waiting" and self.attempt <= 1 and now - (self.since or now) > UNTAKEN_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTask:
    """A workflow task: the next run of a workflow's code, which no worker takes, or which fails."""

    workflow_id: str
    run_id: str
    attempt: int
    since: datetime
    taken: bool
    cause: str = ""
    """Temporal's word for the failure, such as NON_DETERMINISTIC_ERROR."""
    failure: str = ""

    def is_untaken(self, now: datetime) -> bool:
        """No worker takes it."""
        return self.attempt == 1 and not self.taken and now - self.since > UNTAKEN_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Of a run and its running children."""

    at: datetime
    steps: tuple[PendingStep, ...] = ()
    tasks: tuple[PendingTask, ...] = ()
    advice: str = ""
    """About tasks and steps that no worker takes."""

    @property
    def untaken(self) -> bool:
        """Something waits for a worker for longer than it should."""
        return any(t.is_untaken(self.at) for t in self.tasks) or any(s.is_untaken(self.at) for s in self.steps)

    @property
    def needs_person(self) -> bool:
        """It does not continue by itself: paused steps, code that fails, work that no worker takes."""
        paused = any(step.state.startswith("paused") for step in self.steps)
        return paused or self.untaken or any(task.cause for task in self.tasks)


async def pending(client: Client, workflow_id: str, run_id: str = "") -> Pending:
    """Describe the run and its running children. What cannot be described is left out."""
    top = await _describe(client, workflow_id, run_id)
    if top is None:
        return Pending(at=datetime.now(UTC))
    children = [(c.workflow_id, c.run_id) for c in top.pending_children][:_CHILDREN]
    found = [top, *(d for d in await asyncio.gather(*(_describe(client, *child) for child in children)) if d)]
    tasks = await asyncio.gather(*(_task(client, one) for one in found))
    steps = [await _step(client, one, step) for one in found for step in one.pending_activities]
    answer = Pending(at=datetime.now(UTC), steps=tuple(steps), tasks=tuple(t for t in tasks if t))
    if not answer.untaken:
        return answer
    known = await pollers(client, task_queue=top.execution_config.task_queue.name)
    return replace(answer, advice=advice(known, answer.at))


def lines(found: Pending, release: str = "") -> Iterator[str]:
    """What a person should know: not the steps that simply run. `release` began the run."""
    for task in found.tasks:
        yield from _task_lines(task, found.at, release)
    for step in found.steps:
        yield from _step_lines(step, found.at)
    if found.advice:
        yield f"  next: {found.advice}"


# --- inside -----------------------------------------------------------------------------------------------------------


async def _describe(client: Client, workflow_id: str, run_id: str) -> DescribeWorkflowExecutionResponse | None:
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    request = DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution)
    try:
        return await client.workflow_service.describe_workflow_execution(request, timeout=_ANSWER)
    except RPCError:
        return None


async def _step(client: Client, of: DescribeWorkflowExecutionResponse, step: PendingActivityInfo) -> PendingStep:
    execution = of.workflow_execution_info.execution
    context = ActivitySerializationContext(
        namespace=client.namespace,
        activity_id=step.activity_id,
        activity_type=step.activity_type.name,
        activity_task_queue=None,
        workflow_id=execution.workflow_id,
        workflow_type=of.workflow_execution_info.type.name,
        is_local=False,
    )
    failure, hint = await _words(client, step.last_failure, context) if step.HasField("last_failure") else ("", "")
    waits = step.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    when = step.scheduled_time if waits else step.last_started_time
    return PendingStep(
        workflow_id=execution.workflow_id,
        activity_id=step.activity_id,
        name=step.activity_type.name,
        state="paused" if step.paused and waits else _STATES.get(step.state, "unknown"),
        attempt=step.attempt,
        attempts=step.maximum_attempts,
        since=when.ToDatetime(UTC) if when.seconds else None,
        worker=step.last_worker_identity,
        failure=failure,
        hint=hint,
    )


async def _words(client: Client, failure: Failure, context: SerializationContext) -> tuple[str, str]:
    """A failure's text and hint, each one bounded line."""
    copy = Failure()
    copy.CopyFrom(failure)
    error = await client.data_converter.with_context(context).decode_failure(copy)
    text = error.message if isinstance(error, ApplicationError) else str(error)
    details = error.details[0] if isinstance(error, ApplicationError) and error.details else {}
    hint = str(details.get("hint") or "") if isinstance(details, dict) else ""
    what = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return what[:_LONGEST], " ".join(hint.split())[:_LONGEST]


async def _task(client: Client, of: DescribeWorkflowExecutionResponse) -> PendingTask | None:
    if not of.HasField("pending_workflow_task"):
        return None
    task, execution = of.pending_workflow_task, of.workflow_execution_info.execution
    cause, failure = ("", "") if task.attempt < 2 else await _task_failure(client, execution)
    return PendingTask(
        workflow_id=execution.workflow_id,
        run_id=execution.run_id,
        attempt=task.attempt,
        since=task.original_scheduled_time.ToDatetime(UTC),
        taken=task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED,
        cause=cause,
        failure=failure,
    )


async def _task_failure(client: Client, execution: WorkflowExecution) -> tuple[str, str]:
    """Cause and text. Temporal records the first failure of a task; its further attempts leave no event."""
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace, execution=execution, maximum_page_size=_EVENTS
    )
    try:
        found = await client.workflow_service.get_workflow_execution_history_reverse(request, timeout=_ANSWER)
    except RPCError:
        return "", ""
    context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=execution.workflow_id)
    for event in found.history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            failed = event.workflow_task_failed_event_attributes
            name = WorkflowTaskFailedCause.Name(failed.cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
            words, _ = await _words(client, failed.failure, context)
            return name, words
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
            return "TIMED_OUT", "the worker that had taken it did not answer in time"
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            break
    return "", ""


def _task_lines(task: PendingTask, now: datetime, release: str) -> Iterable[str]:
    age = span(max(timedelta(), now - task.since))
    if task.attempt > 1:
        yield f"{task.workflow_id}: the workflow's code fails since {age} (attempt {task.attempt}): " + (
            task.failure or task.cause or "no reason is known yet"
        )
        began = f"release {release}, which began this run" if release else "the release that began this run"
        yield f"  next: read the worker's log. If another release was installed meanwhile, start a worker of {began}"
    elif task.is_untaken(now):
        yield f"{task.workflow_id}: no worker has taken the workflow's task for {age}"


def _step_lines(step: PendingStep, now: datetime) -> Iterable[str]:
    of = f" of {step.attempts}" if step.attempts else ""
    reference = f"-w {step.workflow_id} --activity-id {step.activity_id}"
    if step.state.startswith("paused"):
        yield f"{step.workflow_id}: {step.name} is {step.state} (attempt {step.attempt}{of}){_last(step)}"
        yield f"  next: temporal activity unpause {reference}"
    elif step.attempt > 1 and step.failure:
        when = (
            f", next in {span(step.since - now)}" if step.state == "waiting" and step.since and step.since > now else ""
        )
        yield f"{step.workflow_id}: {step.name} {step.state}, attempt {step.attempt}{of}{when}{_last(step)}"
        if step.hint:
            yield f"  next: {step.hint}"
        if when:
            yield f"  to try again now: temporal activity reset {reference}"
    elif step.since and step.is_untaken(now):
        yield f"{step.workflow_id}: no worker has taken {step.name} for {span(now - step.since)}"


def _last(step: PendingStep) -> str:
    by = f" (worker {step.worker})" if step.worker else ""
    return f"; last failure{by}: {step.failure}" if step.failure else ""
