"""The run folders: what they record of an upgrade and of its end, when there is no other record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.fleet.run_folders import Folders
from model.errors import HostLocked
from model.facts import HELD, Severity, installation
from model.run_folders import CleanHost, HostFolders, SavedChange, ScanHost, Unwanted
from tests.activities.core_fleet import CHANGE as CORE_CHANGE
from tests.activities.core_fleet import Bench, bench
from tests.activities.server_fleet import CHANGE, NEW, OLD, Fleet, fleet_of, run


async def core_folders(b: Bench, *, brief: bool = False) -> HostFolders:
    ask = ScanHost(fleet=b.fleet.name, core=b.fleet.core, brief=brief)
    found = await run(Folders(b.hosts).scan_run_folders, ask)
    assert found.problem == ""
    return found


async def test_run_folders_of_core_through_upgrade_and_rollback(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await core_folders(b)).changes == ()
        await b.backed_up()
        [nothing] = (await core_folders(b)).changes
        assert (nothing.in_place, nothing.state, nothing.dump) == (False, "nothing was switched", None)
        await b.core.stop_core(b.step)
        [stopped] = (await core_folders(b)).changes
        assert stopped.in_place
        assert "stopped for the upgrade" in stopped.state
        await b.back.start_old_core(b.step)
        [again] = (await core_folders(b)).changes
        assert not again.in_place
        assert again.state.startswith("restored at ")

        b.next_attempt()
        final = await b.upgraded_from_backup()
        [found] = (await core_folders(b)).changes
        assert found.in_place, found
        assert found.state.startswith("in place since ")
        assert (found.change, found.version, found.target, found.attempt) == (CORE_CHANGE, OLD, NEW, 2)
        assert found.dump == final
        assert found.agent_switched
        assert found.problem == ""
        assert found.bytes > 10_000
        assert found.core is not None
        assert installation(found.core) == replace(b.step.facts, findings=(), sources=(), edits=found.core.edits)
        assert found.backup
        saved = b.saved
        assert saved
        assert [(f.path, f.saved_as, f.sha256) for f in found.backup.files] == [
            (f.path, f.saved_as, f.sha256) for f in saved.files
        ]
        assert found.backup.restore_command == saved.restore_command
        assert len(found.image_pins) == 4
        brief = (await core_folders(b, brief=True)).changes[0]
        assert (brief.dump, brief.in_place) == (None, True)

        # A person, by hand.
        done = await b.manual_command(f"sudo sh {found.folder}/restore.sh")
        assert done.exit_status == 0, done.stderr
        [back] = (await core_folders(b)).changes
        assert not back.in_place


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_of(tmp_path) as fleet:
        yield fleet


async def read(fleet: Fleet, name: str = "web-1") -> HostFolders:
    ask = ScanHost(fleet=fleet.spec.name, server=fleet.server(name))
    return await run(Folders(fleet.hosts).scan_run_folders, ask)


async def only(fleet: Fleet) -> SavedChange:
    [change] = (await read(fleet)).changes
    return change


async def test_a_scan_is_repeated_after_a_broken_connection(servers: Fleet) -> None:
    await servers.ready("web-1")
    for command in (1, 2):
        servers.sandbox.fault("connection-drop", "web-1", at=command, times=1)
        host = await read(servers)
        assert (host.problem, [one.problem for one in host.changes]) == ("", [""])
        assert not servers.sandbox.world.faults.any("web-1"), "it was cut"


async def test_run_folders_of_a_server_and_a_manifest_that_cannot_be_read(servers: Fleet) -> None:
    step = await servers.ready("web-1")
    saved = await only(servers)
    assert (saved.in_place, saved.state) == (False, "nothing was switched")
    await servers.switch(step)
    host = await read(servers)
    assert host.running == NEW
    assert host.lock == f"{servers.spec.name} {CHANGE}"
    [found] = host.changes
    assert found.in_place
    assert (found.name, found.version, found.target, found.attempt) == ("web-1", OLD, NEW, 1)
    assert found.backup == step.backup
    assert found.server
    assert found.server.binary_sha256 == step.facts.binary_sha256
    assert host.newest() == host.newest(CHANGE) == found
    assert host.newest("20200101T000000Z") is None

    folder = Path(found.folder)
    manifest = folder / "manifest.json"
    text = await asyncio.to_thread(manifest.read_text)
    for secret in servers.sandbox.secrets:
        assert secret not in text
    await asyncio.to_thread(manifest.write_text, json.dumps({**json.loads(text), "format": 7}))
    newer = await only(servers)
    assert newer.in_place
    assert "has format 7, this version knows 1" in newer.problem
    assert "restore.sh" in newer.problem
    await asyncio.to_thread(manifest.write_text, text[:200])
    assert "damaged" in (await only(servers)).problem
    broken = json.loads(text)
    del broken["facts"]["name"]
    await asyncio.to_thread(manifest.write_text, json.dumps(broken))
    assert "incomplete: name" in (await only(servers)).problem
    await asyncio.to_thread(manifest.write_text, text)
    copy = folder / "files" / "periphery.config.toml"
    good = await asyncio.to_thread(copy.read_bytes)
    await asyncio.to_thread(copy.write_bytes, good + b"#")
    assert "not what was saved" in (await only(servers)).problem
    await asyncio.to_thread(copy.write_bytes, good)

    await servers.restore(step)
    back = await only(servers)
    assert not back.in_place
    assert back.state.startswith("restored at ")


async def test_folders_are_removed_on_request_except_of_running_jobs_and_other_fleets(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.staged()
        [found] = (await core_folders(b)).changes
        assert len(found.image_pins) == 4
        ask = CleanHost(
            fleet=b.fleet.name,
            change="20261201T000000Z",
            unwanted=Unwanted(name="core", changes=(CORE_CHANGE,), image_pins=found.image_pins),
            core=b.fleet.core,
        )
        owner = b.folder.parent.parent / "lock" / "owner"
        mine = owner.read_text()
        owner.write_text("staging 20261101T000000Z\n2026-11-01T00:00:00Z\n")
        with pytest.raises(HostLocked, match="20261101T000000Z of the fleet staging"):
            await run(Folders(b.hosts).clean_host, ask)
        assert b.folder.is_dir()
        [refused] = [f for f in (await b.survey()).findings if f.code == "host-locked"]
        assert (
            "the upgrade 20261101T000000Z of the fleet staging holds this host, since 2026-11-01T00:00:00Z"
            in refused.text
        )
        assert "none of its jobs runs right now" in refused.text
        assert "thirty days after its last use" in refused.hint
        owner.write_text(mine)
        [reported] = [f for f in (await b.survey()).findings if f.code == HELD]
        assert f"the upgrade {CORE_CHANGE} of this fleet holds Core's host, since 2" in reported.text
        assert reported.severity is Severity.WARN

        done = await run(Folders(b.hosts).clean_host, ask)
        assert f"container {found.image_pins[0]}" in done.removed
        assert [one for one in done.removed if one.startswith("image sha256:")], "the new images, which nothing uses"
        assert str(b.folder) in done.removed
        assert not b.folder.parent.exists()
        assert not owner.parent.exists()
        assert (b.project / "compose.env.bak_v1").is_file()
        assert b.sandbox.core
        assert b.sandbox.core.version == OLD
        assert (await run(Folders(b.hosts).clean_host, ask)).removed == ()
