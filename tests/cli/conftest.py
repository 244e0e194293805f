"""A Temporal server whose worker serves the doubles, and the command line as a user calls it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.app import cli
from cli.session import Session
from model.errors import NoWorker
from service.codec import key_ring
from service.connection import connect
from service.embedded import lifecycle
from service.embedded.state import ENV, Running, StateDir

ROOT = Path(__file__).parent.parent.parent
FAKE = lifecycle.Options(worker="tests.cli.fake_worker")
Call = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Remove the settings of whoever runs the tests; let subprocesses import the tests' modules."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("TEMPORAL_") or name in {"KOMODO_UPGRADE_FLEET", "NO_COLOR"}:
                patch.delenv(name)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> StateDir:
    """The state folder of the service that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return StateDir(shared / "service")


@pytest.fixture(scope="session")
def service(shared_state: StateDir, _clean_environment: None) -> Iterator[Running]:
    """One supervised server, with a worker that serves the doubles, for all test processes. The last one stops it."""
    state, shared = shared_state, shared_state.root.parent
    users = shared / "service-users"
    with _locked(shared):
        now = asyncio.run(lifecycle.ensure(state, print, FAKE))
        users.write_text(str(_count(users) + 1))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(key_ring.ENV_FILE, str(state.key_ring))
            asyncio.run(_polled(now))
        yield now
    finally:
        with _locked(shared):
            users.write_text(str(_count(users) - 1))
            if not _count(users):
                asyncio.run(lifecycle.stop(state, force=True))


def _count(users: Path) -> int:
    return int(users.read_text()) if users.exists() else 0


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "service-lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _keys(request: pytest.FixtureRequest, shared_state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients and commands of a test that uses the service share its key ring."""
    if "service" in request.fixturenames:
        monkeypatch.setenv(key_ring.ENV_FILE, str(shared_state.key_ring))


async def _polled(now: Running) -> None:
    """Wait until the server knows the worker, which reports that it is ready a moment before its first poll."""
    session = Session(client=await connect({"target_host": now.address}))
    deadline = time.monotonic() + 20
    while True:
        try:
            return await session.require_worker()
        except NoWorker:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The command in an empty folder, with an empty state folder and no Temporal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENV, str(tmp_path / "state"))
    return _call


@pytest.fixture
def komodo_upgrade(service: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The command, served by the doubles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENV, str(tmp_path / "state"))
    monkeypatch.setenv("TEMPORAL_ADDRESS", service.address)
    monkeypatch.setattr("cli.follow.POLL_SECONDS", 0.1)
    return _call


def _call(*arguments: str, code: int = 0, text: str = "") -> Result:
    result = CliRunner().invoke(cli, arguments, input=text or None, prog_name="komodo-upgrade")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, f"exit {result.exit_code}\n--- out\n{result.stdout}\n--- err\n{result.stderr}"
    return result


_NUMBERS = itertools.count(1)


@pytest.fixture
def fleet_name() -> str:
    """A fleet name that no other test uses."""
    return f"fleet-{os.getpid()}-{next(_NUMBERS)}"


@pytest.fixture
def fleet(tmp_path: Path, fleet_name: str) -> Callable[..., Path]:
    """Write ./fleet.toml for servers with these names."""

    def write(*servers: str, extra: str = "") -> Path:
        lines = [f'[fleet]\nname = "{fleet_name}"\ntarget = "2.3.2"\n', extra, '[core]\nhost = "core.example.net"\n']
        lines += [f'[[server]]\nname = "{s}"\nhost = "10.0.0.{i}"\n' for i, s in enumerate(servers, 1)]
        path = tmp_path / "fleet.toml"
        path.write_text("\n".join(lines))
        return path

    return write
