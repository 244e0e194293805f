"""Rules of the room that no single run shows: imports, names, options, the saga, texts."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.worker.workflow_sandbox import UnintentionalPassthroughError

from activities import registry
from model.fleet import Clocks
from model.plan import Plan
from model.progress import FleetProgress, FleetResult, FleetState, Phase, ServerOutcome, ServerProgress, ServerState
from model.way_back import has_something_to_undo, rollback_request
from tests.workflows.careless import Careless
from tests.workflows.doubles import CHANGE, NOW, Doubles, backup_of, core_facts, fleet, server_facts
from tests.workflows.driver import WORKFLOWS, strict_sandbox
from workflows import board, options, preflight, texts

ROOM = Path(__file__).parent.parent.parent / "workflows"


async def test_workflow_modules_say_how_they_import() -> None:
    for kind in WORKFLOWS:
        strict_sandbox().prepare_workflow(workflow._Definition.must_from_class(kind))
    with pytest.raises(UnintentionalPassthroughError, match="model"):
        strict_sandbox().prepare_workflow(workflow._Definition.must_from_class(Careless))


def test_every_activity_is_called_by_its_name_and_doubled() -> None:
    tree = ast.parse((ROOM / "steps.py").read_text())
    calls = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "act"
    ]
    called = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert called == set(registry.NAMES)
    doubled = {a.__temporal_activity_definition.name for a in Doubles().activities()}  # type: ignore[attr-defined]
    assert doubled == called


def test_run_methods_are_short() -> None:
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef) and node.name in ("run", "_upgrade", "_roll_back"):
                assert (node.end_lineno or 0) - node.lineno < 30, f"{path.name}: {node.name}"


def test_nothing_catches_everything() -> None:
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), f"{path.name}:{node.lineno}"


def test_options_keep_the_law() -> None:
    clocks = Clocks()
    for config in (options.change(clocks), options.stage(clocks), options.dump(clocks), options.switch(clocks)):
        assert config["cancellation_type"] is workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        assert config["heartbeat_timeout"] == clocks.heartbeat
        policy = config["retry_policy"]
        assert policy
        assert policy.initial_interval >= timedelta(seconds=6), "above the 5 s in which two attempts may overlap"
        assert policy.maximum_attempts == 5
    for config in (options.look(clocks), options.survey(clocks)):
        assert config["heartbeat_timeout"] == clocks.heartbeat, "a killed worker would be waited for in full"
    assert (options.dump(clocks)["start_to_close_timeout"] or timedelta()) > clocks.dump
    late = options.undo(clocks, rounds=1)["retry_policy"]
    assert late
    assert late.initial_interval == timedelta(minutes=5)
    assert late.maximum_attempts == options.UNDO_ROUND


def test_a_plan_binds_what_will_be_changed() -> None:
    spec = fleet(3)
    servers = {s.name: server_facts(s.name) for s in spec.servers}
    plan = preflight.assemble(spec, CHANGE, core_facts(), servers)
    assert plan == preflight.assemble(spec, CHANGE, core_facts(), servers)
    edited = servers | {"web-2": server_facts("web-2", binary="other")}
    assert preflight.assemble(spec, CHANGE, core_facts(), edited).digest != plan.digest
    without = preflight.assemble(spec, CHANGE, core_facts(), servers, skipped=("web-2",))
    assert without.digest != plan.digest
    assert [w.servers for w in without.waves] == [("web-1",), ("web-3",)]
    assert without.left_behind == ("web-2",)
    assert preflight.slim_plan(plan).digest == plan.digest
    assert plan.commands[0] == "core: docker compose -p komodo stop core"
    assert any(f"/prod/{CHANGE}/restore.sh" in line for line in plan.way_back)
    assert "canary: web-1: write /etc/komodo/periphery.config.toml" in plan.commands[4]


@pytest.mark.parametrize(
    ("count", "text"), [(900, "900 B"), (2048, "2.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert texts.size(count) == text


def test_the_live_table_stays_small_and_shows_what_matters() -> None:
    states = [ServerState.PENDING] * 1999 + [ServerState.PARKED]
    servers = tuple(ServerProgress(name=f"s{i}", state=s, detail="x" * 500) for i, s in enumerate(states))
    progress = FleetProgress(
        fleet="prod",
        target="2.3.2",
        change=CHANGE,
        phase=Phase.ROLLOUT,
        since=NOW,
        core=ServerProgress(name="core"),
        servers=servers,
    )
    table = board.markdown(progress)
    assert len(table.encode()) < 20_000
    assert "s1999" in table
    assert "1999 pending, 1 parked" in table


def _result(plan: Plan | None, *servers: ServerOutcome, **fields: object) -> FleetResult:
    basis = FleetResult(
        fleet="prod", target="2.3.2", change=CHANGE, state=FleetState.STOPPED, started_at=NOW, ended_at=NOW, plan=plan
    )
    return replace(basis, servers=servers, **fields)  # type: ignore[arg-type]


def test_what_a_rollback_starts_with() -> None:
    spec = fleet(3)
    plan = preflight.assemble(spec, CHANGE, core_facts(), {s.name: server_facts(s.name) for s in spec.servers})
    with pytest.raises(ValueError, match="changed nothing"):
        rollback_request(_result(None), spec)
    assert not has_something_to_undo(rollback_request(_result(plan), spec))
    outcome = ServerOutcome(name="web-1", state=ServerState.UPGRADED, attempt=3)
    request = rollback_request(_result(plan, outcome), spec)
    assert request.servers == (), "without a backup there is nothing to put back"
    assert request.attempt == 4
    saved = replace(outcome, backup=backup_of("web-1"))
    request = rollback_request(_result(plan, saved, core_begun=False), spec)
    assert (request.servers, request.core, request.dump) == (("web-1",), False, None)
