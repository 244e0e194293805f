"""Timeouts and retries of the activities, each with its reason. All are functions of the fleet's clocks."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

with workflow.unsafe.imports_passed_through():
    from model.fleet import Clocks

WINDOW = 50
"""Servers worked on at the same time: SSH sessions a worker holds, and far below Temporal's 2,000 pending children."""
UNDO_ROUND = 5
"""Attempts of an undo between two reports to people. There is no last round."""

_FORWARD_ATTEMPTS = 5
"""Enough to live through workers that are killed on the way; then a person decides."""
_LONGEST_PAUSE = timedelta(minutes=2)
_LONGEST_UNDO_PAUSE = timedelta(minutes=5)
_WAITED = ("NotProven", "CoreUnreachable")
"""Transient as errors go, but the step has already waited for its whole clock: now a person decides."""


def look(clocks: Clocks) -> ActivityConfig:
    """Re-checks. The heartbeat is the worker's word: one that was killed is missed after it, not after two minutes."""
    return ActivityConfig(
        start_to_close_timeout=max(timedelta(minutes=2), clocks.agent_ready),
        heartbeat_timeout=clocks.heartbeat,
        retry_policy=_forward(clocks),
    )


def check(clocks: Clocks) -> ActivityConfig:
    """Looks that may take long: digests of whole dumps, the checks at the end. The worker vouches for them."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(minutes=15), heartbeat_timeout=clocks.heartbeat, retry_policy=_forward(clocks)
    )


def survey(clocks: Clocks) -> ActivityConfig:
    """The first look: over slow links, at hosts nobody has talked to yet."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(minutes=5), heartbeat_timeout=clocks.heartbeat, retry_policy=_forward(clocks)
    )


def change(clocks: Clocks) -> ActivityConfig:
    """Steps that change something and wait for nothing: backups, files, stop."""
    return _mutate(clocks, timedelta(minutes=15))


def stage(clocks: Clocks) -> ActivityConfig:
    """Downloads: twice the longest honest one, because the worker may have to download first and then push."""
    return _mutate(clocks, 2 * clocks.download + timedelta(minutes=5))


def dump(clocks: Clocks) -> ActivityConfig:
    """Dumps and restores, with as much time again to read the database through."""
    return _mutate(clocks, 2 * clocks.dump + timedelta(minutes=10))


def start_core(clocks: Clocks) -> ActivityConfig:
    """Starting a Core, and whatever waits for it."""
    return _mutate(clocks, clocks.core_ready + timedelta(minutes=10), final=_WAITED)


def switch(clocks: Clocks) -> ActivityConfig:
    """Switching one agent: stop, rename, start, wait for its journal; the official script downloads besides."""
    return _mutate(clocks, clocks.download + clocks.agent_ready + timedelta(minutes=10), final=_WAITED)


def verify(clocks: Clocks, tick: timedelta) -> ActivityConfig:
    """Proof from Core's side; it polls by itself until `core_sees` is over, and then a person decides.

    `tick` is Core's monitoring interval: what was seen has to hold for one of them.
    """
    return _mutate(clocks, clocks.core_sees + 2 * tick + timedelta(minutes=5), final=_WAITED)


def undo(clocks: Clocks, rounds: int) -> ActivityConfig:
    """One round of an undo. Rounds follow each other without end; from the second on they are five minutes apart."""
    first = clocks.retry if rounds == 0 else max(clocks.retry, min(_LONGEST_UNDO_PAUSE, clocks.retry * 50))
    return ActivityConfig(
        start_to_close_timeout=clocks.core_ready + clocks.agent_ready + timedelta(minutes=20),
        heartbeat_timeout=clocks.heartbeat,
        retry_policy=RetryPolicy(
            initial_interval=first, maximum_interval=max(first, _LONGEST_UNDO_PAUSE), maximum_attempts=UNDO_ROUND
        ),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def undo_with_dump(clocks: Clocks, rounds: int) -> ActivityConfig:
    """The same where a dump is restored before the start."""
    longest = 2 * clocks.dump + clocks.core_ready + timedelta(minutes=20)
    return ActivityConfig(**{**undo(clocks, rounds), "start_to_close_timeout": longest})


def between_undos(clocks: Clocks, failed: int) -> timedelta:
    """The pause after so many undos that no retry of Temporal's could cure: a person may have made room meanwhile."""
    return min(_LONGEST_UNDO_PAUSE, clocks.retry * (1 << min(failed, 16)))


def notice(clocks: Clocks) -> ActivityConfig:
    """Messages to people. Nothing waits for them, and one that is lost is followed by a reminder."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(minutes=1),
        heartbeat_timeout=clocks.heartbeat,
        retry_policy=RetryPolicy(initial_interval=clocks.retry, maximum_attempts=3),
    )


def _mutate(clocks: Clocks, longest: timedelta, *, final: tuple[str, ...] = ()) -> ActivityConfig:
    """WAIT_CANCELLATION_COMPLETED: otherwise an undo would start beside the step that it undoes."""
    return ActivityConfig(
        start_to_close_timeout=longest,
        heartbeat_timeout=clocks.heartbeat,
        retry_policy=_forward(clocks, final),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def _forward(clocks: Clocks, final: tuple[str, ...] = ()) -> RetryPolicy:
    """`clocks.retry` is above the 5 s in which an attempt that timed out may still run beside the next one."""
    return RetryPolicy(
        initial_interval=clocks.retry,
        maximum_interval=max(clocks.retry, _LONGEST_PAUSE),
        maximum_attempts=_FORWARD_ATTEMPTS,
        non_retryable_error_types=list(final),
    )
