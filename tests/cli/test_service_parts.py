"""What the embedded service is made of: its folder, its socket, fingerprints of secrets, the bundled server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

from model.errors import ServiceRefused, TemporalUnavailable
from model.fleet.file import load
from service.embedded import lifecycle, processes, server
from service.embedded.child import Child
from service.embedded.control import Control, ask
from service.embedded.inhibit import Inhibitor
from service.embedded.state import ENV, Running, StateDir, default_root
from service.secret_fingerprints import fingerprint, referenced

Fleet = Callable[..., Path]


async def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        await asyncio.sleep(0.05)


def test_a_long_path_still_gets_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()

    async def procedure() -> dict[str, object]:
        async def answer(request: object) -> dict[str, object]:
            return {"got": request}

        async with Control(deep, answer) as control:
            assert (control.path.stat().st_mode & 0o777) == 0o600
            reply = await ask(str(control.path), "echo", x=1)
        assert not control.path.parent.exists()
        return reply

    assert asyncio.run(procedure()) == {"got": {"do": "echo", "x": 1}}


def test_where_nobody_answers_the_control_says_so(tmp_path: Path) -> None:
    with pytest.raises(ServiceRefused, match="does not answer"):
        asyncio.run(ask(str(tmp_path / "none.sock"), "status"))


def test_fingerprints_say_nothing_about_the_value() -> None:
    assert fingerprint(None, "salt") == ""
    assert fingerprint("x", "salt") != fingerprint("x", "pepper")
    assert fingerprint("x", "salt") == fingerprint("x", "salt")
    assert len(fingerprint("", "salt")) == 16


def test_referenced_variables_of_a_fleet(fleet: Fleet) -> None:
    extra = '[ssh]\npassphrase_env = "PASS"\nsudo = { password_env = "SUDO" }\n'
    assert referenced(load(fleet("web-1", extra=extra))) == ("SSH_AUTH_SOCK", "PASS", "SUDO")


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    own = processes.identity(os.getpid())
    assert own
    assert processes.is_alive(os.getpid(), own)
    assert not processes.is_alive(os.getpid(), "1")
    assert not processes.is_alive(0, "")
    asyncio.run(processes.end(os.getpid(), "not me", patience=timedelta(seconds=1)))


def test_the_state_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_root() == Path("/x/komodo-upgrade")
    monkeypatch.setenv(ENV, "~/y")
    assert default_root() == Path.home() / "y"


def test_an_unreadable_state_file_is_no_service(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    (tmp_path / "supervisor.json").write_text("{")
    assert state.read() == Running()
    (tmp_path / "supervisor.json").write_text('{"phase": "ready", "from_a_later_release": 1}')
    assert state.read() == Running(phase="ready")


def test_the_bundled_server_is_found_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert server.binary().name == "temporal"
    monkeypatch.setattr("service.embedded.server.metadata.distribution", _missing)
    with pytest.raises(TemporalUnavailable, match="no Temporal server is installed"):
        server.binary()


def _missing(name: str) -> None:
    raise metadata.PackageNotFoundError(name)


def test_sleep_is_inhibited_while_something_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for systemd-inhibit: the real one needs a login session."""
    tool = tmp_path / "systemd-inhibit"
    marks = tmp_path / "marks"
    tool.write_text(f'#!/bin/sh\necho "$*" > {marks}\ncat >/dev/null\nrm {marks}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("service.embedded.inhibit.POLL_SECONDS", 0.05)
    answers = iter([True, True, False])

    async def procedure() -> None:
        async def busy() -> bool:
            return next(answers, False)

        class Ready:
            ready = True

        task = asyncio.create_task(Inhibitor(busy).run(Ready()))  # type: ignore[arg-type]
        await until(marks.exists, 10)
        assert "--what=sleep:idle" in marks.read_text()
        await until(lambda: not marks.exists(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(procedure())


async def test_a_life_that_ended_before_it_was_ready_is_a_failure_and_a_kill_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.embedded.child.FIRST_DELAY", 0.01)
    may_be_ready = asyncio.Event()
    child = Child(
        "worker",
        prepare=lambda: (["/bin/sh", "-c", "sleep 0.05" if not may_be_ready.is_set() else "exec sleep 60"], {}),
        open_log=lambda: (tmp_path / "log").open("ab"),
        patience=timedelta(seconds=5),
        changed=lambda: None,
        started=lambda: _set(may_be_ready),
    )
    child.start()
    await asyncio.to_thread(wait_until, lambda: child.failures >= 3)
    assert not child.ready
    may_be_ready.set()
    for number in range(1, 5):
        await asyncio.to_thread(wait_until, lambda: child.ready and child.pid != 0)
        assert child.failures == 0
        os.kill(child.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, partial(lambda lives: child.restarts >= lives, child.restarts + 1))
        assert child.failures == 0, number
    await child.stop()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[StateDir]:
    """A folder whose supervisor is this process."""
    state = StateDir(tmp_path / "state").make()
    me = os.getpid()
    with state.lock("supervisor"):
        state.write(Running(phase="ready", address="127.0.0.1:1", pid=me, identity=processes.identity(me)))
        yield state


async def test_a_worker_between_two_lives_is_waited_for_however_often_it_was_killed(supervised: StateDir) -> None:
    supervised.update(supervised.read(), restarts={"worker": 7}, failures={"worker": 0})
    waiting = asyncio.create_task(lifecycle._settled(supervised, time.monotonic() + 20))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    supervised.update(supervised.read(), worker_ready=True)
    assert (await waiting).worker_ready


async def test_a_crash_loop_gets_one_more_try_from_each_command_and_is_reported_with_the_workers_log(
    supervised: StateDir,
) -> None:
    supervised.update(supervised.read(), restarts={"worker": 9}, failures={"worker": 9})
    supervised.log("worker").write_text("ImportError: no module named temporalio\n")
    waiting = asyncio.create_task(lifecycle._settled(supervised, time.monotonic() + 20))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    supervised.update(supervised.read(), restarts={"worker": 10}, failures={"worker": 10})
    with pytest.raises(ServiceRefused, match="ImportError: no module named temporalio"):
        await waiting
