"""The way through: order of the steps, gates, refusals, continuing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from model.facts import Finding, Severity
from model.gates import Verdict
from model.status import FleetState, Phase, ServerState
from tests.workflows.doubles import KEY, NEW, OLD, Doubles, broken, core_facts, fleet, refusal, server_facts
from tests.workflows.driver import Driver


async def test_a_fleet_is_upgraded_in_the_guides_order(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(3))
    gate = await talk.answer("core")
    assert doubles.count("stop_core") == 0, "nothing is switched before the approval"
    await talk.answer("wave/2")
    await talk.answer("wave/3")
    result = await talk.result()

    assert result.state is FleetState.UPGRADED
    assert result.core_state is ServerState.UPGRADED
    assert [(o.name, o.state, o.version_before, o.version_after) for o in result.servers] == [
        (f"web-{i}", ServerState.UPGRADED, OLD, NEW) for i in (1, 2, 3)
    ]
    assert all(o.proof and o.pinned_key == KEY and o.backup for o in result.servers)
    assert [(d.label, d.proof is not None) for d in result.dumps] == [("before", True), ("final", True)]
    assert [p.moment for p in result.fingerprints] == ["before the upgrade", "after the upgrade"]
    assert [r.decision.gate for r in result.decisions] == ["core", "wave/2", "wave/3"]
    assert gate.confirm == "prod"
    assert gate.plan_digest == (result.plan.digest if result.plan else "")
    core = [n for n in doubles.steps("core") if n not in ("notify", "survey_core")]
    assert core == [
        "back_up_core",
        "dump_database",
        "prove_dump",
        "stage_core",
        "recheck_core",
        "stop_core",
        "dump_database",
        "write_core_files",
        "start_core",
        "read_core_key",
        "prove_dump",
        "fingerprint_database",
        "post_checks",
        "save_report",
        "release_host",
    ]
    assert doubles.steps("web-2") == [
        "survey_server",
        "back_up_server",
        "stage_server",
        "recheck_server",
        "recheck_server",
        "switch_server",
        "verify_server",
        "release_host",
    ]
    assert doubles.inputs("switch_server")[0].key == KEY
    assert doubles.names().index("read_core_key") < doubles.names().index("switch_server")


async def test_what_is_saved_or_staged_right_now_is_not_pending(run: Driver, doubles: Doubles) -> None:
    saving, staging = doubles.hold("back_up_core", "core"), doubles.hold("stage_server", "web-1")
    talk = await run.upgrade(fleet(1))
    await asyncio.wait_for(saving.begun.wait(), 20)
    core = (await talk.progress()).core
    assert (core.state, core.step) == (ServerState.PREPARING, "backing up")
    saving.go.set()
    await asyncio.wait_for(staging.begun.wait(), 20)
    assert (await talk.progress()).servers[0].state is ServerState.PREPARING
    staging.go.set()
    await talk.gate("core")
    progress = await talk.progress()
    assert [line.state for line in (progress.core, *progress.servers)] == [ServerState.PENDING] * 2
    await talk.decide("core", Verdict.REJECT)
    await talk.result()


async def test_gate_core_says_what_an_informed_person_needs(run: Driver, doubles: Doubles) -> None:
    warning = Finding(code="schedule", severity=Severity.WARN, subject="core", text="a schedule is due at 03:00")
    doubles.core = replace(doubles.core, findings=(warning,))
    talk = await run.upgrade(replace(fleet(3), leave_behind=("nas",)))
    gate = await talk.gate("core")
    facts = "\n".join(gate.facts)
    for wanted in (
        f"plan {gate.plan_digest}: Core 1.19.5 -> 2.3.2",
        "42 documents",
        "3.2 MiB",
        "a schedule is due at 03:00",
        "nas",
        "min without Core",
        "rollback: komodo-upgrade rollback",
        "restore.sh",
        "3 servers are unmanaged until upgraded: no deploys, schedules, webhooks, stats",
        "containers keep running",
        "includes the canary: web-1",
    ):
        assert wanted in facts
    await talk.decide("core", Verdict.REJECT)
    await talk.result()


async def test_a_rejected_plan_leaves_nothing_behind(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(2))
    await talk.answer("core", Verdict.REJECT, plan_digest="", reason="not in this window")
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert "not in this window" in result.detail
    assert doubles.count("stop_core") == 0
    released = doubles.inputs("release_host")
    assert sorted(r.op.target for r in released) == ["core", "web-1", "web-2"]
    assert [r.image_pins for r in released if r.core] == [("keep-1",)], "the image pins are no longer needed"


async def test_a_refused_preflight_changes_nothing(run: Driver, doubles: Doubles) -> None:
    doubles.servers["web-2"] = replace(server_facts("web-2"), findings=(refusal("web-2"),))
    result = await (await run.upgrade(fleet(3))).result()
    assert result.state is FleetState.REFUSED
    assert [f.text for f in result.refusals] == ["no space left"]
    assert "make some" in result.detail
    assert {*doubles.names()} == {"survey_core", "survey_server"}


async def test_a_survey_that_fails_is_a_finding(run: Driver, doubles: Doubles) -> None:
    doubles.play("survey_server", "web-1", broken("HostKeyChanged", "web-1 shows another host key"))
    result = await (await run.upgrade(fleet(1))).result()
    assert result.state is FleetState.REFUSED
    assert "another host key" in result.detail


async def test_a_fleet_on_the_target_is_left_alone(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(current=True)
    doubles.servers = {f"web-{i}": server_facts(f"web-{i}", current=True) for i in (1, 2)}
    result = await (await run.upgrade(fleet(2))).result()
    assert result.state is FleetState.ALREADY_CURRENT
    assert [o.state for o in result.servers] == [ServerState.ALREADY_CURRENT] * 2
    assert {*doubles.names()} == {"survey_core", "survey_server"}


async def test_a_later_start_goes_on_where_the_last_one_ended(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(current=True)
    doubles.servers["web-1"] = server_facts("web-1", current=True)
    talk = await run.upgrade(fleet(3))
    gate = await talk.answer("wave/1")
    assert gate.plan_digest, "the first question of a run approves a plan"
    await talk.answer("wave/2")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [o.state for o in result.servers] == [
        ServerState.ALREADY_CURRENT,
        ServerState.UPGRADED,
        ServerState.UPGRADED,
    ]
    for name in ("stop_core", "dump_database", "back_up_core", "stage_core", "start_core"):
        assert doubles.count(name) == 0, f"{name} although Core is on the target"
    assert doubles.count("read_core_key") == 1
    assert doubles.count("release_host", "core") == 1, "reading the key took the host's lock"


@pytest.mark.parametrize(
    ("approve", "gates", "waves"),
    [
        ("each-wave", ["core", "wave/2", "wave/3"], 3),
        ("each-server", ["core", "wave/2", "wave/3", "wave/4", "wave/5"], 5),
        ("canary", ["core", "wave/2"], 3),
        ("core-only", ["core"], 3),
    ],
)
async def test_who_is_asked(run: Driver, doubles: Doubles, approve: str, gates: list[str], waves: int) -> None:
    talk = await run.upgrade(fleet(5, approve=approve, wave="2"))
    for gate in gates:
        await talk.answer(gate)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [r.decision.gate for r in result.decisions] == gates
    assert result.plan
    assert len(result.plan.waves) == waves


async def test_a_wave_gate_shows_the_last_waves_proofs(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(3))
    await talk.answer("core")
    gate = await talk.gate("wave/2")
    assert "web-1: upgraded: web-1 logged in" in gate.facts
    assert "next: web-2" in gate.facts
    assert any(f == "2 servers are still unmanaged until upgraded" for f in gate.facts)
    await talk.decide("wave/2", Verdict.REJECT, reason="enough")
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert [o.state for o in result.servers] == [ServerState.UPGRADED, ServerState.STOPPED, ServerState.STOPPED]


async def test_the_agent_in_cores_project_is_switched_with_core(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [(o.name, o.state) for o in result.servers] == [
        ("web-1", ServerState.UPGRADED), ("Local", ServerState.UPGRADED)
    ]  # fmt: skip
    names = doubles.names()
    assert names.index("read_core_key") < names.index("switch_server")
    assert [s.server.name for s in doubles.inputs("switch_server")] == ["Local", "web-1"]
    [check] = [c for c in doubles.inputs("verify_server") if c.facts.container]
    assert (check.facts.container.service.container, check.key) == ("komodo-periphery-1", KEY)
    released = [call.target for call in doubles.calls if call.name == "release_host"]
    assert sorted(released) == ["core", "web-1"], "the agent shares Core's host and folder"


async def test_the_end_never_fails_an_upgrade(run: Driver, doubles: Doubles) -> None:
    for step in ("post_checks", "save_report", "release_host"):
        doubles.play(step, "core", broken("PermissionRefused", f"{step} may not"))
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    warned = "\n".join(w.text for w in result.warnings)
    for step in ("post_checks", "save_report", "release_host"):
        assert f"{step} may not" in warned
    assert (await talk.progress()).phase is Phase.DONE


async def test_inputs_of_one_server_do_not_grow_with_the_fleet(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(fleet(4, approve="core-only", wave="3"))
    await talk.answer("core")
    await talk.result()
    for check in doubles.inputs("verify_server"):
        assert [s.name for s in check.fleet.servers] == [check.server.name]
    for step in doubles.inputs("switch_server"):
        assert all(not e.diff for e in step.facts.edits), "diffs belong to the plan, not to every step"
