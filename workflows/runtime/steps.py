"""How workflows call activities: by contract, in checked types, with the timeouts and retries of its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from activities.contracts import Contract, InputT, Message, Policy, ResultT
from model.fleet.spec import Timing
from model.steps import VerifyServer

_SUMMARY_BYTES = 190
"""Temporal keeps 200."""
WINDOW = 50
"""Servers worked on at the same time: SSH sessions a worker holds, and far below Temporal's 2,000 pending children."""
UNDO_ROUND = 5
"""Attempts of an undo between two notices to the operator. There is no last round."""

_FORWARD_ATTEMPTS = 5
"""Enough to survive workers that are killed meanwhile; then a person decides."""
_NOTICE_ATTEMPTS = 3
"""Nothing waits for a notice, and a lost one is followed by a reminder."""
_LONGEST_PAUSE = timedelta(minutes=2)
_LONGEST_UNDO_PAUSE = timedelta(minutes=5)
_WAITED = ["NotProven", "CoreUnreachable"]
"""Transient errors, but these steps have already waited for their whole time: a person decides."""

_LONGEST: dict[Policy, Callable[[Timing], timedelta]] = {
    # `agent_ready` is the longest that a short read waits for.
    Policy.RECHECK: lambda t: max(timedelta(minutes=2), t.agent_ready),
    # Digests of whole dumps, and all checks after an upgrade.
    Policy.CHECK: lambda _: timedelta(minutes=15),
    # Slow links, and hosts that were never connected to before.
    Policy.SURVEY: lambda _: timedelta(minutes=5),
    # Backups, files, stop: a slow disk at most.
    Policy.CHANGE: lambda _: timedelta(minutes=15),
    # Twice the longest download: the worker may have to download first and then push.
    Policy.STAGE: lambda t: 2 * t.download + timedelta(minutes=5),
    # As long again as the dump or restore, to read the database for its fingerprint.
    Policy.DUMP: lambda t: 2 * t.dump + timedelta(minutes=10),
    Policy.START_CORE: lambda t: t.core_ready + timedelta(minutes=10),
    # Stop, rename, start, wait for the journal; the official setup script also downloads.
    Policy.SWITCH: lambda t: t.download + t.agent_ready + timedelta(minutes=10),
    # The step polls by itself until `core_sees` is over; `config` adds Core's interval.
    Policy.VERIFY: lambda t: t.core_sees + timedelta(minutes=5),
    Policy.UNDO: lambda t: t.core_ready + t.agent_ready + timedelta(minutes=20),
    Policy.UNDO_WITH_DUMP: lambda t: 2 * t.dump + t.core_ready + timedelta(minutes=20),
    Policy.NOTICE: lambda _: timedelta(minutes=1),
}
_READS = (Policy.RECHECK, Policy.CHECK, Policy.SURVEY, Policy.NOTICE)
_WAITING = (Policy.START_CORE, Policy.SWITCH, Policy.VERIFY)


def config(policy: Policy, message: Message) -> ActivityConfig:
    """Of one call of a step with this input."""
    timing, longest = message.timing, _LONGEST[policy](message.timing)
    if isinstance(message, VerifyServer):
        # An observation has to hold for one of Core's intervals.
        longest += 2 * message.core.monitoring_interval
    # `timing.retry` is above the 5 s in which an attempt that timed out may still run next to the following one.
    retry = RetryPolicy(
        initial_interval=timing.retry,
        maximum_interval=max(timing.retry, _LONGEST_PAUSE),
        maximum_attempts=_NOTICE_ATTEMPTS if policy is Policy.NOTICE else _FORWARD_ATTEMPTS,
        non_retryable_error_types=_WAITED if policy in _WAITING else None,
    )
    return _config(policy, timing, longest, retry)


def undo(policy: Policy, timing: Timing, rounds: int) -> ActivityConfig:
    """Of one round of an undo. Rounds follow each other without end; from the second on they are minutes apart."""
    first = timing.retry if rounds == 0 else max(timing.retry, min(_LONGEST_UNDO_PAUSE, timing.retry * 50))
    retry = RetryPolicy(
        initial_interval=first, maximum_interval=max(first, _LONGEST_UNDO_PAUSE), maximum_attempts=UNDO_ROUND
    )
    return _config(policy, timing, max(_LONGEST[policy](timing), _LONGEST[Policy.UNDO](timing)), retry)


def between_undos(timing: Timing, failed: int) -> timedelta:
    """The pause after `failed` undos whose errors Temporal does not retry: a person may fix the cause meanwhile."""
    return min(_LONGEST_UNDO_PAUSE, timing.retry * (1 << min(failed, 16)))


def _config(policy: Policy, timing: Timing, longest: timedelta, retry: RetryPolicy) -> ActivityConfig:
    # A read may be left behind. A change is waited for: otherwise its undo would start while it still runs.
    config = ActivityConfig(start_to_close_timeout=longest, heartbeat_timeout=timing.heartbeat, retry_policy=retry)
    if policy not in _READS:
        config["cancellation_type"] = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
    return config


async def run_step(contract: Contract[InputT, ResultT], message: InputT) -> ResultT:
    """Run one activity. Raises FailureError when its attempts are used up, and when it is cancelled."""
    result = await _execute(contract, message, config(contract.policy, message))
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # The step ended before the cancel reached it, or did not notice it. Its result must not hide the cancel.
        raise asyncio.CancelledError
    return result


async def run_undo(contract: Contract[InputT, ResultT], message: InputT, rounds: int) -> ResultT:
    """One round of an undo; `rounds` counts those before it, which failed. Raises like `run_step`."""
    return await _execute(contract, message, undo(contract.policy, message.timing, rounds))


async def _execute(contract: Contract[InputT, ResultT], message: InputT, options: ActivityConfig) -> ResultT:
    summary = contract.describe(message).encode()[:_SUMMARY_BYTES].decode(errors="ignore")
    call: ActivityConfig = {**options, "summary": summary}
    result: ResultT = await workflow.execute_activity(contract.name, message, result_type=contract.result, **call)
    return result
