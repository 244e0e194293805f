"""An upgrade over real sshd changes the files of the benchmark's machines. Runs neither other tools nor Temporal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import machines
from bench.compare import GOOD
from bench.contestants import Fleet
from bench.peers.plain import upgrade_all
from service.embedded.server import free_port

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not Path(machines.SSHD).exists(), reason="needs root and OpenSSH's server"
)


async def test_the_plain_script_upgrades_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "PORT", free_port())
    monkeypatch.setenv("KU_BENCH_PORT", str(machines.PORT))
    async with Fleet.up(tmp_path, 1) as fleet:
        before = (await fleet.seen())["h001"]
        assert before["version"] == before["runs"] == machines.OLD
        assert not before["proven"]
        await upgrade_all(tmp_path, machines.names(1), fleet.site)
        after = (await fleet.seen())["h001"]
        assert {fact: after[fact] for fact in GOOD} == GOOD
        assert (after["downloads"], after["stops"], after["starts"], after["left"]) == (1, 1, 1, [])
        assert fleet.stopped() == 1
        await upgrade_all(tmp_path, machines.names(1), fleet.site)
        again = (await fleet.seen())["h001"]
        assert (again["downloads"], again["stops"]) == (1, 1)
        await fleet.reset()
        assert (await fleet.seen())["h001"]["version"] == machines.OLD
