"""The host's lock: who holds it, who may take it over, and when it is released."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from hosts.exec.script import Script
from hosts.host import Completed
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


async def test_the_lock_of_an_older_run_is_taken_over_after_its_job(machine: Machine) -> None:
    """The job of a terminated upgrade is waited for, with heartbeats, and never ended."""
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    old = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    later = "20261201T000000Z"
    heartbeats: list[float] = []

    async def take_over() -> Completed:
        folder = f"{machine.spec.state_dir}/prod/{later}"
        return await machine.host.job(
            f"{later}/web-1/1/step",
            folder,
            Script("t", f'[ -e "{go}" ]'),
            change=later,
            timeout=timedelta(seconds=60),
            on_progress=lambda: heartbeats.append(0.0),
        )

    waiting = asyncio.create_task(take_over())
    await until(lambda: len(heartbeats) >= 2)
    assert not waiting.done()
    go.touch()
    await old
    await waiting
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
                Script("t", COUNT).given(str(count)),
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


async def test_unlock_waits_for_a_job_up_to_its_limit(machine: Machine) -> None:
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    with pytest.raises(HostLocked, match="still runs"):
        await machine.host.unlock(CHANGE)
    unlocked = asyncio.create_task(machine.host.unlock(CHANGE, wait=timedelta(seconds=30)))
    await asyncio.sleep(0.2)
    assert not unlocked.done()
    go.touch()
    await running
    await unlocked
    assert await machine.host.held() is None


async def test_the_holder_is_reported_and_an_unused_lock_expires(machine: Machine) -> None:
    assert await machine.host.held() is None
    count, go = machine.server.folder / "count", machine.server.folder / "go"
    running = asyncio.create_task(start(machine, SLOW.given(str(count), str(go))))
    await until(lambda: runs(count))
    held = await machine.host.held()
    assert held
    assert (held.fleet, held.change, held.expired) == ("prod", CHANGE, False)
    assert held.since.startswith("20")
    assert "/jobs/" in held.job
    owner = Path(machine.spec.state_dir) / "lock" / "owner"
    long_ago = time.time() - 31 * 86400
    os.utime(owner, (long_ago, long_ago))
    with pytest.raises(HostLocked, match="of the fleet prod"):  # a job of it runs
        await _of_another_fleet(machine)
    go.touch()
    await running
    held = await machine.host.held()
    assert held
    assert (held.job, held.expired) == ("", True)
    await start(machine, Script("t", ":"), step="later")
    held = await machine.host.held()
    assert held
    assert not held.expired, "a step uses it once more"
    with pytest.raises(HostLocked):
        await _of_another_fleet(machine)
    os.utime(owner, (long_ago, long_ago))
    await _of_another_fleet(machine)
    assert owner.read_text().startswith("staging 20261201T000000Z\n")


async def _of_another_fleet(machine: Machine) -> None:
    later = "20261201T000000Z"
    folder = f"{machine.spec.state_dir}/staging/{later}"
    await machine.host.job(
        f"{later}/web-1/1/step", folder, Script("t", ":"), change=later, timeout=timedelta(seconds=20)
    )
