"""Every ending is a state with a name: cancelled or terminated by Temporal, and rollbacks that need patience."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError

from cli.target import limited
from model.facts import Backup, KnownServer, ServerFacts
from model.gates import ControlVerb, Verdict
from model.rollback import request_from_folders, rollback_request
from model.run_folders import FleetFolders, HostFolders, SavedChange
from model.status import FleetResult, FleetState, NotRestored, ServerState
from model.text.report import render_markdown
from tests.workflows.doubles import CHANGE, NEW, NOW, OLD, Doubles, backup_of, broken, core_facts, fleet, server_facts
from tests.workflows.driver import Driver, Talk


async def ended(handle: WorkflowHandle, status: WorkflowExecutionStatus) -> None:  # type: ignore[type-arg]
    for _ in range(200):
        if (await handle.describe()).status is status:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never {status.name}; it is {(await handle.describe()).status}")


async def cancelled(talk: Talk) -> FleetResult:
    with pytest.raises(WorkflowFailureError) as caught:
        await talk.result()
    assert isinstance(caught.value.cause, CancelledError)
    return await talk.result_now()


@pytest.mark.parametrize("gate", ["wave/2", "failure/web-1/1", "rollback/1"])
async def test_cancel_at_a_gate_after_cores_switch_means_stop(run_real: Driver, doubles: Doubles, gate: str) -> None:
    if gate.startswith("failure"):
        doubles.play("verify_server", "web-1", broken("NotProven", "not seen"))
    talk = await run_real.upgrade(fleet(2))
    await talk.answer("core")
    if gate.startswith("rollback"):
        await talk.gate("wave/2")
        await talk.control(ControlVerb.ROLLBACK)
    await talk.gate(gate)
    await talk.handle.cancel()
    result = await cancelled(talk)
    assert result.state is FleetState.STOPPED
    assert "cancelled from Temporal" in result.detail
    first = ServerState.UNVERIFIED if gate.startswith("failure") else ServerState.UPGRADED
    assert [o.state for o in result.servers] == [first, ServerState.STOPPED]
    assert doubles.count("restore_server") == doubles.count("stop_core") - 1 == 0, "nothing that is done is undone"
    assert doubles.names()[-1] == "release_host"
    again = rollback_request(result, fleet(2))
    assert (again.core, again.servers) == (True, ("web-1",)), "a later rollback knows what to undo"


async def test_a_limited_run_names_the_servers_that_it_leaves_out(run_real: Driver, doubles: Doubles) -> None:
    """They are neither surveyed nor upgraded; one that Core sees on the target is not mentioned."""
    known = KnownServer(name="web-3", id="3", address="", enabled=True, state="Ok", version=NEW)
    doubles.core = replace(doubles.core, servers=(known,))
    talk = await run_real.upgrade(limited(fleet(4), ("web-1",)))
    gate = await talk.gate("core")
    assert [line for line in gate.facts if "not in this run" in line] == [
        "2 servers are not in this run (--limit): web-2, web-4; those on v1 are unreachable from Core until a later run"
    ]
    await talk.answer("core")
    result = await talk.result()
    assert (result.state, result.detail) == (FleetState.UPGRADED, f"prod is on {NEW}; not in this run: web-2, web-4")
    assert [o.name for o in result.servers] == ["web-1"]
    assert doubles.steps("web-2") == []
    assert "| web-2 | not in this run |" in render_markdown(result)


async def test_cancel_of_a_rollback_that_only_asks_changes_nothing(run_real: Driver, doubles: Doubles) -> None:
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    request = rollback_request(await talk.result(), fleet(1))
    back = await run_real.rollback(request)
    await back.gate("rollback/1")
    stopped = doubles.count("stop_core")
    await back.handle.cancel()
    result = await cancelled(back)
    assert result.state is FleetState.STOPPED
    assert "nothing was changed" in result.detail
    assert doubles.count("stop_core") == stopped


async def test_a_rollback_goes_on_though_the_upgrade_that_began_it_is_terminated(
    run_real: Driver, doubles: Doubles
) -> None:
    hold = doubles.hold("restore_database", "core")
    talk = await run_real.upgrade(fleet(2))
    await talk.answer("core")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    await talk.answer("rollback/1")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.terminate("a person in a hurry")
    hold.go.set()
    child = run_real.client.get_workflow_handle("komodo-upgrade/prod/rollback/2", result_type=FleetResult)
    result = await asyncio.wait_for(child.result(), 30)
    assert result.state is FleetState.ROLLED_BACK
    assert not hold.cancelled
    assert doubles.steps("web-1")[-2:] == ["restore_server", "verify_server"]


async def test_terminated_while_core_is_asked_about_a_server_it_is_restored(run_real: Driver, doubles: Doubles) -> None:
    """v2 runs there, unverified, and no gate can be opened any more: v1 is a state that every later run understands."""
    hold = doubles.hold("verify_server", "web-1")
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    await asyncio.wait_for(hold.begun.wait(), 20)
    await talk.handle.terminate("a person in a hurry")
    child = run_real.client.get_workflow_handle("komodo-upgrade/prod/web-1/1")
    await ended(child, WorkflowExecutionStatus.CANCELED)
    assert doubles.steps("web-1")[-2:] == ["verify_server", "restore_server"]
    # The next run finds Core on v2 and that server on v1, and continues.
    hold.go.set()
    again = await run_real.upgrade(fleet(1), change="20261124T000000Z")
    await again.answer("core")
    assert (await again.result()).state is FleetState.UPGRADED


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("restore_server", broken("Unreachable", "no route", transient=True)),
        ("restore_server", broken("CommandFailed", "restore.sh: systemctl start failed")),
        ("restore_core_files", broken("Unreachable", "no route", transient=True)),
    ],
)
async def test_a_step_that_fails_at_first_is_tried_until_it_works(
    run: Driver, doubles: Doubles, step: str, error: ApplicationError
) -> None:
    talk = await run.upgrade(fleet(1))
    await talk.answer("core")
    request = rollback_request(await talk.result(), fleet(1))
    target, times = ("web-1", 5) if step == "restore_server" else ("core", 4)
    doubles.play(step, target, *[error] * times)
    back = await run.rollback(request)
    await back.answer("rollback/1")
    result = await back.result()
    assert result.state is FleetState.ROLLED_BACK
    assert doubles.count(step) == times + 1
    assert [r.decision.gate for r in result.decisions] == ["rollback/1"], "no other gate had to be answered"
    if step == "restore_server":
        assert any("an undo does not work yet" in notice.subject for notice in doubles.notices), (
            "reported after five at the latest"
        )


async def test_one_that_never_works_ends_with_host_folder_and_the_line_to_type(
    run_real: Driver, doubles: Doubles
) -> None:
    talk = await run_real.upgrade(fleet(1))
    await talk.answer("core")
    request = rollback_request(await talk.result(), fleet(1))
    error = broken("CommandFailed", "web-1: restore.sh: cannot write /usr/local/bin")
    doubles.play("restore_server", "web-1", *[error] * 500)
    back = await run_real.rollback(request)
    await back.answer("rollback/1")
    gate = await back.answer("undo/web-1/1", Verdict.SKIP)
    assert gate.facts[0] == "web-1: restore.sh: cannot write /usr/local/bin"
    result = await back.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    [outcome] = result.servers
    assert outcome.state is ServerState.ROLLBACK_INCOMPLETE
    assert f"sudo sh /var/lib/komodo-upgrade/prod/{CHANGE}/restore.sh" in outcome.detail
    assert "cannot write" in outcome.detail
    assert outcome.detail in result.detail
    assert result.core_version == OLD


# --- from the folders alone -------------------------------------------------------------------------------------------


def folders(*, core: bool = True) -> FleetFolders:
    def saved(name: str, change: str) -> SavedChange:
        facts = ServerFacts(name=name, version=OLD)
        backup: Backup = replace(backup_of(name), folder=f"/var/lib/komodo-upgrade/prod/{change}")
        return SavedChange(
            change=change,
            folder=backup.folder,
            name=name,
            version=OLD,
            target=NEW,
            in_place=True,
            backup=backup,
            server=None if name == "core" else facts,
            core=core_facts() if name == "core" else None,
            taken_at=NOW,
        )

    back = replace(saved("core", CHANGE), in_place=core)
    return FleetFolders(
        core=HostFolders(name="core", changes=(back,)),
        servers=(
            HostFolders(name="web-1", changes=(saved("web-1", CHANGE),)),
            HostFolders(name="web-2", changes=(saved("web-2", "20261124T080000Z"),)),
            HostFolders(name="web-3", problem="no route to host"),
        ),
    )


async def test_each_server_goes_back_from_its_own_folder_and_the_lost_one_is_named(
    run: Driver, doubles: Doubles
) -> None:
    back = await run.rollback(request_from_folders(fleet(3), folders()))
    gate = await back.answer("rollback/1")
    facts = "\n".join(gate.facts)
    assert f"it undoes the upgrade {CHANGE}, 20261124T080000Z" in facts
    assert "NOT restored: web-3: it cannot be read" in facts
    result = await back.result()
    assert result.state is FleetState.ROLLBACK_INCOMPLETE
    assert {o.name: o.state for o in result.servers} == {
        "web-1": ServerState.ROLLED_BACK,
        "web-2": ServerState.ROLLED_BACK,
        "web-3": ServerState.ROLLBACK_INCOMPLETE,
    }
    assert {s.op.target: s.op.change for s in doubles.inputs("restore_server")} == {
        "web-1": CHANGE,
        "web-2": "20261124T080000Z",
    }
    assert {r.op.target: r.op.change for r in doubles.inputs("release_host")}["web-2"] == "20261124T080000Z"
    assert [s.op.change for s in doubles.inputs("start_old_core")] == [CHANGE]


async def test_a_rollback_of_one_server_says_what_it_loses_and_one_behind_an_old_core_is_proven(
    run: Driver, doubles: Doubles
) -> None:
    alone = await run.rollback(request_from_folders(fleet(3), folders(), only=("web-1",)))
    gate = await alone.answer("rollback/1")
    assert any(f"unreachable from Core {NEW}" in fact for fact in gate.facts)
    result = await alone.result()
    assert result.state is FleetState.ROLLED_BACK
    assert [(o.name, o.state) for o in result.servers] == [("web-1", ServerState.LEFT_ON_V1)]
    assert doubles.count("verify_server") == doubles.count("stop_core") == 0

    request = request_from_folders(fleet(3), folders(core=False), only=("web-1",))
    behind = await run.rollback(replace(request, not_restored=(NotRestored(name="web-2", why="stays", harmless=True),)))
    await behind.answer("rollback/1")
    result = await behind.result()
    assert {o.name: o.state for o in result.servers} == {
        "web-1": ServerState.ROLLED_BACK,
        "web-2": ServerState.STOPPED,
    }
    assert doubles.count("verify_server") == 1
    assert result.core_version == OLD
    assert result.ended_at - result.started_at < timedelta(hours=1)


@pytest.mark.parametrize(("begun", "not_in_run"), [(True, ()), (False, ()), (True, ("web-1",))])
async def test_a_later_run_that_turns_back_takes_along_what_earlier_ones_did(
    run: Driver, doubles: Doubles, begun: bool, not_in_run: tuple[str, ...]
) -> None:
    """Core and web-1 were upgraded by an earlier run; this one was to do the rest, or with `--limit` the other two."""
    later = "20261124T080000Z"
    doubles.core, doubles.servers["web-1"] = core_facts(current=True), server_facts("web-1", current=True)
    seen = folders()
    web_2 = seen.server("web-2") if begun else HostFolders(name="web-2")
    doubles.folders = {"core": seen.core, "web-1": seen.server("web-1"), "web-2": web_2}
    talk = await run.upgrade(replace(fleet(3), not_in_run=not_in_run), change=later)
    if begun:
        await talk.answer("wave/1")
        await talk.gate("wave/2")
    else:
        await talk.gate("wave/1")
    await talk.control(ControlVerb.ROLLBACK)
    gate = await talk.answer("rollback/1")
    assert f"back to Core {OLD} from {NEW}" in gate.facts[0]
    result = await talk.result()
    assert (result.state, result.core_version) == (FleetState.ROLLED_BACK, OLD), result.detail
    assert {o.name: o.state for o in result.servers} == {
        "web-1": ServerState.ROLLED_BACK,
        "web-2": ServerState.ROLLED_BACK if begun else ServerState.STOPPED,
        "web-3": ServerState.STOPPED,
    }
    assert [s.op.change for s in doubles.inputs("start_old_core")] == [CHANGE]
    given_back = {(r.op.target, r.op.change) for r in doubles.inputs("release_host")}
    assert {("core", CHANGE), ("core", later), ("web-1", CHANGE), ("web-2", later)} <= given_back


async def test_where_no_folder_leads_core_back_a_later_run_undoes_its_own(run: Driver, doubles: Doubles) -> None:
    """A person has upgraded Core by hand."""
    doubles.core = core_facts(current=True)
    talk = await run.upgrade(fleet(2))
    await talk.answer("wave/1")
    await talk.gate("wave/2")
    await talk.control(ControlVerb.ROLLBACK)
    gate = await talk.answer("rollback/1")
    assert "Core stays as it is" in gate.facts[0]
    assert (await talk.result()).state is FleetState.ROLLED_BACK
    assert (doubles.count("restore_server"), doubles.count("stop_core")) == (1, 0)
