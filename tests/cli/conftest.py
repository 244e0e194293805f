"""A Temporal server with the doubles behind it, and the command line as people call it."""

from __future__ import annotations

import asyncio
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
from service import embedded
from service.connection import connect
from service.state import ENV, Running, StateDir

ROOT = Path(__file__).parent.parent.parent
FAKE = embedded.Options(worker="tests.cli.fake_worker")
Call = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No settings of the person who runs the tests; subprocesses find the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("TEMPORAL_") or name in {"KOMODO_UPGRADE_FLEET", "NO_COLOR"}:
                patch.delenv(name)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, _clean_environment: None) -> Iterator[Running]:
    """One supervised server with a worker that serves the doubles."""
    state = StateDir(tmp_path_factory.mktemp("service") / "state")
    try:
        now = asyncio.run(embedded.ensure(state, print, FAKE))
        asyncio.run(_seen_polling(now))
        yield now
    finally:
        asyncio.run(embedded.stop(state, force=True))


async def _seen_polling(now: Running) -> None:
    """A worker says that it is ready a moment before its first poll has reached the server."""
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
    monkeypatch.setattr("cli.follow.LOOK_EVERY", 0.1)
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
    """A fleet that no other test knows."""
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
