"""`mode = "all-at-once"`: the key first, then Core and all agents at once; how failures are handled."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from model.fleet.spec import RolloutMode
from model.gates import ControlVerb, Verdict
from model.status import FleetState, ServerState
from model.steps import CoreKey, Recheck
from tests.workflows.doubles import KEY, NEW, Doubles, broken, core_facts, server_facts, together_fleet
from tests.workflows.driver import Driver

OTHER = "MCowBQYDK2VuAyEATs2Pbw54Yhk6TfhdyQ6QxbZ2l9IhNaIquJJfLITKxQI="


async def test_all_agents_are_switched_while_core_starts(run: Driver, doubles: Doubles) -> None:
    doubles.core = core_facts(agent=True)
    talk = await run.upgrade(together_fleet(3))
    gate = await talk.gate("core")
    assert doubles.steps("core").index("stage_core") < doubles.steps("core").index("stage_core_key")
    shown = "\n".join(gate.facts)
    assert f"pins the key that Core will have: {KEY}" in shown
    assert "without a canary: web-1, web-2, web-3" in shown
    assert "as canary" not in shown
    starting = doubles.hold("start_core", "core")
    await talk.answer("core")
    await starting.begun.wait()
    await talk.until(
        lambda p: [s.step for s in p.servers] == ["waiting for Core"] * 4, "all switched while Core is not up yet"
    )
    assert doubles.count("switch_server", "Local") == 1
    assert doubles.count("verify_server") == 0, "Core is asked once it is up"
    assert doubles.names().index("write_core_files") < doubles.names().index("switch_server")
    starting.go.set()
    result = await talk.result()

    assert result.state is FleetState.UPGRADED
    assert [r.decision.gate for r in result.decisions] == ["core"]
    assert [(o.state, o.pinned_key, o.version_after) for o in result.servers] == [(ServerState.UPGRADED, KEY, NEW)] * 4
    assert all(o.proof and o.switched and not o.detail for o in result.servers)
    assert result.key is not None
    assert result.key.sources == ("created in advance", "API GetCoreInfo")
    assert {i.staged_key for i in doubles.inputs("write_core_files")} == {KEY}
    assert {i.expected for i in doubles.inputs("read_core_key")} == {KEY}
    assert {i.key for i in doubles.inputs("switch_server")} == {KEY}
    assert doubles.count("switch_server") == doubles.count("stage_server") == 4
    assert doubles.count("verify_server") == 4


async def test_the_plan_says_it_and_is_another_one_than_in_waves(run: Driver, doubles: Doubles) -> None:
    talk = await run.upgrade(together_fleet(2))
    await talk.answer("core", Verdict.REJECT)
    plan = (await talk.result()).plan
    assert plan is not None
    assert plan.mode == "all-at-once"
    assert [w.servers for w in plan.waves] == [("web-1", "web-2")]
    assert plan.commands[0].startswith(
        "core, while v1 still runs: km key generate by ghcr.io/moghtech/komodo-core:2.3.2"
    )
    assert any(line.startswith("with Core: web-2: write /etc/komodo") for line in plan.commands)
    waves = replace(together_fleet(2), rollout=replace(together_fleet(2).rollout, mode=RolloutMode.WAVES))
    talk = await run.upgrade(waves)
    other = await talk.answer("core", Verdict.REJECT)
    await talk.result()
    assert other.plan_digest != plan.digest


async def test_no_agent_is_touched_before_core_can_start(run: Driver, doubles: Doubles) -> None:
    doubles.play("write_core_files", "core", broken("PlanChanged", "another key is there"))
    talk = await run.upgrade(together_fleet(2))
    await talk.answer("core")
    result = await talk.result()
    assert result.state is FleetState.STOPPED
    assert doubles.count("switch_server") == 0
    assert [n for n in doubles.steps("core") if n.startswith(("restore", "start"))] == [
        "restore_core_files", "start_old_core",
    ]  # fmt: skip


async def test_a_core_that_does_not_come_up_is_asked_about_after_the_agents(run: Driver, doubles: Doubles) -> None:
    doubles.play("start_core", "core", broken("CommandFailed", "v2 exits"))
    switching = doubles.hold("switch_server", "web-2")
    talk = await run.upgrade(together_fleet(2))
    await talk.answer("core")
    await switching.begun.wait()
    await talk.until(lambda p: p.servers[0].step == "waiting for Core", "the other one is switched")
    assert (await talk.progress()).gate is None, "no gate is open while an agent is being switched"
    switching.go.set()
    gate = await talk.gate("failure/core/1")
    assert "2 agents run 2.3.2 with the key created in advance and wait for Core" in "\n".join(gate.facts)
    await talk.answer("failure/core/1", Verdict.RETRY)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert doubles.count("switch_server") == 2, "agents are not switched again"


async def test_servers_are_asked_about_while_the_key_is_read(run: Driver, doubles: Doubles) -> None:
    """The first check that finds a server measures its downtime, so it must wait for nothing but Core."""
    reading = doubles.hold("read_core_key", "core")
    talk = await run.upgrade(together_fleet(2))
    await talk.answer("core")
    await reading.begun.wait()
    await talk.until(lambda p: all(s.state is ServerState.UPGRADED for s in p.servers), "both proven")
    reading.go.set()
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("verify_server") == 2


async def test_another_key_than_the_staged_one_is_undone_as_a_whole(run: Driver, doubles: Doubles) -> None:
    """`read_core_key` compares; a refusal opens the gate that can undo everything."""
    doubles.core = core_facts(agent=True)
    doubles.play("read_core_key", "core", broken("KeyRejected", f"Core runs with the key {OTHER}"))
    talk = await run.upgrade(together_fleet(3))
    await talk.answer("core")
    gate = await talk.answer("failure/core/1", Verdict.ROLLBACK)
    assert OTHER in "\n".join(gate.facts)
    assert "LOST" in "\n".join(gate.facts)
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert {o.state for o in result.servers} == {ServerState.ROLLED_BACK}
    assert doubles.count("restore_server") == 4
    assert doubles.count("restore_database") == 1


async def test_an_agent_that_does_not_start_goes_back_and_is_asked_about(run: Driver, doubles: Doubles) -> None:
    doubles.play("switch_server", "web-2", broken("AgentNotStarted", "it ends at once"))
    talk = await run.upgrade(together_fleet(3))
    await talk.answer("core")
    gate = await talk.gate("failure/web-2/1")
    assert set(gate.verdicts) == {Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP}
    assert doubles.count("restore_server", "web-2") == 1
    assert [s.state for s in (await talk.progress()).servers] == [
        ServerState.UPGRADED, ServerState.WAITING, ServerState.UPGRADED,
    ]  # fmt: skip
    await talk.answer("failure/web-2/1", Verdict.RETRY)
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert next(o for o in result.servers if o.name == "web-2").attempt == 2


async def test_an_agent_that_cannot_be_staged_is_not_left_out_silently(run: Driver, doubles: Doubles) -> None:
    """Not even if `on_failure` tolerates failures: only a decision may leave a server out."""
    doubles.play("stage_server", "web-2", broken("ArtifactError", "GLIBC_2.34 not found"))
    talk = await run.upgrade(together_fleet(3, on_failure="continue", max_failures=2))
    gate = await talk.gate("failure/web-2/1")
    assert "GLIBC_2.34 not found" in "\n".join(gate.facts)
    assert gate.verdicts == (Verdict.RETRY, Verdict.SKIP, Verdict.REJECT)
    await talk.answer("failure/web-2/1", Verdict.REJECT)
    result = await talk.result()
    assert (result.state, doubles.count("stop_core")) == (FleetState.STOPPED, 0)
    assert "GLIBC_2.34 not found" in result.detail


async def test_a_plan_made_again_keeps_the_key(run: Driver, doubles: Doubles) -> None:
    doubles.play("recheck_core", "core", Recheck(drift=("compose.yaml was edited",)))
    talk = await run.upgrade(together_fleet(1))
    await talk.answer("core")
    await talk.answer("core/2")
    result = await talk.result()
    assert result.state is FleetState.UPGRADED
    assert [i.op.attempt for i in doubles.inputs("stage_core_key")] == [1, 2]
    assert [i.staged_key for i in doubles.inputs("write_core_files")] == [KEY]


async def test_a_rollback_afterwards_takes_all_back(run: Driver, doubles: Doubles) -> None:
    proving = doubles.hold("verify_server", "web-1")
    talk = await run.upgrade(together_fleet(2))
    await talk.answer("core")
    await proving.begun.wait()
    await talk.control(ControlVerb.ROLLBACK)
    proving.go.set()
    await talk.answer("rollback/1")
    result = await talk.result()
    assert result.state is FleetState.ROLLED_BACK
    assert doubles.count("restore_server") == 2


async def test_a_run_that_goes_on_asks_once_for_the_rest(run: Driver, doubles: Doubles) -> None:
    doubles.core = replace(core_facts(current=True), public_key=KEY)
    doubles.servers["web-1"] = replace(server_facts("web-1", current=True), pinned_keys=(KEY,))
    talk = await run.upgrade(together_fleet(3))
    gate = await talk.answer("wave/1")
    assert "web-2, web-3" in gate.question
    assert (await talk.result()).state is FleetState.UPGRADED
    assert doubles.count("stage_core_key") == 0


async def test_the_key_of_a_core_on_v2_is_its_own(run: Driver, doubles: Doubles) -> None:
    doubles.play("stage_core_key", "core", CoreKey(public_key=KEY, sources=("Core 2.0.0 before its upgrade",)))
    doubles.core = replace(core_facts(), version="2.0.0", public_key=KEY)
    talk = await run.upgrade(together_fleet(1))
    gate = await talk.answer("core")
    assert "km key generate" not in "\n".join(gate.facts)
    result = await talk.result()
    assert result.plan is not None
    assert not [c for c in result.plan.commands if "km key generate" in c]
    assert result.state is FleetState.UPGRADED


async def test_a_host_that_rolled_back_automatically_while_core_was_down_is_asked_about(
    run: Driver, doubles: Doubles
) -> None:
    spec = together_fleet(2)
    armed = tuple(replace(s, auto_rollback=timedelta(minutes=15)) for s in spec.servers)
    doubles.play("verify_server", "web-2", broken("AutoRolledBack", "the host rolled back automatically"))
    talk = await run.upgrade(replace(spec, servers=armed))
    await talk.answer("core")
    gate = await talk.answer("failure/web-2/1", Verdict.SKIP)
    assert "the host rolled back automatically" in "\n".join(gate.facts)
    result = await talk.result()
    assert [o.state for o in result.servers] == [ServerState.UPGRADED, ServerState.LEFT_ON_V1]
    assert doubles.count("disarm_auto_rollback", "web-1") == 1
    assert doubles.count("disarm_auto_rollback", "web-2") == 0
    assert doubles.count("restore_server", "web-2") == 1, "its restore.sh once more proves that v1 runs"
