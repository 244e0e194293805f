"""A fleet of more servers than a page: child workflows do the steps, and everything else works as in a small one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import is_cancelled_exception

from model.facts import Severity
from model.fleet.spec import FleetSpec
from model.gates import ControlVerb, Verdict
from model.planning import make_plan
from model.rollback import by_reference, rollback_request
from model.status import FleetState, ServerState
from tests.workflows.doubles import CHANGE, Doubles, broken, core_facts, fleet, server_facts, together_fleet
from tests.workflows.driver import PATIENCE, Driver
from workflows.runtime import steps

FLEET = "komodo-upgrade/prod"


def paged(servers: int = 5, page: int = 2, **rollout: Any) -> FleetSpec:
    return replace(fleet(servers, **rollout), page=page)


async def _pages(run: Driver, step: str) -> list[str]:
    query = "WorkflowType = 'ServerPage' AND ExecutionStatus = 'Running'"
    return [found.id async for found in run.client.list_workflows(query) if f"page_{step}/" in found.id]


async def test_failures_in_pages_open_gates_and_a_retry_upgrades(run_real: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    doubles.play("back_up_server", "web-2", broken("CommandFailed", "no space"))
    doubles.play("switch_server", "web-3", broken("ConfigNotLoaded", "it is open to anyone"))
    talk = await run_real.upgrade(paged(wave="4"))
    await talk.answer("failure/web-2/1", Verdict.RETRY)
    await talk.answer("core")
    gate = await talk.answer("wave/2")
    assert "web-2, web-3, web-4, web-5" in gate.question
    await talk.answer("failure/web-3/1", Verdict.RETRY)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert {o.name: (o.attempt, o.state) for o in result.servers}["web-3"] == (2, ServerState.UPGRADED)
    assert all(o.proof and o.backup for o in result.servers)
    events = [event async for event in talk.handle.fetch_history_events()]
    children = {
        event.start_child_workflow_execution_initiated_event_attributes.workflow_type.name for event in events
    } - {""}
    assert children == {"ServerPage", "UpgradeServer"}, "the canary, Core's own agent and a retry need no page"
    steps = {event.activity_task_scheduled_event_attributes.activity_type.name for event in events}
    assert "recheck_core" in steps
    assert "recheck_server" not in steps


async def test_stop_holds_the_pages_that_have_not_begun(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-2")
    talk = await run_real.upgrade(paged(approve="core-only", wave="4"))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), PATIENCE)
    await talk.control(ControlVerb.STOP)
    hold.go.set()
    result = await talk.result()
    states = {o.name: o.state for o in result.servers}
    assert (states["web-2"], states["web-3"]) == (ServerState.UPGRADED, ServerState.UPGRADED), "they had begun"
    assert (states["web-4"], states["web-5"]) == (ServerState.STOPPED, ServerState.STOPPED)
    assert doubles.count("release_host") == 6


async def test_terminate_undoes_what_a_page_switches(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("verify_server", "web-2")
    talk = await run_real.upgrade(paged(approve="core-only", wave="4"))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), PATIENCE)
    await talk.handle.terminate()
    child = run_real.client.get_workflow_handle(f"{FLEET}/web-2/1")
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(child.result(), PATIENCE)
    assert is_cancelled_exception(failed.value.cause)
    assert doubles.count("restore_server", "web-2") == 1


async def test_cancelling_a_page_restores_its_servers(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("verify_server", "web-2")
    talk = await run_real.upgrade(paged(approve="core-only", wave="4"))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), PATIENCE)
    [page] = await _pages(run_real, "upgrade")
    await run_real.client.get_workflow_handle(page).cancel()
    gate = await talk.gate("failure/web-2/1")
    assert any("cancelled from Temporal" in fact for fact in gate.facts), gate.facts
    assert doubles.count("restore_server", "web-2") >= 1
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    assert {o.name: o.state for o in result.servers}["web-2"] is ServerState.LEFT_ON_V1


async def test_a_rollback_in_pages_continues_the_undo_that_a_page_could_not_do(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(paged(wave="4"))
    await talk.answer("core")
    await talk.gate("wave/2")
    errors = [broken("CommandFailed", "a disk is missing", transient=True)] * (steps.UNDO_ROUND + 1)
    doubles.play("restore_server", "web-1", *errors)
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert doubles.count("restore_server", "web-1") == len(errors) + 1


async def test_a_rollback_alone_in_pages(run: Driver, doubles: Doubles) -> None:
    spec = paged(approve="core-only", wave="4")
    upgrade = await run.upgrade(spec)
    await upgrade.answer("core")
    request = by_reference(rollback_request(await upgrade.result(), spec))
    assert not request.by_reference
    back = await run.rollback(request)
    await back.answer("rollback/1")
    result = await back.result()
    assert result.state is FleetState.ROLLED_BACK
    assert [doubles.count(name) for name in ("restore_server", "check_server_rollback")] == [5, 10]
    assert all(o.proof for o in result.servers)


@pytest.mark.parametrize("page", [2, 50])
async def test_a_rollback_of_servers_alone_returns_their_addresses(run: Driver, doubles: Doubles, page: int) -> None:
    doubles.core = core_facts(current=True)
    for name in ("web-1", "web-2", "web-3"):
        facts = replace(server_facts(name), version="2.0.0", connect_to="https://core.example.net")
        doubles.servers[name] = facts
    spec = paged(3, page, approve="core-only", wave="4")
    upgrade = await run.upgrade(spec)
    await upgrade.answer("wave/1")
    back = await run.rollback(rollback_request(await upgrade.result(), spec))
    await back.answer("rollback/1")
    result = await back.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    steps = doubles.inputs("restore_server")
    assert len(steps) == 3
    assert all(step.core for step in steps)


async def test_all_at_once_in_pages(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    doubles.play("verify_server", "web-3", broken("NotProven", "not seen"))
    talk = await run.upgrade(replace(together_fleet(4), page=2))
    await talk.answer("core")
    await talk.answer("failure/web-3/1", Verdict.SKIP)
    result = await talk.result()
    assert result.state is FleetState.INCOMPLETE
    states = [o.state for o in result.servers]
    assert (states.count(ServerState.UPGRADED), states.count(ServerState.UNVERIFIED)) == (4, 1)


async def test_a_worker_without_memory_continues_pages(real: object, doubles: Doubles) -> None:
    async with Driver.plain(real, doubles, forgetful=True) as run:  # type: ignore[arg-type]
        talk = await run.upgrade(paged(approve="core-only", wave="4"))
        await talk.answer("core")
        assert (await talk.result()).state is FleetState.UPGRADED


@pytest.mark.parametrize(
    ("servers", "wave", "severity"), [(250, "1", None), (400, "1", Severity.WARN), (1_100, "1", Severity.REFUSE)]
)
def test_a_rollout_of_very_many_waves_is_reported(servers: int, wave: str, severity: Severity | None) -> None:
    spec = fleet(servers, wave=wave)
    plan = make_plan(spec, CHANGE, core_facts(), {s.name: server_facts(s.name) for s in spec.servers})
    assert [f.severity for f in plan.findings if f.code == "many-waves"] == ([severity] if severity else [])
