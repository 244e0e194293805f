"""An embedded service as its owner runs it, and an adversary who reaches its port but has no key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from model.fleet.file import load
from model.fleet.spec import FleetSpec
from service.embedded import lifecycle
from service.embedded.state import Running, StateDir
from service.payloads import data_converter


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """The state folder of a running embedded service with the real worker."""
    made = StateDir(tmp_path_factory.mktemp("adversary") / "state")
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("TEMPORAL_"):
                patch.delenv(name)
        asyncio.run(lifecycle.ensure(made, print))
    try:
        yield made
    finally:
        asyncio.run(lifecycle.stop(made, force=True))


@pytest.fixture
def now(state: StateDir) -> Running:
    """What everyone on the machine can find out: address and pids."""
    return state.read()


@pytest.fixture
async def owner(state: StateDir, now: Running) -> Client:
    """The client of the one who started the service."""
    return await lifecycle.client(state, now)


@pytest.fixture
async def adversary(now: Running) -> Client:
    """A client without the key ring: any local user's."""
    return await Client.connect(now.address, data_converter=data_converter)


@pytest.fixture
def fleet_of(tmp_path: Path) -> Callable[[str, Path], FleetSpec]:
    """A fleet whose passphrase command leaves a mark on this machine when it runs."""

    def make(name: str, mark: Path) -> FleetSpec:
        key = tmp_path / "id_test"
        key.write_text("no key")
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f"""
[fleet]
name = "{name}"
target = "2.3.2"
[ssh]
key_files = ["{key}"]
sudo = "none"
passphrase_command = "id > {mark}; echo x"
[core]
host = "127.0.0.1"
[[server]]
name = "web-1"
host = "127.0.0.1"
"""
        )
        return load(str(path))

    return make
