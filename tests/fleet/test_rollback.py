"""A rollback restores every file, binary and document, by the tool and by hand."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from typing import Any

from model.gates import SIGNAL_CONTROL, Control, ControlVerb
from model.status import FleetState
from tests.fleet.conftest import Fleet, until

KEPT = ("Server", "Action", "Procedure", "User")
"""Collections that a rollback brings back as they were."""


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
    """Everything in the database that v1 knows, by collection, without what Core writes all the time."""
    store = fleet.sandbox.store
    names = [n for n in sorted(store.databases["komodo"]) if n not in {"Stats", "Alert"}]
    return {n: sorted(map(repr, store.find("komodo", n))) for n in names}


async def test_a_rollback_undoes_the_runs_before_it_too(fleet: Fleet) -> None:
    """The first run is stopped after Core and the canary; a second one continues, and is rolled back in the middle."""
    before = files(fleet)
    await fleet.worker()
    await fleet.start()
    await fleet.decide(await fleet.gate("core"))
    await fleet.gate("wave/2")
    await fleet.handle.signal(SIGNAL_CONTROL, Control(verb=ControlVerb.STOP, actor="ann"))
    assert (await fleet.handle.result()).state is FleetState.STOPPED

    await fleet.start(change="20261123T230000Z")
    await fleet.decide(await fleet.gate("wave/1"))
    await fleet.gate("wave/2")
    assert files(fleet) != before
    await fleet.handle.signal(SIGNAL_CONTROL, Control(verb=ControlVerb.ROLLBACK, actor="ann", reason="second thoughts"))
    gate = await fleet.gate("rollback")
    assert "back to Core 1.19.5 from 2.3.2" in gate.facts[0]
    assert "LOST" in "\n".join(gate.facts)
    await fleet.decide(gate)
    result = await fleet.handle.result()
    assert result.state is FleetState.ROLLED_BACK, result.detail
    assert [s.state for s in result.servers] == ["rolled back", "rolled back", "stopped", "rolled back"]
    assert files(fleet) == before
    core_and_agents_are_old(fleet)
    servers = fleet.sandbox.store.find("komodo", "Server")
    assert [s.get("info") for s in servers] == [None] * len(servers)
    assert not [n for n in ("OnboardingKey", "Swarm") if n in documents(fleet)]
    for host in fleet.sandbox.hosts.values():
        assert not list(host.root.glob("**/lock")), "every host's lock was released"


def core_and_agents_are_old(fleet: Fleet) -> None:
    core = fleet.sandbox.core
    assert core is not None
    assert core.version == "1.19.5"
    for server in fleet.spec.servers:
        assert fleet.sandbox.agent_version(server.name) == "1.19.5"


async def test_the_scripts_in_the_run_folders_restore_everything_by_hand(fleet: Fleet) -> None:
    """Without worker, Temporal and tool: the lines of the report are enough."""
    before, kept = files(fleet), documents(fleet)
    await fleet.worker()
    await fleet.start()
    result = await fleet.approve_all()
    assert result.state is FleetState.UPGRADED, result.detail
    for worker in fleet.workers:
        worker.kill()
    assert result.core_backup is not None
    await manual_command(fleet, "core", result.core_backup.folder)
    for outcome in result.servers:
        assert outcome.backup is not None
        if outcome.backup.folder != result.core_backup.folder:
            await manual_command(fleet, outcome.name, outcome.backup.folder)

    assert files(fleet) == before
    core_and_agents_are_old(fleet)
    now = documents(fleet)
    assert {n: now[n] for n in KEPT} == {n: kept[n] for n in KEPT}

    async def all_ok() -> bool:
        running = fleet.sandbox.core
        return running is not None and all(s.state == "Ok" for s in running.status.values())

    await until(all_ok, "Core v1 reports Ok for every server")


async def manual_command(fleet: Fleet, host: str, folder: str) -> None:
    """What a person types on that host, a dry run first."""
    state = files(fleet)
    await as_root(fleet, host, f"sh {folder}/restore.sh --dry-run")
    assert files(fleet) == state, "a dry run changed something"
    await as_root(fleet, host, f"sh {folder}/restore.sh")


async def as_root(fleet: Fleet, host: str, command: str, *, folder: str = "") -> None:
    """Run a command on a host with sudo, as a person would who knows its password."""
    one = fleet.sandbox.hosts[host]
    env = {**os.environ, "PATH": f"{one.root}/bin:/usr/bin:/bin", "PASSWORD": one.sudo_password or "none"}
    typed = f'printf "%s\\n" "$PASSWORD" | sudo -S -p "" -v; sudo -n {command}'
    ended = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", typed], env=env, cwd=one.root / folder, capture_output=True, text=True, timeout=90
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
