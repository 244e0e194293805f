"""Failures of steps, and how a run handles them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from activities.interceptor import translate
from model.errors import ConfigNotLoaded
from model.fleet.spec import DatabasePolicy, ProofPolicy, slug
from model.gates import ControlVerb, Verdict
from model.rollback import rollback_request
from model.status import FleetState, ServerState
from model.steps import Recheck
from tests.workflows.doubles import NEW, OLD, QUICK, Doubles, broken, core_facts, fleet, refusal, server_facts
from tests.workflows.driver import Driver

# --- before Core's switch ---------------------------------------------------------------------------------------------


async def test_a_server_that_cannot_be_staged_is_retried_or_left_on_v1(run: Driver, doubles: Doubles) -> None:
    doubles.play("stage_server", "web-2", broken("DiskFull", "web-2: no space"), broken("DiskFull", "still none"))
    doubles.play("back_up_server", "web-3", broken("SudoFailed", "web-3: sudo wants a password"))
    talk = await run.upgrade(fleet(3))
    gate = await talk.answer("failure/web-3/1", Verdict.RETRY)
    assert gate.verdicts == (Verdict.RETRY, Verdict.SKIP)
    assert gate.facts[0] == "web-3: sudo wants a password"
    await talk.answer("failure/web-2/1", Verdict.RETRY)
    await talk.answer("failure/web-2/2", Verdict.SKIP)
    gate = await talk.answer("core")
    assert any("left on v1" in fact and "web-2 (skipped by ann" in fact for fact in gate.facts)
    await talk.answer("wave/2")
    result = await talk.result()
    assert result.state is FleetState.INCOMPLETE
    assert [o.state for o in result.servers] == [ServerState.UPGRADED, ServerState.LEFT_ON_V1, ServerState.UPGRADED]
    assert [s.op.attempt for s in doubles.inputs("back_up_server") if s.server.name == "web-3"] == [1, 2]
    assert doubles.count("switch_server", "web-2") == 0


async def test_what_changed_after_the_approval_is_planned_and_asked_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_server", "web-1", Recheck(drift=("periphery.config.toml was edited",)))
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    doubles.servers["web-1"] = server_facts("web-1", binary="other")
    first = await talk.answer("core")
    second = await talk.gate("core/2")
    assert second.plan_digest != first.plan_digest
    assert "changed since the last plan: web-1: periphery.config.toml was edited" in second.facts
    assert doubles.count("stop_core") == 0
    await talk.decide("core/2", plan_digest=first.plan_digest)
    await talk.until(lambda p: len(p.warnings) == 1, "the old plan's approval was refused")
    await talk.answer("core/2")
    await talk.answer("wave/2")
    assert (await talk.result()).state is FleetState.UPGRADED
    assert [s.op.attempt for s in doubles.inputs("back_up_server") if s.server.name == "web-1"] == [1, 2]
    assert [s.op.attempt for s in doubles.inputs("stage_server") if s.server.name == "web-2"] == [1]
    switched = doubles.inputs("switch_server")[0]
    assert (switched.facts.binary_sha256, switched.staged.sha256) == ("other", "v2-2")


async def test_a_server_that_refuses_late_can_be_left_behind(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_server", "web-2", broken("Unreachable", "web-2 does not answer"))
    talk = await run.upgrade(fleet(2))
    await talk.gate("core")
    doubles.servers["web-2"] = replace(server_facts("web-2"), findings=(refusal("web-2", "unreachable"),))
    await talk.answer("core")
    await talk.answer("failure/web-2/1", Verdict.SKIP)
    gate = await talk.answer("core/2")
    assert any("web-2 does not answer" in fact for fact in gate.facts)
    result = await talk.result()
    assert [o.state for o in result.servers] == [ServerState.UPGRADED, ServerState.LEFT_ON_V1]


async def test_updates_in_progress_are_waited_for_then_asked_about(run: Driver, doubles: Doubles) -> None:
    busy = Recheck(busy=("DeployStack web",))
    doubles.play("recheck_core", "core", *[busy] * 3)
    timing = replace(QUICK, update_wait=timedelta(seconds=3))
    talk = await run.upgrade(fleet(1, timing=timing))
    await talk.answer("core")
    gate = await talk.gate("core/2")
    assert gate.verdicts == (Verdict.RETRY, Verdict.APPROVE, Verdict.REJECT)
    assert any("DeployStack web" in fact for fact in gate.facts)
    assert doubles.count("stop_core") == 0
    doubles.play("recheck_core", "core", busy)
    await talk.answer("core/2")  # all the same
    assert (await talk.result()).state is FleetState.UPGRADED


# --- Core -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["stop_core", "dump_database", "write_core_files"])
async def test_until_v2_is_started_core_undoes_itself(run: Driver, doubles: Doubles, step: str) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play(step, "core", broken("DumpRejected", "counts differ"))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert "counts differ" in result.detail
    assert "Core 1.19.5 runs again; nothing was upgraded" in result.detail
    steps = doubles.steps("core")
    assert ("restore_core_files" in steps) == (step == "write_core_files")
    undo = [n for n in steps if n in ("restore_core_files", "start_old_core")]
    assert undo[-1] == "start_old_core"
    assert doubles.count("start_core") == doubles.count("restore_database") == doubles.count("switch_server") == 0


async def test_an_undo_is_repeated_until_it_works_and_people_hear_of_it(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play("dump_database", "core", broken("DumpRejected"))
    doubles.play("start_old_core", "core", *[broken("Unreachable", "link lost", transient=True)] * 12)
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.STOPPED
    assert doubles.count("start_old_core") == 13
    reported = [n for n in doubles.notices if "an undo does not work yet" in n.subject]
    assert ["tried 5 times" in n.text for n in reported] == [True, False]
    assert "link lost" in reported[0].text


async def test_cores_undo_may_be_given_up_too(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play("dump_database", "core", broken("DumpRejected"))
    doubles.play("start_old_core", "core", *[broken("Unreachable", "link lost", transient=True)] * 500)
    await talk.answer("core")
    shown = await talk.until(lambda p: p.core.state is ServerState.WAITING, "waiting")
    assert "restore.sh" in shown.core.step
    await talk.answer("undo/core/1", Verdict.SKIP)
    result = await talk.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    for words in ("given up by ann", "link lost", "by hand on core.example.net: sudo sh"):
        assert words in result.detail


async def test_an_undo_that_never_works_names_the_line_to_type(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(1))
    await talk.gate("core")
    doubles.play("write_core_files", "core", broken("DiskFull", "disk full"))
    doubles.play("restore_core_files", "core", *[broken("PermissionRefused", "read-only file system")] * 500)
    await talk.answer("core")
    gate = await talk.answer("undo/core/1", Verdict.SKIP)
    assert gate.facts[0] == "read-only file system"
    result = await talk.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert result.core_state is ServerState.ROLLBACK_INCOMPLETE
    for wanted in ("disk full", "read-only file system", "restore.sh"):
        assert wanted in result.detail
    assert doubles.count("start_old_core") == 0, "with the new compose file in place that would start v2"


async def test_a_core_that_does_not_start_is_a_persons_decision(run: Driver, doubles: Doubles) -> None:
    doubles.play("start_core", "core", broken("CoreUnreachable", "no answer in 3 min", transient=True))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    gate = await talk.answer("failure/core/1", Verdict.RETRY)
    assert gate.verdicts == (Verdict.RETRY, Verdict.ROLLBACK)
    assert any("LOST: everything written" in fact for fact in gate.facts)
    assert doubles.count("start_core") == 1, "it had waited for its whole time limit, so it is not retried"
    assert doubles.count("restore_database") == doubles.count("start_old_core") == 0
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [s.op.attempt for s in doubles.inputs("start_core")] == [1, 2]


async def test_rollback_at_cores_failure_gate(run: Driver, doubles: Doubles) -> None:
    doubles.play("read_core_key", "core", broken("KeyRejected", "API and log disagree"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.answer("failure/core/1", Verdict.ROLLBACK)
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert (result.core_state, result.core_version) == (ServerState.ROLLED_BACK, OLD)
    back = doubles.steps("core")[doubles.steps("core").index("check_rollback") :]
    assert [n for n in back if n != "notify"] == [
        "check_rollback",
        "prove_dump",
        "stop_core",
        "dump_database",
        "prove_dump",
        "restore_database",
        "restore_core_files",
        "start_old_core",
        "save_report",
        "release_host",
    ]
    [restored] = doubles.inputs("restore_database")
    assert restored.dump.label == "final"
    assert [d.label for d in result.dumps] == ["before", "final", "pre_rollback"]


async def test_a_rollback_that_is_not_possible_asks_again(run: Driver, doubles: Doubles) -> None:
    doubles.play("start_core", "core", broken("CommandFailed", "v2 exits"))
    doubles.play("check_rollback", "core", Recheck(drift=("the dump is gone",)))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.answer("failure/core/1", Verdict.ROLLBACK)
    gate = await talk.answer("failure/core/2", Verdict.RETRY)
    assert "the dump is gone" in gate.facts[0]
    assert (await talk.result()).state is FleetState.UPGRADED


async def test_stop_at_a_broken_core_says_how_it_stands(run: Driver, doubles: Doubles) -> None:
    doubles.play("start_core", "core", broken("CommandFailed", "v2 exits"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    await talk.gate("failure/core/1")
    await talk.control(ControlVerb.STOP)
    result = await talk.result()
    assert (result.state, result.core_state) == (FleetState.INCOMPLETE, ServerState.WAITING)
    assert "v2 exits" in result.detail
    assert "komodo-upgrade rollback" in result.detail
    assert result.core_begun


async def test_the_agent_in_cores_project_is_backed_up_first_where_core_is_on_the_target_already(
    run: Driver, doubles: Doubles
) -> None:
    doubles.core = core_facts(agent=True, current=True)
    left = "the container runs the new version without its key"
    error = ConfigNotLoaded(
        "it is open to anyone", host="core", residue=left, hint="is PERIPHERY_CORE_PUBLIC_KEYS set?"
    )
    doubles.play("switch_server", "Local", translate(error))
    talk = await run.upgrade(fleet(1))
    await talk.answer("wave/1")
    gate = await talk.answer(f"failure/{slug('Local')}/1", Verdict.SKIP)
    names = [call.name for call in doubles.calls if call.target in ("core", "Local")]
    order = ["back_up_core", "back_up_server", "stage_server", "switch_server", "restore_server"]
    assert [n for n in names if n in order] == order
    [undo] = doubles.inputs("restore_server")
    assert undo.backup == doubles.inputs("switch_server")[0].backup
    assert undo.backup.restore_command.endswith("restore.sh agent")
    assert any(undo.backup.restore_command in fact for fact in gate.facts)
    said = (
        "Local: left on v1: core: it is open to anyone\n  next: is PERIPHERY_CORE_PUBLIC_KEYS set?\nrestored to 1.19.5"
    )
    assert gate.facts[0].startswith(said)
    assert (await talk.result()).core_begun is False
    assert doubles.count("stage_core") == doubles.count("dump_database") == doubles.count("stop_core") == 0


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.SKIP])
async def test_the_agent_in_cores_project_undoes_itself_and_asks(
    run: Driver, doubles: Doubles, verdict: Verdict
) -> None:
    doubles.core = core_facts(agent=True)
    doubles.play("switch_server", "Local", broken("ConfigNotLoaded", "it is open to anyone"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    gate = await talk.answer(f"failure/{slug('Local')}/1", verdict)
    assert gate.verdicts == (Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP)
    assert doubles.count("restore_server", "Local") == 1
    result = await talk.result()
    agent = result.servers[-1]
    if verdict is Verdict.RETRY:
        assert result.state is FleetState.UPGRADED
        attempts = [call.attempt for call in doubles.calls if (call.name, call.target) == ("switch_server", "Local")]
        assert attempts == [1, 2]
    else:
        assert result.state is FleetState.INCOMPLETE
        assert agent.state is ServerState.LEFT_ON_V1
        assert agent.version_after == OLD
        assert result.servers[0].version_after == NEW


# --- dumps ------------------------------------------------------------------------------------------------------------


async def test_gate_core_stays_shut_without_a_proof(run: Driver, doubles: Doubles) -> None:
    doubles.play("prove_dump", "core", broken("DumpRejected", "truncated: 3 of 4"), broken("DatabaseDenied", "no"))
    talk = await run.upgrade(fleet(1))
    gate = await talk.answer("failure/core/1", Verdict.RETRY)
    assert "truncated: 3 of 4" in gate.facts[0]
    assert (await talk.gate("failure/core/2")).verdicts == (Verdict.RETRY, Verdict.REJECT)
    assert doubles.count("dump_database") == 2, "a retry makes a new dump"
    assert doubles.count("stage_core") == 0
    await talk.answer("failure/core/2", Verdict.REJECT)
    assert (await talk.result()).state is FleetState.STOPPED


async def test_a_fleet_file_may_do_without_the_proof(run: Driver, doubles: Doubles) -> None:
    spec = replace(fleet(1), database=DatabasePolicy(proof=ProofPolicy.COUNT))
    talk = await run.upgrade(spec)
    gate = await talk.answer("core")
    assert "counted, NOT proven by a restore" in "\n".join(gate.facts)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.count("prove_dump") == 0
    assert [d.proof for d in result.dumps] == [None, None]


async def test_a_final_dump_that_is_none_is_reported_and_never_restored(run: Driver, doubles: Doubles) -> None:
    spec = fleet(1, approve="core-only")
    talk = await run.upgrade(spec)
    await talk.gate("core")
    doubles.play("prove_dump", "core", *[broken("DumpRejected", "different: Server")] * 2)
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert ["different: Server" in w.text for w in result.warnings if w.code == "dump-unverified"] == [True]
    back = await run.rollback(rollback_request(result, spec))
    refused = await back.result()
    assert refused.state is FleetState.REFUSED
    assert "different: Server" in refused.detail
    assert doubles.count("stop_core") == 1
    kept = await run.rollback(rollback_request(result, spec, database="keep"))
    gate = await kept.answer("rollback/1")
    assert "v1's form" in "\n".join(gate.facts)
    done = await kept.result()
    assert (done.state, done.core_version) == (FleetState.ROLLED_BACK, OLD)
    assert (doubles.count("downgrade_database"), doubles.count("restore_database")) == (1, 0)
    assert [p.moment for p in done.fingerprints] == ["after the rollback"]
    asked = [step.keep_database for step in doubles.inputs("check_rollback")]
    assert asked == [False, True, True], "whether that is possible is known before anything is stopped"
