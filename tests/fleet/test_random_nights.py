"""Random nights on the simulated fleet, with its files: whatever breaks, a rollback leads back to the byte.

Only by `make invariants` (KU_NIGHTS): each takes half a minute. One that fails prints itself; pin it as an @example.
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

from cli.looking_back import folders
from model.decisions import Gate, Verdict
from model.errors import NoSuchUpgrade
from model.fleet import TASK_QUEUE, workflow_id
from model.progress import FleetState
from model.way_back import request_from_folders
from tests.fleet.conftest import PATIENCE, Fleet, serving
from tests.fleet.test_way_back import documents, files

NIGHTS = int(os.environ.get("KU_NIGHTS") or "20")
KEPT = ("Server", "Action", "Procedure", "User")
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
class Night:
    """What is switched on before the n-th gate is answered, how gates are answered, when the worker is killed."""

    faults: tuple[tuple[int, str], ...] = ()
    answers: tuple[int, ...] = ()
    """Which verdict of a gate, one after the other; then the first. Before a failure's gate all faults are mended."""
    kills: tuple[int, ...] = ()


NIGHT = st.builds(
    Night,
    faults=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(FAULTS))), min_size=1, max_size=3).map(tuple),
    answers=st.lists(st.integers(0, 2), max_size=4).map(tuple),
    kills=st.lists(st.integers(0, 4), max_size=2).map(tuple),
)


@settings(
    max_examples=max(1, NIGHTS // 20),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(NIGHT)
async def test_a_night(tmp_path_factory: pytest.TempPathFactory, temporal: Client, night: Night) -> None:
    async with serving(tmp_path_factory.mktemp("night"), temporal, 3) as fleet:
        fleet.spec = replace(fleet.spec, name=f"night-{time.time_ns()}")
        before, kept = files(fleet), documents(fleet)
        await fleet.worker()
        await fleet.start()
        await _spend(fleet, night)
        result = await fleet.handle.result()
        fleet.sandbox.heal()
        said = f"{night}\n{result.state}: {result.detail}"
        await _back(fleet)
        assert files(fleet) == before, said
        now = documents(fleet)
        assert {n: now[n] for n in KEPT} == {n: kept[n] for n in KEPT}, said
        assert fleet.sandbox.core is not None
        assert fleet.sandbox.core.version == "1.19.5", said
        for server in fleet.spec.servers:
            assert fleet.sandbox.agent_version(server.name) == "1.19.5", said
        _backups_are_originals(fleet, before, said)


async def _spend(fleet: Fleet, night: Night) -> None:
    """Answers everything until the upgrade has ended; kills and begins workers on the way."""
    answers, seen, end = list(night.answers), 0, time.monotonic() + 3 * PATIENCE
    done: set[str] = set()
    while (await fleet.handle.describe()).status is WorkflowExecutionStatus.RUNNING:
        assert time.monotonic() < end, f"{night}\n{await fleet.shown()}"
        gate = (await fleet.progress()).gate
        if gate is None or gate.id in done or gate.id.startswith("undo/"):
            await asyncio.sleep(0.3)
            continue
        done.add(gate.id)
        if gate.id.startswith("failure/"):
            fleet.sandbox.heal()
        for when, name in night.faults:
            if when == seen:
                host, options = FAULTS[name]
                fleet.sandbox.fault(name, host, **options)
        await fleet.decide(gate, _verdict(gate, answers))
        if seen in night.kills:
            fleet.workers[-1].kill()
            await fleet.workers[-1].process.wait()
            await fleet.worker()
        seen += 1


def _verdict(gate: Gate, answers: list[int]) -> Verdict:
    number = answers.pop(0) if answers and gate.id.startswith(("failure/", "wave/")) else 0
    return gate.verdicts[number % len(gate.verdicts)]


async def _back(fleet: Fleet) -> None:
    """From the folders on the hosts; nothing to do where all is back."""
    try:
        request = request_from_folders(fleet.spec, await folders(fleet.client, fleet.spec), requested_by="bob")
    except NoSuchUpgrade:
        return
    await fleet.client.start_workflow("RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE)
    result = await fleet.approve_all()
    assert result.state is FleetState.ROLLED_BACK, result.detail


def _backups_are_originals(fleet: Fleet, before: dict[str, str], said: str) -> None:
    for host in fleet.sandbox.hosts.values():
        for copy in (*host.root.glob("etc/komodo/*.bak_v1"), *host.root.glob("opt/**/*.bak_v1")):
            original = str(copy).removesuffix(".bak_v1")
            assert hashlib.sha256(Path(copy).read_bytes()).hexdigest() == before[original], f"{copy}\n{said}"
