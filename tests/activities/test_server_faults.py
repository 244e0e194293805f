"""What may befall a server's machine meanwhile: a disk that is read-only, a clock that jumps, a start that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.periphery import Periphery
from model.errors import CommandFailed, DownloadFailed, PermissionRefused, Unreachable
from model.facts import Severity
from tests.activities.server_fleet import NEW, OLD, Fleet, codes, fleet_of, run


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with fleet_of(tmp_path) as made:
        yield made


def installed(fleet: Fleet) -> dict[str, bytes]:
    """All that is in the agent's own folders."""
    folders = (fleet.root("web-1") / "usr/local/bin", fleet.root("web-1") / "etc/komodo")
    found = [p for folder in folders for p in folder.iterdir() if p.is_file() and "bak_v1" not in p.name]
    return {str(p): p.read_bytes() for p in found if p.name != ".periphery.komodo-upgrade"}


async def test_a_read_only_file_system_changes_nothing_and_is_told(fleet: Fleet) -> None:
    before = installed(fleet)
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("read-only", "web-1", path="etc")
    with pytest.raises(PermissionRefused) as caught:
        await fleet.switch(step)
    for wanted in ("web-1", "Read-only file system", str(fleet.config("web-1"))):
        assert wanted in str(caught.value)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD
    assert installed(fleet) == before
    fleet.sandbox.heal()
    assert (await fleet.switch(step)).version == NEW


async def test_a_clock_that_jumps_moves_nothing(fleet: Fleet) -> None:
    """A day ahead at the switch, a day behind at the way back."""
    before = installed(fleet)
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("clock-jump", "web-1", seconds=86_400)
    switched = await fleet.switch(step)
    assert switched.version == NEW
    assert (await fleet.verify(step, switched)).by_core
    fleet.sandbox.heal()
    fleet.sandbox.fault("clock-jump", "web-1", seconds=-86_400)
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD
    assert installed(fleet) == before


async def test_a_host_that_accepts_and_never_answers_is_merely_away(fleet: Fleet) -> None:
    """The next step too: nothing waits longer for it than its connection may take."""
    host = replace(fleet.server("web-1").host, connect_timeout=timedelta(seconds=1))
    fleet.sandbox.fault("hang", "web-1")
    await fleet.sandbox.settled()
    facts = await fleet.survey("web-1", host=host)
    assert codes(facts, Severity.REFUSE) == {"unreachable"}
    assert "within 1 s" in facts.findings[0].text


async def test_a_link_that_is_cut_in_the_middle_of_the_switch_loses_nothing(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("connection-drop", "web-1", on="systemctl stop", times=1)
    with pytest.raises(Unreachable, match="the job, if it was started, goes on"):
        await fleet.switch(step)
    assert (await fleet.switch(step)).version == NEW
    assert [r.argv[:2] for r in fleet.sandbox.mutations("web-1")].count(("systemctl", "start")) == 1


async def test_a_download_that_brings_nothing_ends_by_itself(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    step = replace(step, backup=await fleet.back_up(step), agent=replace(step.agent, download="host"))
    fleet.sandbox.fault("download-hangs", "web-1", seconds=1)
    with pytest.raises(DownloadFailed, match="Operation too slow") as caught:
        await fleet.stage(step)
    assert 'download = "worker"' in str(caught.value)
    assert not list((fleet.root("web-1") / "var/lib/komodo-upgrade").rglob("*.part"))


async def test_a_way_back_that_fails_five_times_and_then_works(fleet: Fleet) -> None:
    fleet = fleet.short()
    before = installed(fleet)
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    fleet.sandbox.fault("start-fails", "web-1", version="1", times=5)
    for _ in range(5):
        with pytest.raises(CommandFailed) as caught:
            await run(Periphery(fleet.hosts).restore_server, step)
        for wanted in ("web-1", "the way back did not end well", "/restore.sh --dry-run"):
            assert wanted in str(caught.value)
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD
    assert installed(fleet) == before
