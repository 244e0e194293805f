"""The embedded service: started once, reused, restarted after crashes, stopped; it outlives its command."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from model.errors import ServiceRefused, TemporalUnavailable
from model.fleet.file import load
from model.fleet.spec import TASK_QUEUE, FleetSpec, workflow_id
from model.status import UpgradeRequest
from service.connection import connect
from service.embedded import lifecycle, processes, systemd
from service.embedded.state import ENV, Running, StateDir
from service.requests import new_change
from service.upgrades import running
from tests.cli.conftest import FAKE, Call

Fleet = Callable[..., Path]


def quiet(text: str) -> None:
    """Ignore messages."""


async def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """One folder for the tests of this file. Each test starts the service if the previous one stopped it."""
    state = StateDir(tmp_path_factory.mktemp("supervised") / "state")
    yield state
    _clear(state)


@pytest.fixture
def state(shared: StateDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDir]:
    _same_code(shared, monkeypatch)
    monkeypatch.setenv(ENV, str(shared.root))
    yield shared
    _end_upgrades(shared)


def _same_code(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore edits of files during the tests; a test writes "another" to simulate other code."""
    monkeypatch.setattr(lifecycle, "code", lambda: state.read().code.replace("another", "this"))


def _clear(state: StateDir) -> None:
    asyncio.run(lifecycle.stop(state, force=True))
    now = state.read()
    for pid, identity in ((now.server_pid, now.server_identity), (now.worker_pid, now.worker_identity)):
        asyncio.run(processes.end(pid, identity, patience=timedelta(seconds=5)))


def _end_upgrades(state: StateDir) -> None:
    async def end() -> None:
        client = await lifecycle.client(state, state.read())
        for run in await running(client):
            await client.get_workflow_handle(run.workflow_id).terminate()
        deadline = time.monotonic() + 20
        while await running(client):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    if state.supervised():
        asyncio.run(end())


async def begin(now: Running, fleet: FleetSpec) -> None:
    client = await connect({"target_host": now.address})
    request = UpgradeRequest(fleet=fleet, change=new_change())
    await client.start_workflow("UpgradeFleet", request, id=workflow_id(fleet.name), task_queue=TASK_QUEUE)
    deadline = time.monotonic() + 20
    while fleet.name not in await names(now):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def names(now: Running) -> list[str]:
    """Fleets whose upgrades run; none while the server restarts."""
    try:
        return [run.fleet for run in await running(await connect({"target_host": now.address}))]
    except TemporalUnavailable:
        return []


def test_it_outlives_the_command_and_its_terminal(state: StateDir) -> None:
    """The parent is gone, SIGHUP is ignored, and nothing of the service is in the parent's session."""
    code = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from service.embedded import lifecycle
        from service.embedded.state import StateDir
        options = lifecycle.Options(worker="tests.cli.fake_worker")
        now = asyncio.run(lifecycle.ensure(StateDir(Path({str(state.root)!r})), lambda text: None, options))
        print(now.pid)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    pid = int(done.stdout)
    assert state.supervised()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    now = asyncio.run(lifecycle.ensure(state, quiet, FAKE))
    assert (now.pid, now.phase) == (pid, "ready")
    assert state.root.stat().st_mode & 0o777 == 0o700


def test_only_one_supervisor_serves_a_folder_and_every_command_reuses_it(state: StateDir) -> None:
    async def procedure() -> None:
        now = await lifecycle.ensure(state, quiet, FAKE)
        command = [sys.executable, "-P", "-m", "service.embedded.supervisor", "--state", str(state.root)]
        second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(second.wait(), 30) == 3
        both = await asyncio.gather(lifecycle.ensure(state, quiet, FAKE), lifecycle.ensure(state, quiet, FAKE))
        client = await lifecycle.client(state, now)
        kept = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        assert kept.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=90)
        assert {(found.pid, found.server_pid, found.worker_pid) for found in both} == {
            (now.pid, now.server_pid, now.worker_pid)
        }

    asyncio.run(procedure())


def test_a_killed_worker_and_a_killed_server_are_restarted_and_the_upgrade_continues(
    state: StateDir, fleet: Fleet, fleet_name: str
) -> None:
    spec = load(fleet("web-1"))

    async def procedure() -> None:
        now = await lifecycle.ensure(state, quiet, FAKE)
        await begin(now, spec)
        os.kill(now.worker_pid, signal.SIGKILL)
        await until(lambda: state.read().worker_ready and state.read().worker_pid not in (0, now.worker_pid))

        os.kill(now.server_pid, signal.SIGKILL)
        await until(lambda: state.read().server_pid not in (0, now.server_pid))
        assert state.read().port == now.port
        deadline = time.monotonic() + 40
        while await names(now) != [fleet_name]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert state.read().restarts == {"server": 1, "worker": 1}

    asyncio.run(procedure())


