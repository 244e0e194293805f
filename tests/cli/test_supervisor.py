"""The embedded service: started once, reused, healed, drained; it outlives the command that started it."""

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

from cli.checking import stamp
from model.errors import ServiceRefused, TemporalUnavailable
from model.fleet import TASK_QUEUE, FleetSpec, workflow_id
from model.fleet_file import load
from model.progress import UpgradeRequest
from service import embedded, processes, systemd
from service.connection import connect
from service.state import ENV, Running, StateDir
from service.upgrades import running
from tests.cli.conftest import FAKE, Call

Fleet = Callable[..., Path]


def quiet(text: str) -> None:
    """Nobody listens."""


async def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """One folder for the tests of this file, in their order; each brings up what the one before left down."""
    state = StateDir(tmp_path_factory.mktemp("supervised") / "state")
    yield state
    _clear(state)


@pytest.fixture
def state(shared: StateDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDir]:
    _same_code(shared, monkeypatch)
    monkeypatch.setenv(ENV, str(shared.root))
    yield shared
    _end_upgrades(shared)


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDir]:
    """For a service that cannot be shared."""
    found = StateDir(tmp_path / "state")
    _same_code(found, monkeypatch)
    yield found
    _clear(found)


def _same_code(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files edited while the tests run are no other release; "another" is what a test writes for one."""
    monkeypatch.setattr(embedded, "code", lambda: state.read().code.replace("another", "this"))


def _clear(state: StateDir) -> None:
    asyncio.run(embedded.stop(state, force=True))
    now = state.read()
    for pid, identity in ((now.server_pid, now.server_identity), (now.worker_pid, now.worker_identity)):
        asyncio.run(processes.end(pid, identity, patience=timedelta(seconds=5)))


def _end_upgrades(state: StateDir) -> None:
    async def end() -> None:
        client = await embedded.client(state, state.read())
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
    request = UpgradeRequest(fleet=fleet, change=stamp())
    await client.start_workflow("UpgradeFleet", request, id=workflow_id(fleet.name), task_queue=TASK_QUEUE)
    deadline = time.monotonic() + 20
    while fleet.name not in await names(now):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def names(now: Running) -> list[str]:
    """Fleets whose upgrades run; none while the server is between two lives."""
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
        from service import embedded
        from service.state import StateDir
        options = embedded.Options(worker="tests.cli.fake_worker")
        now = asyncio.run(embedded.ensure(StateDir(Path({str(state.root)!r})), lambda text: None, options))
        print(now.pid)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    pid = int(done.stdout)
    assert state.supervised()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    now = asyncio.run(embedded.ensure(state, quiet, FAKE))
    assert (now.pid, now.phase) == (pid, "ready")
    assert state.root.stat().st_mode & 0o777 == 0o700


def test_only_one_supervisor_serves_a_folder_and_every_command_reuses_it(state: StateDir) -> None:
    async def story() -> None:
        now = await embedded.ensure(state, quiet, FAKE)
        command = [sys.executable, "-P", "-m", "service.supervisor", "--state", str(state.root)]
        second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(second.wait(), 30) == 3
        both = await asyncio.gather(embedded.ensure(state, quiet, FAKE), embedded.ensure(state, quiet, FAKE))
        assert {(found.pid, found.server_pid, found.worker_pid) for found in both} == {
            (now.pid, now.server_pid, now.worker_pid)
        }

    asyncio.run(story())


def test_closed_upgrades_are_kept_90_days(state: StateDir) -> None:
    async def story() -> None:
        client = await embedded.client(state, await embedded.ensure(state, quiet, FAKE))
        kept = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        assert kept.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=90)

    asyncio.run(story())


def test_a_killed_worker_and_a_killed_server_come_back_and_the_upgrade_lives_on(
    state: StateDir, fleet: Fleet, fleet_name: str
) -> None:
    spec = load(fleet("web-1"))

    async def story() -> None:
        now = await embedded.ensure(state, quiet, FAKE)
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

    asyncio.run(story())


def test_down_is_refused_while_an_upgrade_runs_and_a_forced_one_loses_nothing(
    state: StateDir, fleet: Fleet, fleet_name: str
) -> None:
    spec = load(fleet("web-1"))

    async def story() -> None:
        now = await embedded.ensure(state, quiet, FAKE)
        await begin(now, spec)
        with pytest.raises(ServiceRefused, match=f"an upgrade is running: {fleet_name}"):
            await embedded.stop(state)
        assert state.supervised()
        last = state.read()
        assert await embedded.stop(state, force=True)
        assert not state.supervised()
        for pid, identity in ((last.server_pid, last.server_identity), (last.worker_pid, last.worker_identity)):
            assert not processes.is_alive(pid, identity)
        assert state.read().phase == "stopped"
        assert not await embedded.stop(state)

        later = await embedded.ensure(state, quiet, FAKE)
        assert later.port == now.port  # people's own `temporal --address` goes on to work
        assert await names(later) == [fleet_name]

    asyncio.run(story())


def test_a_killed_supervisor_leaves_nothing_that_its_successor_does_not_clear(state: StateDir) -> None:
    """The server lives on and has the database open: the next one ends it before it opens the file."""

    async def story() -> None:
        first = await embedded.ensure(state, quiet, FAKE)
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: not state.supervised())
        assert processes.is_alive(first.server_pid, first.server_identity)
        second = await embedded.ensure(state, quiet, FAKE)
        assert second.pid != first.pid
        assert not processes.is_alive(first.server_pid, first.server_identity)
        assert not processes.is_alive(first.worker_pid, first.worker_identity)

    asyncio.run(story())


def test_a_worker_that_cannot_start_is_reported_with_its_log(
    own_state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WORKER", "crash")
    with pytest.raises(ServiceRefused, match="the fake worker was told to crash"):
        asyncio.run(embedded.ensure(own_state, quiet, FAKE))


def test_the_worker_gets_this_shells_secrets_and_nothing_of_them_is_written_down(
    state: StateDir, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct-horse-battery-staple"
    references = '[ssh]\nsudo = { password_env = "FAKE_SECRET" }\n'
    said: list[str] = []

    async def story() -> None:
        now = await embedded.ensure(state, quiet, FAKE)
        spec = load(fleet("web-1", extra=references))
        assert await embedded.share_environment(now, spec, said.append) is False
        monkeypatch.setenv("FAKE_SECRET", secret)
        assert await embedded.share_environment(now, spec, said.append) is True
        after = await embedded.wait_for_worker(state)
        assert after.worker_pid != now.worker_pid
        assert (state.root / "fake-worker.env").read_text() == secret
        (state.root / "fake-worker.env").unlink()
        assert await embedded.share_environment(after, spec, said.append) is False
        # A shell without the variable takes nothing away.
        monkeypatch.delenv("FAKE_SECRET")
        assert await embedded.share_environment(after, spec, said.append) is False

    asyncio.run(story())
    assert said == ["the worker starts again with this shell's FAKE_SECRET"]
    for file in state.root.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_other_code_replaces_an_idle_service_and_leaves_a_busy_one(
    state: StateDir, fleet: Fleet, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(fleet("web-1"))
    said: list[str] = []

    async def story() -> None:
        first = await embedded.ensure(state, quiet, FAKE)
        state.write(replace(state.read(), code="another"))
        second = await embedded.ensure(state, said.append, FAKE)
        assert second.pid != first.pid
        assert said == ["the service here runs other code than this command: replacing it"]

        await begin(second, spec)
        state.write(replace(state.read(), code="another"))
        third = await embedded.ensure(state, said.append, FAKE)
        assert third.pid == second.pid
        assert said[-1] == f"an upgrade is running ({fleet_name}): the service keeps the code it was started with"
        state.write(replace(state.read(), code="another", release="0.0.1"))
        with pytest.raises(ServiceRefused, match=f"release 0.0.1 and upgrades {fleet_name}"):
            await embedded.ensure(state, said.append, FAKE)

    asyncio.run(story())


def test_after_an_update_an_unfinished_upgrade_is_not_touched_without_a_word(
    state: StateDir, fleet: Fleet, fleet_name: str
) -> None:
    spec = load(fleet("web-1"))

    async def story() -> None:
        now = await embedded.ensure(state, quiet, FAKE)
        await begin(now, spec)
        await embedded.stop(state, force=True)
        state.write(replace(state.read(), release="0.0.1"))
        with pytest.raises(ServiceRefused, match=f"{fleet_name} running, begun by release 0.0.1"):
            await embedded.ensure(state, quiet, FAKE)
        assert state.read().worker_pid == 0
        served = await embedded.ensure(state, quiet, replace(FAKE, anyway=True))
        assert served.worker_ready

    asyncio.run(story())


# --- the commands -----------------------------------------------------------------------------------------------------


def test_up_and_down_as_commands(state: StateDir, offline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, str(state.root))
    monkeypatch.setattr(embedded, "spawn", lambda at, options: _spawn(at))
    up = offline("up")
    now = state.read()
    assert f"Temporal at {now.address} (namespace default), worker pid {now.worker_pid}" in up.stdout
    assert "komodo-upgrade down" in up.stderr
    offline("list")
    assert offline("down").stdout == "stopped\n"
    assert not state.supervised()


_real_spawn = embedded.spawn


def _spawn(state: StateDir) -> int:
    return _real_spawn(state, FAKE)


def test_the_unit_for_systemd_names_this_python_and_folder(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    text = systemd.unit(state)
    assert f"ExecStart={sys.executable} -P -m service.supervisor --state {state.root}" in text
    assert "KillMode=mixed" in text
    monkeypatch.setattr("service.systemd.shutil.which", lambda name: None)
    with pytest.raises(ServiceRefused, match="no systemd"):
        systemd.install(state)
