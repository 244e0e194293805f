"""Rules for the package `workflows` that no single run shows: imports, names, options, the saga, texts."""

from __future__ import annotations

import ast
import gc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.worker.workflow_sandbox import UnintentionalPassthroughError

from activities.contracts import Policy
from model.fleet.spec import Event, Timing
from model.plan import Plan
from model.planning import make_plan, plan_without_diffs
from model.rollback import has_something_to_undo, rollback_request
from model.status import FleetProgress, FleetResult, FleetState, Phase, ServerOutcome, ServerProgress, ServerState
from model.steps import Notice
from tests.workflows.doubles import CHANGE, NOW, backup_of, core_facts, fleet, server_facts
from tests.workflows.unlisted_import import UnlistedImport
from worker import WORKFLOWS
from workflows.runtime import live_status, messages, steps
from workflows.runtime.sandbox import sandboxed_runner

PACKAGE = Path(__file__).parent.parent.parent / "workflows"


async def test_the_sandbox_refuses_modules_that_are_not_passed_through() -> None:
    for kind in WORKFLOWS:
        sandboxed_runner().prepare_workflow(workflow._Definition.must_from_class(kind))
    with pytest.raises(UnintentionalPassthroughError, match="komodo"):
        sandboxed_runner().prepare_workflow(workflow._Definition.must_from_class(UnlistedImport))


def test_workflow_code_is_deterministic() -> None:
    """The sandbox does not restrict modules that are passed through: no clock, no randomness, no I/O can enter them."""
    allowed = {"__future__", "asyncio", "collections", "contextlib", "dataclasses", "datetime", "enum", "typing"}
    clocks_and_races = {"now", "today", "utcnow", "as_completed", "wait"}
    # In a replay, the history can have another length at the same place.
    differ_in_a_replay = {"get_current_history_length", "get_current_history_size", "is_continue_as_new_suggested"}
    wrong = []
    gc.collect()  # a collection during ast.parse, on another thread's stack depth, is a SystemError
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Attribute) and node.attr in clocks_and_races:
                wrong += [] if ast.unparse(node.value) in ("workflow", "datetime.timezone") else [ast.unparse(node)]
            elif isinstance(node, ast.Attribute) and node.attr in differ_in_a_replay:
                wrong.append(ast.unparse(node))
            roots = {module.split(".")[0] for module in modules} - {"activities", "model", "temporalio", "workflows"}
            wrong += [f"{path.name}: {root}" for root in sorted(roots - allowed)]
    assert not wrong


def test_run_methods_are_short() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef) and node.name in ("run", "_upgrade", "_roll_back"):
                assert (node.end_lineno or 0) - node.lineno < 30, f"{path.name}: {node.name}"


def test_nothing_catches_everything() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), f"{path.name}:{node.lineno}"


def test_timeouts_and_retries_of_activities() -> None:
    timing = Timing()
    for policy in Policy:
        config = steps.config(policy, Notice(fleet="f", event=Event.GATE, subject="s", text="t"))
        assert config["heartbeat_timeout"] == timing.heartbeat, "a killed worker would be waited for in full"
        retry = config["retry_policy"]
        assert retry
        assert retry.initial_interval >= timedelta(seconds=6), "above the 5 s in which two attempts may overlap"
        assert retry.maximum_attempts == (3 if policy is Policy.NOTICE else 5)
        reads = policy in (Policy.RECHECK, Policy.CHECK, Policy.SURVEY, Policy.NOTICE)
        waits = config.get("cancellation_type") is workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        assert waits is not reads, "an undo must not start while its step still runs"
        late = steps.undo(policy, timing, rounds=1)["retry_policy"]
        assert late
        assert late.initial_interval == timedelta(minutes=5)
        assert late.maximum_attempts == steps.UNDO_ROUND
    dump = steps.config(Policy.DUMP, Notice(fleet="f", event=Event.GATE, subject="s", text="t"))
    assert (dump["start_to_close_timeout"] or timedelta()) > timing.dump


def test_a_plan_binds_its_changes() -> None:
    spec = fleet(3)
    servers = {s.name: server_facts(s.name) for s in spec.servers}
    plan = make_plan(spec, CHANGE, core_facts(), servers)
    assert plan == make_plan(spec, CHANGE, core_facts(), servers)
    edited = servers | {"web-2": server_facts("web-2", binary="other")}
    assert make_plan(spec, CHANGE, core_facts(), edited).digest != plan.digest
    without = make_plan(spec, CHANGE, core_facts(), servers, skipped=("web-2",))
    assert without.digest != plan.digest
    assert [w.servers for w in without.waves] == [("web-1",), ("web-3",)]
    assert without.left_behind == ("web-2",)
    assert plan_without_diffs(plan).digest == plan.digest
    assert plan.commands[0] == "core: docker compose -p komodo stop core"
    assert any(f"/prod/{CHANGE}/restore.sh" in line for line in plan.rollback_steps)
    assert "canary: web-1: write /etc/komodo/periphery.config.toml" in plan.commands[4]


@pytest.mark.parametrize(
    ("count", "text"), [(900, "900 B"), (2048, "2.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert messages.size(count) == text


def test_the_live_table_stays_small_and_shows_what_matters() -> None:
    states = [ServerState.PENDING] * 1999 + [ServerState.WAITING]
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
    table = live_status.render_markdown(progress)
    assert len(table.encode()) < 20_000
    assert "s1999" in table
    assert "1999 pending, 1 waiting" in table


def _result(plan: Plan | None, *servers: ServerOutcome, **fields: object) -> FleetResult:
    basis = FleetResult(
        fleet="prod", target="2.3.2", change=CHANGE, state=FleetState.STOPPED, started_at=NOW, ended_at=NOW, plan=plan
    )
    return replace(basis, servers=servers, **fields)  # type: ignore[arg-type]


def test_the_request_of_a_rollback() -> None:
    spec = fleet(3)
    plan = make_plan(spec, CHANGE, core_facts(), {s.name: server_facts(s.name) for s in spec.servers})
    with pytest.raises(ValueError, match="changed nothing"):
        rollback_request(_result(None), spec)
    assert not has_something_to_undo(rollback_request(_result(plan), spec))
    outcome = ServerOutcome(name="web-1", state=ServerState.UPGRADED, attempt=3)
    request = rollback_request(_result(plan, outcome), spec)
    assert request.servers == (), "without a backup there is nothing to restore"
    assert request.attempt == 4
    saved = replace(outcome, backup=backup_of("web-1"))
    request = rollback_request(_result(plan, saved, core_begun=False), spec)
    assert (request.servers, request.core, request.dump) == (("web-1",), False, None)