def test_down_is_refused_while_an_upgrade_runs_and_another_release_does_not_continue_it(
    state: StateDir, fleet: Fleet, fleet_name: str
) -> None:
    """A forced stop loses nothing: the same release, or --force, continues the upgrade."""
    spec = load(fleet("web-1"))

    async def procedure() -> None:
        now = await lifecycle.ensure(state, quiet, FAKE)
        await begin(now, spec)
        with pytest.raises(ServiceRefused, match=f"an upgrade is running: {fleet_name}"):
            await lifecycle.stop(state)
        assert state.supervised()
        last = state.read()
        assert await lifecycle.stop(state, force=True)
        assert not state.supervised()
        for pid, identity in ((last.server_pid, last.server_identity), (last.worker_pid, last.worker_identity)):
            assert not processes.is_alive(pid, identity)
        assert state.read().phase == "stopped"
        assert not await lifecycle.stop(state)

        state.write(replace(state.read(), release="0.0.1"))
        with pytest.raises(ServiceRefused, match=f"{fleet_name} running, begun by release 0.0.1"):
            await lifecycle.ensure(state, quiet, FAKE)
        assert state.read().worker_pid == 0
        later = await lifecycle.ensure(state, quiet, replace(FAKE, anyway=True))
        assert later.worker_ready
        assert later.port == now.port, "an operator's own `temporal --address` still works"
        assert await names(later) == [fleet_name]

    asyncio.run(procedure())


def test_a_supervisor_ends_what_a_killed_one_left_running(state: StateDir) -> None:
    """The old server still has the database open; it is ended before the file is opened again."""

    async def procedure() -> None:
        first = await lifecycle.ensure(state, quiet, FAKE)
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: not state.supervised())
        assert processes.is_alive(first.server_pid, first.server_identity)
        second = await lifecycle.ensure(state, quiet, FAKE)
        assert second.pid != first.pid
        assert not processes.is_alive(first.server_pid, first.server_identity)
        assert not processes.is_alive(first.worker_pid, first.worker_identity)

    asyncio.run(procedure())


def test_the_worker_gets_this_shells_secrets_and_no_file_contains_them(
    state: StateDir, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct-horse-battery-staple"
    references = '[ssh]\nsudo = { password_env = "FAKE_SECRET" }\n'
    shown: list[str] = []

    async def procedure() -> None:
        now = await lifecycle.ensure(state, quiet, FAKE)
        spec = load(fleet("web-1", extra=references))
        assert await lifecycle.share_environment(now, spec, shown.append) is False
        monkeypatch.setenv("FAKE_SECRET", secret)
        assert await lifecycle.share_environment(now, spec, shown.append) is True
        after = await lifecycle.wait_for_worker(state)
        assert after.worker_pid != now.worker_pid
        assert (state.root / "fake-worker.env").read_text() == secret
        (state.root / "fake-worker.env").unlink()
        assert await lifecycle.share_environment(after, spec, shown.append) is False
        # A shell without the variable does not remove it.
        monkeypatch.delenv("FAKE_SECRET")
        assert await lifecycle.share_environment(after, spec, shown.append) is False

    asyncio.run(procedure())
    assert shown == ["the worker starts again with this shell's FAKE_SECRET"]
    for file in state.root.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_other_code_replaces_an_idle_service_and_leaves_a_busy_one(
    state: StateDir, fleet: Fleet, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(fleet("web-1"))
    shown: list[str] = []

    async def procedure() -> None:
        first = await lifecycle.ensure(state, quiet, FAKE)
        state.write(replace(state.read(), code="another"))
        second = await lifecycle.ensure(state, shown.append, FAKE)
        assert second.pid != first.pid
        assert shown == ["the service here runs other code than this command: replacing it"]

        await begin(second, spec)
        state.write(replace(state.read(), code="another"))
        third = await lifecycle.ensure(state, shown.append, FAKE)
        assert third.pid == second.pid
        assert shown[-1] == f"an upgrade is running ({fleet_name}): the service keeps the code it was started with"
        state.write(replace(state.read(), code="another", release="0.0.1"))
        with pytest.raises(ServiceRefused, match=f"release 0.0.1 and upgrades {fleet_name}"):
            await lifecycle.ensure(state, shown.append, FAKE)

    asyncio.run(procedure())


# --- the commands -----------------------------------------------------------------------------------------------------


def test_up_and_down_as_commands(state: StateDir, offline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, str(state.root))
    monkeypatch.setattr(lifecycle, "spawn", lambda at, options: _spawn(at))
    up = offline("up")
    now = state.read()
    assert f"Temporal at {now.address} (namespace default), worker pid {now.worker_pid}" in up.stdout
    assert "komodo-upgrade down" in up.stderr
    offline("list")
    assert offline("down").stdout == "stopped\n"
    assert not state.supervised()


_real_spawn = lifecycle.spawn


def _spawn(state: StateDir) -> int:
    return _real_spawn(state, FAKE)


def test_the_unit_for_systemd_names_this_python_and_folder(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    text = systemd.unit(state)
    assert f"ExecStart={sys.executable} -P -m service.embedded.supervisor --state {state.root}" in text
    assert "KillMode=mixed" in text
    monkeypatch.setattr("service.embedded.systemd.shutil.which", lambda name: None)
    with pytest.raises(ServiceRefused, match="no systemd"):
        systemd.install(state)
