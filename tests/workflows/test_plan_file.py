"""A run that was started with a plan file does exactly that, or refuses host by host."""

from __future__ import annotations

from dataclasses import replace

from model.facts import PlannedEdit
from model.fleet.spec import CoreFiles, FleetSpec
from model.gates import Verdict
from model.plan import OTHER_PLAN, ApprovedPlan, approved
from model.planning import make_plan
from model.status import FleetState, ServerState
from model.steps import Recheck
from tests.workflows.doubles import Doubles, broken, core_facts, fleet, server_facts
from tests.workflows.driver import Driver

EDIT = PlannedEdit(path="/etc/x", kind="env", base_sha256="1", result_sha256="2", diff="-was\n+is")


def of(servers: int) -> ApprovedPlan:
    spec = fleet(servers)
    return approved(make_plan(spec, "other", core_facts(), {s.name: server_facts(s.name) for s in spec.servers}))


async def test_the_same_plan_is_applied(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2, approve="core-only"), approved=of(2))
    gate = await talk.answer("core")
    assert gate.plan_digest == of(2).digest
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("switch_server") == 2


async def test_each_host_that_differs_refuses_with_its_new_diff(run: Driver, doubles: Doubles) -> None:
    doubles.core = replace(core_facts(), edits=(EDIT,))
    doubles.servers["web-2"] = replace(server_facts("web-2"), edits=(EDIT,))
    talk = await run.upgrade(fleet(3), approved=of(3))
    result = await talk.result()
    assert result.state is FleetState.REFUSED
    assert {f.subject for f in result.refusals if f.code == OTHER_PLAN} == {"core", "web-2"}
    [web] = [f for f in result.refusals if f.subject == "web-2"]
    assert web.text == "it differs from the approved plan in: /etc/x, /etc/komodo/periphery.config.toml"
    assert web.hint.endswith("its edits are now:\n-was\n+is")
    assert web.hint in result.detail
    assert doubles.count("back_up_core") == 0


async def test_a_server_that_changes_before_the_switch_is_left_or_stops_the_run(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_server", "web-2", Recheck(drift=("its config was changed",)))
    talk = await run.upgrade(fleet(2), approved=of(2))
    await talk.gate("core")
    doubles.servers["web-2"] = replace(server_facts("web-2"), edits=(EDIT,))
    await talk.answer("core")
    gate = await talk.gate("failure/web-2/1")
    assert any("it differs from the approved plan in: /etc/x, " in fact for fact in gate.facts)
    await talk.answer("failure/web-2/1", Verdict.SKIP)
    await talk.answer("core/2")
    result = await talk.result()
    assert result.servers[1].state is ServerState.LEFT_ON_V1
    assert doubles.count("switch_server", "web-2") == 0


async def test_core_that_changes_before_the_switch_ends_the_run(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_core", "core", Recheck(drift=("compose.yaml was changed",)))
    talk = await run.upgrade(fleet(1), approved=of(1))
    await talk.gate("core")
    doubles.core = replace(core_facts(), edits=(EDIT,))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.REFUSED
    assert "core: it differs from the approved plan in: /etc/x, " in result.detail
    assert doubles.count("stop_core") == 0


# --- files that others edit -------------------------------------------------------------------------------------------


def external(servers: int) -> FleetSpec:
    spec = fleet(servers)
    return replace(spec, core=replace(spec.core, files=CoreFiles.EXTERNAL))


async def test_gate_core_waits_for_files_that_others_edit(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_core", "core", Recheck(missing=("/opt/komodo/compose.yaml",)))
    talk = await run.upgrade(external(1))
    gate = await talk.answer("core")
    assert any("others edit /opt/komodo/compose.yaml" in fact for fact in gate.facts)
    gate = await talk.gate("core/2")
    assert any("without the planned edits yet: /opt/komodo/compose.yaml" in fact for fact in gate.facts)
    assert doubles.count("stop_core") == 0
    await talk.answer("core/2")
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("back_up_core") == 1


async def test_a_server_that_changes_leaves_the_backup_of_the_old_files(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_server", "web-1", Recheck(drift=("its config was changed",)))
    talk = await run.upgrade(external(1))
    await talk.gate("core")
    doubles.core = replace(core_facts(), edits=())
    await talk.answer("core")
    await talk.answer("core/2")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.count("back_up_core") == 1
    assert result.plan
    assert result.plan.core.edits


async def test_core_that_differs_while_others_edit_its_files_ends_the_run(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_core", "core", Recheck(drift=("compose.yaml was edited",)))
    talk = await run.upgrade(external(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.REFUSED
    assert "take the edits of its files back" in result.detail
    assert doubles.count("back_up_core") == 1


async def test_an_undo_before_the_start_restores_their_files_first(run: Driver, doubles: Doubles) -> None:
    doubles.play("dump_database", "core", None, broken("DatabaseError"))
    talk = await run.upgrade(external(1))
    await talk.answer("core")
    assert (await talk.result()).state is FleetState.STOPPED
    steps = [name for name in doubles.steps("core") if name in ("stop_core", "restore_core_files", "start_old_core")]
    assert steps == ["stop_core", "restore_core_files", "start_old_core"]
