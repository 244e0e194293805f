"""What can happen to a host during a step: a disk that is read-only, a clock that jumps, a start that fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from model.errors import CommandFailed, DownloadFailed, PermissionRefused, Unreachable
from model.facts import Severity
from model.fleet.spec import Download
from tests.activities.server_fleet import NEW, OLD, Fleet, codes


def installed(fleet: Fleet) -> dict[str, bytes]:
    """All that is in the agent's own folders."""
    folders = (fleet.root("web-1") / "usr/local/bin", fleet.root("web-1") / "etc/komodo")
    found = [p for folder in folders for p in folder.iterdir() if p.is_file() and "bak_v1" not in p.name]
    return {str(p): p.read_bytes() for p in found if ".komodo-upgrade" not in p.name}


async def test_a_read_only_file_system_changes_nothing_and_is_reported(fleet: Fleet) -> None:
    before = installed(fleet)
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("read-only", "web-1", path="etc")
    with pytest.raises(PermissionRefused) as caught:
        await fleet.switch(step)
    for wanted in ("web-1", "Read-only file system", str(fleet.config("web-1").parent)):
        assert wanted in str(caught.value)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert (await fleet.restore(step)).version == OLD
    assert installed(fleet) == before
    fleet.sandbox.heal()
    assert (await fleet.switch(step)).version == NEW


async def test_a_clock_that_jumps_moves_nothing(fleet: Fleet) -> None:
    """A day ahead at the switch, a day behind at the restore."""
    before = installed(fleet)
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("clock-jump", "web-1", seconds=86_400)
    switched = await fleet.switch(step)
    assert switched.version == NEW
    assert (await fleet.verify(step, switched)).by_core
    fleet.sandbox.heal()
    fleet.sandbox.fault("clock-jump", "web-1", seconds=-86_400)
    assert (await fleet.restore(step)).version == OLD
    assert installed(fleet) == before


async def test_a_host_that_never_answers_is_unreachable(fleet: Fleet) -> None:
    """The next step too: nothing waits longer for it than its connection may take."""
    host = replace(fleet.server("web-1").host, connect_timeout=timedelta(seconds=1))
    fleet.sandbox.fault("hang", "web-1")
    await fleet.sandbox.settled()
    facts = await fleet.survey("web-1", host=host)
    assert codes(facts, Severity.REFUSE) == {"unreachable"}
    assert "within 1 s" in facts.findings[0].text


async def test_a_connection_cut_during_the_switch_loses_nothing(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("connection-drop", "web-1", on="systemctl stop", times=1)
    with pytest.raises(Unreachable, match="the job, if it was started, continues"):
        await fleet.switch(step)
    assert (await fleet.switch(step)).version == NEW
    assert [r.argv[:2] for r in fleet.sandbox.mutations("web-1")].count(("systemctl", "start")) == 1


async def test_a_stalled_download_ends(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    step = replace(step, agent=replace(step.agent, download=Download.HOST))
    fleet.sandbox.fault("download-hangs", "web-1", seconds=1)
    with pytest.raises(DownloadFailed, match="Operation too slow") as caught:
        await fleet.stage(step)
    assert 'download = "worker"' in str(caught.value)
    assert not list((fleet.root("web-1") / "var/lib/komodo-upgrade").rglob("*.part"))


async def test_a_restore_that_fails_five_times_and_then_works(fleet: Fleet) -> None:
    fleet = fleet.short()
    before = installed(fleet)
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    fleet.sandbox.fault("start-fails", "web-1", version="1", times=5)
    for _ in range(5):
        with pytest.raises(CommandFailed) as caught:
            await fleet.restore(step)
        for wanted in ("web-1", "the rollback failed", "/restore.sh --dry-run"):
            assert wanted in str(caught.value)
    assert (await fleet.restore(step)).version == OLD
    assert installed(fleet) == before
