"""The host's lock: who holds it, who may take it over, and when it is given back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from hosts.host import Completed
from hosts.script import Script
from model.errors import HostLocked

from .conftest import CHANGE, Machine, until
from .test_jobs import COUNT, SLOW, list_all, runs, start


async def test_another_fleet_is_refused(machine: Machine) -> None:
    await start(machine, Script("t", ":"))
    later = "20261201T000000Z"
    with pytest.raises(HostLocked) as caught:
        await machine.host.job(
            f"{later}/web-1/1/step",
            f"{machine.spec.state_dir}/staging/{later}",
            Script("t", ":"),
            change=later,
            timeout=timedelta(seconds=20),
        )
    text = str(caught.value)
    assert f"{CHANGE} of the fleet prod" in text
    assert "since 20" in text
    assert f"rm -r {machine.spec.state_dir}/lock" in text


async def test_an_older_change_is_taken_over_unless_its_job_lives(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    old = asyncio.create_task(start(machine, SLOW, str(count), str(go)))
    await until(lambda: runs(count))
    later = "20261201T000000Z"

    async def take_over() -> Completed:
        folder = f"{machine.spec.state_dir}/prod/{later}"
        return await machine.host.job(
            f"{later}/web-1/1/step", folder, Script("t", ":"), change=later, timeout=timedelta(seconds=20)
        )

    with pytest.raises(HostLocked, match="still has a job running"):
        await take_over()
    go.touch()
    await old
    await take_over()
    assert (Path(machine.spec.state_dir) / "lock" / "owner").read_text().startswith(f"prod {later}\n")
    await machine.host.unlock(CHANGE)
    assert (Path(machine.spec.state_dir) / "lock").is_dir()
    await machine.host.unlock(later)
    assert not (Path(machine.spec.state_dir) / "lock").exists()
    await machine.host.unlock(later)


async def test_many_take_over_at_once(machine: Machine) -> None:
    await start(machine, Script("t", ":"))
    later = "20261201T000000Z"
    folder = f"{machine.spec.state_dir}/prod/{later}"
    count = machine.server.folder / "count"
    await asyncio.gather(
        *(
            machine.host.job(
                f"{later}/web-1/1/step-{n}",
                folder,
                Script("t", COUNT),
                str(count),
                change=later,
                timeout=timedelta(seconds=30),
            )
            for n in range(6)
        )
    )
    assert runs(count) == 6
    assert (Path(machine.spec.state_dir) / "lock" / "owner").read_text().startswith(f"prod {later}\n")
    assert [path.name for path in list_all(Path(machine.spec.state_dir)) if path.name.startswith("lock")] == ["lock"]


async def test_a_lock_without_an_owner_is_abandoned(machine: Machine) -> None:
    (Path(machine.spec.state_dir) / "lock").mkdir(parents=True)
    assert (await start(machine, Script("t", "echo ok"))).text == "ok\n"


async def test_unlock_waits_for_no_one(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW, str(count), str(go)))
    await until(lambda: runs(count))
    with pytest.raises(HostLocked, match="still runs"):
        await machine.host.unlock(CHANGE)
    go.touch()
    await running
