"""Runs that are reset: their owner continues them, an adversary gains no approval and no result by it."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue

from model.gates import Decision, Gate, Verdict
from model.status import FleetState
from service.client import Upgrade
from service.codec import key_ring
from tests.adversary.test_encrypted_runs import PROD, _events, _signals, adversary, encrypting_worker, ring, run, server
from tests.workflows.doubles import Doubles, fleet
from tests.workflows.driver import Driver, LocalServer, Talk
from workflows.upgrade_fleet import UpgradeFleet

__all__ = ["adversary", "ring", "run", "server"]
FIRST_TASK = 4


async def _reset(client: Client, event_id: int = 0) -> str:
    """As `temporal workflow reset --event-id`, by default at the last task of the workflow; drops later signals."""
    described = await client.get_workflow_handle(PROD).describe()
    tasks = [e.event_id for e in await _events(client, PROD) if e.HasField("workflow_task_completed_event_attributes")]
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=PROD, run_id=described.run_id),
            workflow_task_finish_event_id=event_id or tasks[-1],
            reset_reapply_exclude_types=[ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL],
            reason="test",
            request_id=f"{described.run_id}/{event_id}",
        )
    )
    return answer.run_id


def _talk(run: Driver, run_id: str) -> Talk:
    return Talk(run.client.get_workflow_handle_for(UpgradeFleet.run, PROD, run_id=run_id))


async def _approve(run: Driver, gate: Gate) -> None:
    """As the command does: for this run."""
    decision = Decision(gate=gate.id, verdict=Verdict.APPROVE, actor="ann", plan_digest=gate.plan_digest)
    assert (await Upgrade(run.client, "prod").decide(decision)).recorded


def _named(events: list[HistoryEvent], step: str) -> HistoryEvent:
    return next(e for e in events if e.activity_task_scheduled_event_attributes.activity_type.name == step)


@pytest.mark.parametrize("cached", [100, 0])
async def test_a_run_that_was_reset_at_a_gate_continues(
    server: LocalServer, ring: key_ring.KeyRing, cached: int
) -> None:
    """Steps and servers before and after the reset. Without a cache, every task replays all events."""
    async with encrypting_worker(server, ring, Doubles(), cached=cached) as run:
        talk = await run.upgrade(fleet(4))
        await _approve(run, await talk.gate("core"))
        await talk.answer("wave/2")
        await talk.gate("wave/3")
        await asyncio.sleep(2)  # the reset run must not count its age from the reset
        again = _talk(run, await _reset(run.client))
        assert [r.decision.gate for r in (await again.progress()).decisions] == ["core", "wave/2"]
        await _approve(run, await again.gate("wave/3"))
        await again.answer("wave/4")
        assert (await again.result()).state is FleetState.UPGRADED
        assert run.doubles.count("stop_core") == 1


@pytest.mark.parametrize("named", [False, True])
async def test_a_reset_repeats_no_approval(run: Driver, adversary: Client, named: bool) -> None:
    """The adversary resets without the later signals and sends the approval when the gate is open again."""
    talk = await run.upgrade(fleet(1))
    gate = await talk.gate("core")
    decision = Decision(gate="core", verdict=Verdict.APPROVE, actor="ann", plan_digest=gate.plan_digest)
    with_run = await Upgrade(run.client, "prod")._for_this_run(talk.handle, decision)
    await talk.handle.signal("decide", with_run if named else decision)
    assert (await talk.result()).state is FleetState.UPGRADED
    [recorded] = await _signals(adversary)
    await asyncio.sleep(1.1)
    again = _talk(run, await _reset(adversary, FIRST_TASK))
    await again.gate("core")
    await adversary.get_workflow_handle(PROD).signal("decide", RawValue(recorded))
    progress = await again.until(lambda p: any("before this run was reset" in w for w in p.warnings), "refused")
    assert progress.gate
    assert not progress.decisions
    assert run.doubles.count("stop_core") == 1


@pytest.mark.parametrize("source", ["the original run", "an earlier run"])
async def test_a_reset_run_accepts_no_result_of_another_run(run: Driver, adversary: Client, source: str) -> None:
    """The adversary completes a step after the reset with a result that was recorded."""
    talk = await run.upgrade(fleet(1))
    if source == "an earlier run":
        await talk.answer("core")
        await talk.result()
    else:
        await talk.gate("core")
    events = await _events(adversary, PROD)
    scheduled = _named(events, "survey_core")
    [recorded] = [
        e.activity_task_completed_event_attributes.result.payloads[0]
        for e in events
        if e.activity_task_completed_event_attributes.scheduled_event_id == scheduled.event_id
    ]
    if source == "an earlier run":
        talk = await run.upgrade(fleet(1), change="20261202T000000Z")
        await talk.gate("core")
    hold = run.doubles.hold("survey_core", "core")
    again = _talk(run, await _reset(adversary, FIRST_TASK))
    await asyncio.wait_for(hold.begun.wait(), 20)
    step = _named(await _events(adversary, PROD), "survey_core").activity_task_scheduled_event_attributes.activity_id
    forged = adversary.get_async_activity_handle(workflow_id=PROD, run_id=None, activity_id=step)
    await forged.complete(RawValue(recorded))
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(again.handle.result(), 20)
    assert "another run's activity made it" in str(failed.value.cause)
    hold.go.set()
