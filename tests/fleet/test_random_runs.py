"""Random runs on the simulated fleet: whatever breaks, a rollback restores every byte.

Only by `make invariants` (KU_RUNS): each takes half a minute. A run that fails prints itself; pin it as an @example.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from temporalio.client import Client, WorkflowExecutionStatus

from model.errors import NoSuchUpgrade
from model.fleet.spec import TASK_QUEUE, workflow_id
from model.gates import Gate, Verdict
from model.rollback import request_from_folders
from model.status import FleetState
from service.requests import folders
from tests.fleet.conftest import PATIENCE, Fleet, serving
from tests.fleet.test_rollback import KEPT, core_and_agents_are_old, documents, files

RUNS = int(os.environ.get("KU_RUNS") or "20")
FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "crash-loop": ("web-1", {}),
    "agent-ignores-config": ("web-1", {}),
    "start-fails": ("web-1", {"version": "1", "times": 3}),
    "disk-full": ("web-1", {"at": 4}),
    "read-only": ("web-1", {"path": "etc"}),
    "wrong-key": ("web-1", {"stale": 2}),
    "connection-drop": ("core", {"at": 3, "times": 1}),
    "clock-jump": ("web-1", {}),
    "dump-fails": ("core", {"times": 1}),
    "dump-truncated": ("core", {"times": 1}),
    "up-keeps-old": ("core", {"times": 1}),
    "up-does-nothing": ("core", {"times": 1}),
    "restore-fails": ("core", {"times": 1}),
    "download-403": ("web-1", {"times": 1}),
}


@dataclass(frozen=True)
class RandomRun:
    """Faults before the n-th gate is answered, how gates are answered, and when the worker is killed."""

    faults: tuple[tuple[int, str], ...] = ()
    answers: tuple[int, ...] = ()
    """Which verdict of each gate; then the first. All faults are removed before the gate of a failure is answered."""
    kills: tuple[int, ...] = ()


RANDOM_RUN = st.builds(
    RandomRun,
    faults=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(FAULTS))), min_size=1, max_size=3).map(tuple),
    answers=st.lists(st.integers(0, 2), max_size=4).map(tuple),
    kills=st.lists(st.integers(0, 4), max_size=2).map(tuple),
)


@settings(
    max_examples=max(1, RUNS // 20),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(RANDOM_RUN)
async def test_a_random_run_can_be_rolled_back(
    tmp_path_factory: pytest.TempPathFactory, temporal: Client, run: RandomRun
) -> None:
    async with serving(tmp_path_factory.mktemp("run"), temporal, 3) as fleet:
        fleet.spec = replace(fleet.spec, name=f"run-{time.time_ns()}")
        before, kept = files(fleet), documents(fleet)
        await fleet.worker()
        await fleet.start()
        await _play(fleet, run)
        result = await fleet.handle.result()
        fleet.sandbox.heal()
        shown = f"{run}\n{result.state}: {result.detail}"
        await _roll_back(fleet)
        assert files(fleet) == before, shown
        now = documents(fleet)
        assert {n: now[n] for n in KEPT} == {n: kept[n] for n in KEPT}, shown
        core_and_agents_are_old(fleet)
        _backups_are_originals(fleet, before, shown)


async def _play(fleet: Fleet, run: RandomRun) -> None:
    """Answer everything until the upgrade has ended; kill and start workers meanwhile."""
    answers, seen, end = list(run.answers), 0, time.monotonic() + 3 * PATIENCE
    done: set[str] = set()
    while (await fleet.handle.describe()).status is WorkflowExecutionStatus.RUNNING:
        assert time.monotonic() < end, f"{run}\n{await fleet.shown()}"
        gate = (await fleet.progress()).gate
        if gate is None or gate.id in done or gate.id.startswith("undo/"):
            await asyncio.sleep(0.3)
            continue
        done.add(gate.id)
        if gate.id.startswith("failure/"):
            fleet.sandbox.heal()
        for when, name in run.faults:
            if when == seen:
                host, options = FAULTS[name]
                fleet.sandbox.fault(name, host, **options)
        await fleet.decide(gate, _verdict(gate, answers))
        if seen in run.kills:
            fleet.workers[-1].kill()
            await fleet.workers[-1].process.wait()
            await fleet.worker()
        seen += 1


def _verdict(gate: Gate, answers: list[int]) -> Verdict:
    number = answers.pop(0) if answers and gate.id.startswith(("failure/", "wave/")) else 0
    return gate.verdicts[number % len(gate.verdicts)]


async def _roll_back(fleet: Fleet) -> None:
    """Roll back from the folders on the hosts, unless there is nothing to roll back."""
    try:
        request = request_from_folders(fleet.spec, await folders(fleet.client, fleet.spec), requested_by="bob")
    except NoSuchUpgrade:
        return
    await fleet.client.start_workflow("RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE)
    result = await fleet.approve_all()
    assert result.state is FleetState.ROLLED_BACK, result.detail


def _backups_are_originals(fleet: Fleet, before: dict[str, str], shown: str) -> None:
    for host in fleet.sandbox.hosts.values():
        for copy in (*host.root.glob("etc/komodo/*.bak_v1"), *host.root.glob("opt/**/*.bak_v1")):
            original = str(copy).removesuffix(".bak_v1")
            assert hashlib.sha256(Path(copy).read_bytes()).hexdigest() == before[original], f"{copy}\n{shown}"
