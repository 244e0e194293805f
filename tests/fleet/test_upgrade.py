"""A whole upgrade of a simulated fleet: it is complete, the second run changes nothing, and no secret leaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from komodo.files import periphery_toml
from model.status import FleetResult, FleetState, ServerState
from model.text.report import render_json, render_markdown
from tests.fleet.conftest import Fleet, WorkerProcess


@pytest.mark.parametrize("fleet", [5], indirect=True)
async def test_a_fleet_is_upgraded_and_a_second_run_changes_nothing(fleet: Fleet) -> None:
    """All assertions on one upgrade, because it is the most expensive step of these tests."""
    worker = await fleet.worker()
    await fleet.start()
    result = await fleet.approve_all()
    everything_is_upgraded(fleet, result)
    every_mutating_step_ran_once_on_its_host(fleet)
    await no_secret_is_in_history_log_report_or_process_list(fleet, worker, result)

    before = len(fleet.sandbox.mutations())
    await fleet.start(change="20261123T230000Z")
    again = await fleet.handle.result()
    assert again.state is FleetState.ALREADY_CURRENT
    assert fleet.sandbox.mutations()[before:] == []


def everything_is_upgraded(fleet: Fleet, result: FleetResult) -> None:
    assert result.state is FleetState.UPGRADED, result.detail
    assert {s.name: s.state for s in result.servers} == dict.fromkeys(
        (*(s.name for s in fleet.spec.servers), "Local"), ServerState.UPGRADED
    )
    core = fleet.sandbox.core
    assert core is not None
    assert core.version == "2.3.2"
    assert result.key is not None
    assert result.key.public_key == core.public_key
    assert len(result.key.sources) >= 3
    for server in fleet.spec.servers:
        assert fleet.sandbox.agent_version(server.name) == "2.3.2"
        for path in result.plan.server(server.name).config_paths if result.plan else ():
            [pin] = periphery_toml.inspect(Path(path).read_text()).core_public_keys or ()
            assert core.public_key in Path(pin.removeprefix("file:")).read_text()


def every_mutating_step_ran_once_on_its_host(fleet: Fleet) -> None:
    for server in fleet.spec.servers:
        argv = [" ".join(r.argv) for r in fleet.sandbox.mutations(server.name)]
        assert len([a for a in argv if re.search(r"systemctl start\b", a)]) == 1, argv
    for host in fleet.sandbox.hosts:
        jobs = jobs_begun(fleet, host)
        assert jobs, host
        assert len(jobs) == len(set(jobs)), jobs
    core = [" ".join(r.argv) for r in fleet.sandbox.mutations("core")]
    assert len([a for a in core if "mongodump" in a]) == 2, core
    assert len([a for a in core if re.search(r"compose .*\bup -d", a)]) == 2, core  # core, and the agent in its project


def jobs_begun(fleet: Fleet, host: str) -> list[str]:
    """The detached jobs that were started on a host, by their folder: start-or-attach starts each one once."""
    begun = [" ".join(r.argv) for r in fleet.sandbox.mutations(host) if r.argv[0] == "systemd-run"]
    return [found.group(1) for a in begun if (found := re.search(r"jobs/(\S+)/run\.sh", a))]


async def no_secret_is_in_history_log_report_or_process_list(
    fleet: Fleet, worker: WorkerProcess, result: FleetResult
) -> None:
    async for run in fleet.client.list_workflows():
        history = await fleet.client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        # As it is stored: in `to_json` payloads are base64, in which nothing would ever be found.
        stored = b"\n".join(event.SerializeToString() for event in history.events).decode(errors="replace")
        assert '"change":"' in stored, "no payload was read"
        clean(fleet, stored, f"history of {run.id}")
    clean(fleet, worker.log.read_text(), "worker's log")
    clean(fleet, render_markdown(result) + render_json(result), "report")
    commands = [r.argv for r in fleet.sandbox.journal]
    clean(fleet, "\n".join(map(str, commands)), "arguments of commands on the hosts")
    for host in fleet.sandbox.hosts.values():
        clean(fleet, str(host.shells), f"SSH command lines on {host.name}")
    for plan_edit in result.plan.core.edits if result.plan else ():
        clean(fleet, plan_edit.diff, f"diff of {plan_edit.path}")


def clean(fleet: Fleet, text: str, where: str) -> None:
    assert text
    found = [s for s in fleet.sandbox.secrets if len(s) > 3 and s in text]
    assert not found, f"{where} holds {len(found)} secrets, at …{text[max(0, text.find(found[0]) - 120) :][:120]}…"


async def test_the_secrets_test_can_fail(fleet: Fleet) -> None:
    with pytest.raises(AssertionError, match="holds 1 secrets"):
        clean(fleet, f"passkeys = {fleet.sandbox.secrets[0]}", "nowhere")


async def test_gate_core_states_the_consequences_and_a_cancel_there_changes_nothing(fleet: Fleet) -> None:
    await fleet.worker()
    await fleet.start()
    gate = await fleet.gate("core")
    facts = "\n".join(gate.facts)
    assert gate.plan_digest in facts
    assert "unmanaged until upgraded" in facts
    assert "documents" in facts
    assert "rollback: komodo-upgrade rollback" in facts
    await fleet.handle.cancel()
    with pytest.raises(Exception, match="Workflow execution failed"):
        await fleet.handle.result()
    assert fleet.sandbox.core is not None
    assert fleet.sandbox.core.version == "1.19.5"
