"""The way back leads back: every file, binary and document as it was, by the tool and by a person alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from typing import Any

import pytest
from temporalio.client import Client

from cli.looking_back import folders
from model.decisions import SIGNAL_CONTROL, Control, ControlVerb, Verdict
from model.errors import NoSuchUpgrade
from model.fleet import TASK_QUEUE, workflow_id
from model.progress import FleetResult, FleetState
from model.way_back import request_from_folders
from tests.fleet.conftest import Fleet, until


def files(fleet: Fleet) -> dict[str, str]:
    """Digest of every file that Komodo's installation consists of: configs, binaries, units, compose and env."""
    found = {}
    for host in fleet.sandbox.hosts.values():
        for folder in ("etc/komodo", "etc/systemd", "usr/local/bin", "opt"):
            for path in sorted((host.root / folder).rglob("*")):
                ours = ".bak_v1" in path.name or "/keys" in str(path.relative_to(host.root))
                if path.is_file() and not ours:
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def documents(fleet: Fleet) -> dict[str, list[Any]]:
    """Everything in the database that v1 knows, by collection; what Core itself writes all the time left out."""
    store = fleet.sandbox.store
    names = [n for n in sorted(store.databases["komodo"]) if n not in {"Stats", "Alert"}]
    return {n: sorted(map(repr, store.find("komodo", n))) for n in names}


async def upgraded(fleet: Fleet) -> None:
    await fleet.worker()
    await fleet.start()
    result = await fleet.approve_all()
    assert result.state is FleetState.UPGRADED, result.detail


async def test_a_rollback_in_the_middle_leaves_everything_as_it_was(fleet: Fleet) -> None:
    before = files(fleet)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    await fleet.gate("wave/2")
    assert files(fleet) != before
    await fleet.handle.signal(SIGNAL_CONTROL, Control(verb=ControlVerb.ROLLBACK, actor="ann", reason="thought again"))
    gate = await fleet.gate("rollback")
    said = "\n".join(gate.facts)
    assert "LOST" in said
    await fleet.decide(gate)
    result = await fleet.handle.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert files(fleet) == before
    core = fleet.sandbox.core
    assert core is not None
    assert core.version == "1.19.5"
    servers = fleet.sandbox.store.find("komodo", "Server")
    assert [s.get("info") for s in servers] == [None] * len(servers)
    assert not [n for n in ("OnboardingKey", "Swarm") if n in documents(fleet)]
    for server in fleet.spec.servers:
        assert fleet.sandbox.agent_version(server.name) == "1.19.5"


async def test_a_server_that_fails_is_retried_and_days_later_all_of_it_is_put_back(
    fleet: Fleet, another_temporal: Client
) -> None:
    before, kept = files(fleet), documents(fleet)
    fleet.sandbox.fault("crash-loop", "web-1")
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    gate = await fleet.gate("failure/web-1")
    assert fleet.sandbox.agent_version("web-1") == "1.19.5"
    assert Verdict.RETRY in gate.verdicts
    fleet.sandbox.heal("crash-loop", "web-1")
    await fleet.decide(gate, Verdict.RETRY)
    result = await fleet.approve_all()
    assert result.state is FleetState.UPGRADED, result.detail
    assert next(s for s in result.servers if s.name == "web-1").attempt == 2

    # Another machine: its Temporal has never heard of this fleet. The folders on the hosts are all there is.
    for worker in fleet.workers:
        worker.kill()
    fleet.client = another_temporal
    await fleet.worker()
    seen = await folders(fleet.client, fleet.spec)
    request = request_from_folders(fleet.spec, seen, requested_by="bob")
    assert request.left == ()
    assert (request.servers, request.attempt) == (tuple(s.name for s in fleet.spec.servers), 3)
    await fleet.client.start_workflow(
        "RollbackFleet", request, id=workflow_id(fleet.spec.name), task_queue=TASK_QUEUE, result_type=FleetResult
    )
    rolled_back = await fleet.approve_all()
    assert rolled_back.state is FleetState.ROLLED_BACK, rolled_back.detail
    assert [s.state for s in rolled_back.servers] == ["rolled back"] * 3
    assert rolled_back.core_agent
    assert rolled_back.core_agent.state == "rolled back"
    assert files(fleet) == before
    now = documents(fleet)
    assert {n: now[n] for n in ("Server", "Action", "Procedure", "User")} == {
        n: kept[n] for n in ("Server", "Action", "Procedure", "User")
    }
    with pytest.raises(NoSuchUpgrade, match="nothing to roll back"):
        request_from_folders(fleet.spec, await folders(fleet.client, fleet.spec))


async def test_a_person_alone_restores_a_server_and_core_by_their_scripts(fleet: Fleet) -> None:
    """No worker, no Temporal, no tool: what the report says to type is enough."""
    before, kept = files(fleet), documents(fleet)
    await upgraded(fleet)
    result = await fleet.handle.result()
    for worker in fleet.workers:
        worker.kill()
    assert result.core_backup is not None
    await by_hand(fleet, "core", result.core_backup.folder)
    for outcome in result.servers:
        assert outcome.backup is not None
        await by_hand(fleet, outcome.name, outcome.backup.folder)

    assert files(fleet) == before
    core = fleet.sandbox.core
    assert core is not None
    assert core.version == "1.19.5"
    for server in fleet.spec.servers:
        assert fleet.sandbox.agent_version(server.name) == "1.19.5"
    now = documents(fleet)
    assert {n: now[n] for n in ("Server", "Action", "Procedure", "User")} == {
        n: kept[n] for n in ("Server", "Action", "Procedure", "User")
    }

    async def all_ok() -> bool:
        running = fleet.sandbox.core
        return running is not None and all(s.state == "Ok" for s in running.status.values())

    await until(all_ok, "Core v1 says Ok of every server")


async def by_hand(fleet: Fleet, host: str, folder: str) -> None:
    """What a person types on that host, dry run first."""
    one = fleet.sandbox.hosts[host]
    env = {**os.environ, "PATH": f"{one.root}/bin:/usr/bin:/bin", "PASSWORD": one.sudo_password or "none"}
    state = files(fleet)
    for dry in ("--dry-run", ""):
        typed = f'printf "%s\\n" "$PASSWORD" | sudo -S -p "" -v; sudo -n sh {folder}/restore.sh {dry}'
        ended = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", typed], env=env, cwd=one.root, capture_output=True, text=True, timeout=90
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        if dry:
            assert files(fleet) == state, "a dry run changed something"
