"""One server that fails: left on v1, unverified, retried, skipped, rolled back; and how many may."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from temporalio.client import WorkflowExecutionStatus

from activities.interceptor import translate
from model.errors import ConfigNotLoaded
from model.gates import Verdict
from model.status import FleetState, ServerProgress, ServerState
from model.steps import Recheck
from tests.workflows.doubles import NEW, OLD, Doubles, broken, fleet, refusal, server_facts
from tests.workflows.driver import Driver


async def test_a_canary_whose_config_was_not_loaded_is_restored_at_once(run: Driver, doubles: Doubles) -> None:
    left = "binary and config of 2.3.2 are in place, periphery.service is active"
    error = ConfigNotLoaded("it is open to anyone", host="web-1", residue=left, hint="is there a second config?")
    doubles.play("switch_server", "web-1", translate(error))
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    gate = await talk.gate("failure/web-1/1")
    assert "left behind" not in gate.facts[0], "it was restored"
    assert "next: is there a second config?" in gate.facts[0]
    assert gate.verdicts == (Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP)
    assert "it is open to anyone" in gate.facts[0]
    assert "left on v1" in gate.facts[0]
    assert doubles.steps("web-1")[-2:] == ["switch_server", "restore_server"]
    assert doubles.count("switch_server", "web-2") == 0
    waiting = (await talk.progress()).servers[0]
    assert waiting.state is ServerState.WAITING

    await talk.answer("failure/web-1/1", Verdict.RETRY)
    await talk.answer("wave/2")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [(o.state, o.attempt) for o in result.servers] == [(ServerState.UPGRADED, 2), (ServerState.UPGRADED, 1)]
    assert [s.op.attempt for s in doubles.inputs("stage_server") if s.server.name == "web-1"] == [1, 2]
    assert doubles.count("back_up_server", "web-1") == 1, "nothing had changed, so the first backup is still the one"


async def test_skip_and_rollback_leave_it_on_v1(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", broken("AgentNotStarted", "it exits at once"))
    doubles.play("verify_server", "web-2", broken("NotProven", "Core has not seen it", transient=True))
    talk = await run.upgrade(fleet(3))
    await talk.answer("core")
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    await talk.answer("wave/2")
    gate = await talk.answer("failure/web-2/1", Verdict.ROLLBACK)
    assert "web-2: unverified" in gate.facts[0]
    assert doubles.count("verify_server", "web-2") == 1, "it had waited for its whole clock"
    gate = await talk.answer("wave/3")
    assert any(f.startswith("web-2: left on v1") for f in gate.facts)
    result = await talk.result()
    assert result.state is FleetState.INCOMPLETE
    assert [o.state for o in result.servers] == [ServerState.LEFT_ON_V1, ServerState.LEFT_ON_V1, ServerState.UPGRADED]
    assert "skipped by ann" in result.servers[0].detail
    assert "rolled back by ann: on 1.19.5, unreachable from v2 Core" in result.servers[1].detail
    assert doubles.count("restore_server", "web-2") == 1
    assert "web-1 (left on v1), web-2 (left on v1)" in result.detail


async def test_an_unverified_server_stays_and_its_retry_compares_nothing(run: Driver, doubles: Doubles) -> None:
    doubles.play("verify_server", "web-1", broken("NotProven", "Core has not seen it", transient=True))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    assert doubles.count("restore_server") == 0, "a v1 agent cannot talk to v2 Core anyway"
    rechecks = doubles.count("recheck_server", "web-1")
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.count("recheck_server", "web-1") == rechecks
    assert doubles.count("back_up_server", "web-1") == 1, "a backup now would save the v2 binary for the rollback"
    assert [s.op.attempt for s in doubles.inputs("switch_server")] == [1, 2]


async def test_what_a_person_corrected_before_retry_is_planned_and_saved_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", broken("ConfigNotLoaded"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.gate("failure/web-1/1")
    doubles.servers["web-1"] = replace(server_facts("web-1"), findings=(refusal("web-1", "still broken"),))
    await talk.answer("failure/web-1/1", Verdict.RETRY)
    gate = await talk.gate("failure/web-1/2")
    assert "still broken" in gate.facts[0]
    assert doubles.count("switch_server", "web-1") == 1
    doubles.servers["web-1"] = server_facts("web-1", binary="corrected")
    await talk.answer("failure/web-1/2", Verdict.RETRY)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [s.op.attempt for s in doubles.inputs("back_up_server")] == [1, 3]
    assert doubles.inputs("switch_server")[-1].facts.binary_sha256 == "corrected"
    assert any("changed after the approval" in w.text for w in result.warnings)


async def test_drift_found_by_the_server_itself_switches_nothing(run: Driver, doubles: Doubles) -> None:
    drift = Recheck(drift=("config edited",))
    doubles.play("recheck_server", "web-1", None, drift, drift)
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    await talk.answer("core")
    # The first drift: only the staged binary is gone, so it is staged again.
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.count("stage_server", "web-1") == 2


async def test_drift_of_the_files_is_not_switched_over(run: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("start_core", "core")
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await hold.begun.wait()
    doubles.play("recheck_server", "web-1", Recheck(drift=("config edited",)))
    doubles.servers["web-1"] = server_facts("web-1", binary="other")
    hold.go.set()
    gate = await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert "changed since the approval: config edited" in gate.facts[0]
    result = await talk.result()
    assert result.servers[0].error_type == "PlanChanged"
    assert doubles.count("switch_server") == doubles.count("restore_server") == 0


async def test_go_on_up_to_max_failures_then_ask(run: Driver, doubles: Doubles) -> None:
    for name in ("web-1", "web-3"):
        doubles.play("switch_server", name, broken("AgentNotStarted", "it exits"))
    talk = await run.upgrade(fleet(4, approve="core-only", on_failure="continue", max_failures=1))
    await talk.answer("core")
    await talk.answer("failure/web-3/1", Verdict.SKIP)
    result = await talk.result()
    assert result.state is FleetState.INCOMPLETE
    assert [o.state for o in result.servers] == [
        ServerState.LEFT_ON_V1,
        ServerState.UPGRADED,
        ServerState.LEFT_ON_V1,
        ServerState.UPGRADED,
    ]
    assert any("within max_failures" in w.text for w in result.warnings)


async def test_an_undo_that_only_a_person_can_help_is_reported_at_once_and_continues(
    run: Driver, doubles: Doubles
) -> None:
    doubles.play("switch_server", "web-1", broken("AgentNotStarted", "it exits"))
    doubles.play("restore_server", "web-1", *[broken("PermissionRefused", "read-only")] * 4)
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    gate = await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert gate.facts[0] == "web-1: left on v1: it exits\nrestored in the end: on 1.19.5, unreachable from v2 Core"
    result = await talk.result()
    assert result.servers[0].state is ServerState.LEFT_ON_V1
    assert doubles.count("restore_server") == 5
    reported = [n.text for n in doubles.notices if "an undo does not work yet" in n.subject]
    assert "tried once, still trying: read-only; by hand on web-1.example.net: sudo sh" in reported[0]


async def test_a_dead_host_waits_is_retried_and_may_be_abandoned(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", broken("AgentNotStarted", "it exits"))
    doubles.play("restore_server", "web-1", *[broken("Unreachable", "no route", transient=True)] * 500)
    talk = await run.upgrade(fleet(2))
    await talk.answer("core")
    shown = await talk.until(lambda p: p.servers[0].state is ServerState.WAITING, "waiting")
    assert "still trying: no route; by hand on web-1.example.net: sudo sh" in shown.servers[0].step
    await talk.answer("undo/web-1/1", Verdict.SKIP)
    await talk.answer("wave/2")
    result = await talk.result()
    assert result.state is FleetState.INCOMPLETE
    assert [o.state for o in result.servers] == [ServerState.ROLLBACK_INCOMPLETE, ServerState.UPGRADED]
    for words in ("it exits", "given up by ann", "no route", "by hand on web-1.example.net", "restore.sh"):
        assert words in result.servers[0].detail
    assert [r.decision.gate for r in result.decisions] == ["core", "undo/web-1/1", "wave/2"], "asked once"


async def test_an_undo_that_the_fleet_goes_on_with_ends_as_any_other(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", broken("AgentNotStarted", "it exits"))
    doubles.play("restore_server", "web-1", *[broken("Unreachable", "no route", transient=True)] * 12)
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    gate = await talk.answer("failure/web-1/1", Verdict.SKIP)
    assert "it exits" in gate.facts[0]
    result = await talk.result()
    assert result.servers[0].state is ServerState.LEFT_ON_V1
    assert doubles.count("restore_server") == 13


async def test_a_transient_failure_is_nobodys_business(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-1", *[broken("Unreachable", "link lost", transient=True)] * 3)
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert (doubles.count("switch_server"), doubles.count("restore_server")) == (4, 0)
    assert result.servers[0].attempt == 1


async def test_a_wave_runs_at_the_same_time_and_the_child_tells_its_step(run: Driver, doubles: Doubles) -> None:
    holds = [doubles.hold("switch_server", f"web-{i}") for i in (2, 3)]
    talk = await run.upgrade(fleet(3, approve="core-only", wave="2"))
    await talk.answer("core")
    await asyncio.wait_for(asyncio.gather(*(h.begun.wait() for h in holds)), 20)
    progress = await talk.progress()
    assert [s.state for s in progress.servers[1:]] == [ServerState.UPGRADING] * 2
    child = run.client.get_workflow_handle(progress.servers[1].workflow_id)
    assert child.id == "komodo-upgrade/prod/web-2/1"
    line = await child.query("server_progress", result_type=ServerProgress)
    assert line.step == "switching"
    for hold in holds:
        hold.go.set()
    assert (await talk.result()).state is FleetState.UPGRADED


# --- cancelled and terminated, on a real server -----------------------------------------------------------------------


async def test_a_terminated_upgrade_still_undoes_the_server_in_the_middle(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-1")
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.terminate("a person in a hurry")
    child = run_real.client.get_workflow_handle("komodo-upgrade/prod/web-1/1")
    for _ in range(200):
        if (await child.describe()).status is WorkflowExecutionStatus.CANCELED:
            break
        await asyncio.sleep(0.1)
    assert (await child.describe()).status is WorkflowExecutionStatus.CANCELED
    assert hold.cancelled
    assert doubles.steps("web-1")[-2:] == ["switch_server", "restore_server"], (
        "the undo runs after the step, not during it"
    )
    result = await talk.result_now()
    assert result.core_begun
    assert result.servers[0].backup, "what a rollback needs can still be asked of it"


@pytest.mark.parametrize("step", ["switch_server", "verify_server"])
async def test_a_server_cancelled_by_itself_is_restored(run_real: Driver, doubles: Doubles, step: str) -> None:
    hold = doubles.hold(step, "web-1")
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await run_real.client.get_workflow_handle("komodo-upgrade/prod/web-1/1").cancel()
    await talk.answer("failure/web-1/1", Verdict.SKIP)
    result = await talk.result()
    [outcome] = result.servers
    assert (outcome.state, outcome.version_after) == (ServerState.LEFT_ON_V1, OLD)
    assert "cancelled from Temporal" in outcome.detail


async def test_a_server_terminated_by_itself_is_not_known(run_real: Driver, doubles: Doubles) -> None:
    hold = doubles.hold("switch_server", "web-1")
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await run_real.client.get_workflow_handle("komodo-upgrade/prod/web-1/1").terminate()
    gate = await talk.answer("failure/web-1/1", Verdict.RETRY)
    assert "what runs there is unknown" in gate.facts[0]
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert result.servers[0].version_after == NEW


async def test_a_connection_that_core_does_not_confirm_is_undone(run: Driver, doubles: Doubles) -> None:
    """The server stays upgraded, with the connection that it had, and a person decides."""
    facts = replace(server_facts("web-1"), connect_to="wss://komodo.example.net")
    doubles.servers["web-1"] = facts
    doubles.core = replace(doubles.core, api=True)
    doubles.play("verify_server", "web-1", None, broken("NotProven", "no login to Core"))
    doubles.play("disconnect_server", "web-1", broken("Unreachable", "no route", transient=True))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    gate = await talk.answer("failure/web-1/1", Verdict.RETRY)
    assert "Core connects to it as before. It did not connect to Core: " in gate.facts[0]
    assert "no login to Core" in gate.facts[0]
    result = await talk.result()
    assert [o.state for o in result.servers] == [ServerState.UPGRADED]
    steps = [step for step in doubles.steps("web-1") if "connect" in step or step == "verify_server"]
    once = ["verify_server", "connect_server", "verify_server"]
    assert steps == [*once, "disconnect_server", "disconnect_server", *once]
