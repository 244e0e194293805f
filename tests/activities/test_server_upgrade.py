"""One server's way to v2 and back, over real SSH against the sandbox: the activities as Temporal calls them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.periphery import Periphery
from activities.preflight_server import PreflightServer
from activities.server_backup import ServerBackup
from hosts.script import Script, parse
from model.errors import (
    AgentNotStarted,
    ConfigNotLoaded,
    JobLost,
    KeyRejected,
    PlanChanged,
)
from model.facts import Severity
from model.fleet import slug
from model.steps import Operation, Recheck, ReleaseHosts
from tests.activities.server_fleet import NEW, OLD, WRONG, Fleet, codes, fleet_of, run
from workflows.preflight import judged


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with fleet_of(tmp_path) as made:
        yield made


@pytest.fixture
async def mixed(tmp_path: Path) -> AsyncIterator[Fleet]:
    """As `fleet`, with four agents of different kinds."""
    async with fleet_of(tmp_path, servers=4) as made:
        yield made


async def test_the_whole_way_and_back(fleet: Fleet) -> None:
    before = fleet.config("web-1").read_bytes()
    binary = fleet.root("web-1") / "usr/local/bin/periphery"
    old = binary.read_bytes()
    step = await fleet.step("web-1")
    facts = step.facts
    assert not codes(facts, Severity.REFUSE), facts.findings
    assert (facts.version, facts.running_version, facts.current, facts.open_today) == (OLD, OLD, False, False)
    assert facts.binary == str(binary)
    assert [e.path for e in facts.edits] == [str(fleet.config("web-1"))]
    assert "core_public_keys" in facts.edits[0].diff
    step = await fleet.ready("web-1")
    assert step.backup is not None
    assert step.staged is not None
    assert step.staged.version == NEW
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert binary.read_bytes() == old
    assert fleet.config("web-1").read_bytes() == before
    switched = await fleet.switch(step)
    assert switched.version == NEW
    assert any(fleet.key in line for line in switched.lines)
    assert fleet.sandbox.agent_version("web-1") == NEW
    assert hashlib.sha256(binary.read_bytes()).hexdigest() == step.staged.sha256
    proof = await fleet.verify(step, switched)
    assert proof.by_core
    assert "Logged in to Komodo Core" in proof.line
    assert not proof.unverified
    again = await fleet.survey("web-1")
    assert again.current
    assert again.pinned_keys == (fleet.key,)
    restored = await run(Periphery(fleet.hosts).restore_server, step)
    assert restored.version == OLD
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert (binary.read_bytes(), fleet.config("web-1").read_bytes()) == (old, before)
    for secret in fleet.sandbox.secrets:
        assert secret not in repr((step, switched, proof, restored, facts))


async def test_each_step_repeated_runs_once_on_the_host(mixed: Fleet) -> None:
    step = await mixed.ready("nas")
    assert await mixed.back_up(step) == step.backup
    assert await mixed.stage(step) == step.staged
    first = await mixed.switch(step)
    assert await mixed.switch(step) == first
    ran = [r.argv[:2] for r in mixed.sandbox.mutations("nas")]
    assert ran.count(("systemctl", "start")) == 1
    assert sum(name == "curl" for name, _ in ran) == 1


async def test_sudo_with_a_password_and_an_edited_config(mixed: Fleet) -> None:
    for name in ("db-1", "build-1"):
        step = await mixed.ready(name)
        switched = await mixed.switch(step)
        assert (await mixed.verify(step, switched)).by_core
    text = mixed.config("build-1").read_text()
    assert text.index("core_public_keys = [") < text.index("[[git_provider]]")
    assert "please keep the notes" in text


async def test_an_open_agent_is_told_so_and_closed(mixed: Fleet) -> None:
    step = await mixed.ready("nas")
    assert step.facts.open_today
    assert "agent-open" in codes(step.facts, Severity.WARN)
    switched = await mixed.switch(step)
    assert (await mixed.verify(step, switched)).by_core


async def test_a_cancelled_switch_is_attached_to(fleet: Fleet) -> None:
    """The worker dies in the middle: the job goes on, the next call finds it."""
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("slow", "web-1", seconds=1, command="systemctl")
    task = asyncio.ensure_future(fleet.switch(step))
    await asyncio.sleep(1.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    fleet.sandbox.kill_connections("web-1")
    fleet.sandbox.heal("slow")
    switched = await fleet.switch(step)
    assert switched.version == NEW
    ran = [r.argv[:2] for r in fleet.sandbox.mutations("web-1")]
    assert ran.count(("systemctl", "start")) == 1


@pytest.mark.parametrize("attempt", [1, 3])
async def test_restore_stops_a_switch_that_still_runs(fleet: Fleet, attempt: int) -> None:
    """Also where a rollback undoes what an earlier attempt, whose workflow was terminated, has begun."""
    step = await fleet.ready("web-1")
    before = fleet.config("web-1").read_bytes()
    fleet.sandbox.fault("slow", "web-1", seconds=1, command="systemctl")
    task = asyncio.ensure_future(fleet.switch(step))
    await asyncio.sleep(1.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    fleet.sandbox.heal("slow")
    folder = Path(step.op.folder(step.server.host.state_dir))
    undo = replace(step, op=replace(step.op, attempt=attempt))
    restored = await run(Periphery(fleet.hosts).restore_server, undo)
    assert restored.version == OLD
    assert not (folder / "jobs" / slug("web-1") / "1" / "switch").exists()
    await asyncio.sleep(1.5)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert fleet.config("web-1").read_bytes() == before


async def test_restore_where_nothing_was_switched(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD
    assert not [r for r in fleet.sandbox.mutations("web-1") if r.argv[0] == "systemctl"]
    other = Operation(change="20261124T010203Z", fleet=fleet.spec.name, target="web-1")
    bare = replace(step, op=other, backup=None)
    assert (await run(Periphery(fleet.hosts).restore_server, bare)).version == OLD


async def test_a_retry_after_the_way_back_goes_forward_again_and_back_again(fleet: Fleet) -> None:
    first = await fleet.ready("web-1")
    await fleet.switch(first)
    await run(Periphery(fleet.hosts).restore_server, first)
    second = replace(first, op=replace(first.op, attempt=2))
    second = replace(second, backup=await fleet.back_up(second), staged=await fleet.stage(second))
    assert (await fleet.switch(second)).version == NEW
    # A rollback of the fleet may come with the number of an attempt that was put back before.
    assert (await run(Periphery(fleet.hosts).restore_server, first)).version == OLD
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_the_hosts_own_restore_sh_by_hand(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    assert step.backup is not None
    host = fleet.sandbox.hosts["web-1"]
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", f"{step.backup.folder}/restore.sh"],
        env=host.environment(root=True),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"version: v{OLD}" in done.stdout
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_a_crash_loop_is_told_and_can_be_put_back(fleet: Fleet) -> None:
    fleet = fleet.short()
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("crash-loop", "web-1")
    with pytest.raises(AgentNotStarted) as caught:
        await fleet.switch(step)
    assert "restore.sh" in str(caught.value)
    assert "web-1" in str(caught.value)
    # systemd has given up by now, and refuses any start within ten seconds unless it is told to forget the old ones.
    service = fleet.sandbox.hosts["web-1"].systemd.find("periphery.service")
    assert service is not None
    async with asyncio.timeout(20):
        while service.active != "failed":  # noqa: ASYNC110 - the stand-in tells nobody
            await asyncio.sleep(0.05)
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD


async def test_an_agent_that_leaves_out_its_config_is_found(fleet: Fleet) -> None:
    fleet = fleet.short()
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("agent-ignores-config", "web-1")
    with pytest.raises(ConfigNotLoaded) as caught:
        await fleet.switch(step)
    assert "core_public_keys" in str(caught.value)
    fleet.sandbox.heal()
    assert (await run(Periphery(fleet.hosts).restore_server, step)).version == OLD


async def test_what_changed_since_the_plan_is_not_touched(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    config = fleet.config("web-1")
    config.write_text(config.read_text() + "# by somebody else\n")
    recheck = await run(PreflightServer(fleet.hosts).recheck_server, step)
    assert any(str(config) in line for line in recheck.drift)
    with pytest.raises(PlanChanged):
        await fleet.switch(step)
    assert "core_public_keys = [" not in config.read_text()
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_an_agent_on_the_target_with_another_cores_key_gets_this_ones(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    config = fleet.config("web-1")
    config.write_text(config.read_text().replace(fleet.key, WRONG))
    systemd = fleet.sandbox.hosts["web-1"].systemd
    unit = systemd.find("periphery.service")
    assert unit is not None
    await systemd.stop(unit)
    await systemd.start(unit)
    core = replace(fleet.core, current=True, public_key=fleet.key)
    facts = judged(core, await fleet.survey("web-1"))
    assert (facts.version, facts.current) == (NEW, False)
    later = replace(step, op=replace(step.op, change="20261124T100000Z"), facts=facts, backup=None, staged=None)
    later = replace(later, backup=await fleet.back_up(later), staged=await fleet.stage(later))
    switched = await fleet.switch(later)
    assert (await fleet.verify(later, switched)).by_core
    facts = judged(core, await fleet.survey("web-1"))
    assert (facts.current, facts.edits, set(facts.pinned_keys)) == (True, (), {fleet.key, WRONG})


@pytest.mark.parametrize("others", [(), (WRONG,)])
async def test_a_config_that_holds_cores_key_already_is_left_as_it_is(fleet: Fleet, others: tuple[str, ...]) -> None:
    """The plan cannot know it: its placeholder stands beside a key that turns out to be the same."""
    config = fleet.config("web-1")
    listed = ", ".join(f'"{key}"' for key in (*others, fleet.key))
    config.write_text(f"core_public_keys = [{listed}]\n{config.read_text()}")
    before = config.read_bytes()
    step = await fleet.ready("web-1")
    assert step.facts.edits, "planned while Core's key was not known"
    switched = await fleet.switch(step)
    assert (switched.version, config.read_bytes()) == (NEW, before)
    assert await fleet.switch(step) == switched
    assert (await fleet.verify(step, switched)).by_core
    restored = await run(Periphery(fleet.hosts).restore_server, step)
    assert (restored.version, config.read_bytes()) == (OLD, before)


@pytest.mark.parametrize("key", ["MCowBQYDK2VwAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY=", "", WRONG[:40]])
async def test_a_key_that_is_none_never_reaches_a_host(fleet: Fleet, key: str) -> None:
    step = await fleet.ready("web-1")
    with pytest.raises(KeyRejected):
        await fleet.switch(replace(step, key=key))
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_release_gives_the_lock_back_and_keeps_the_backup(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    state = fleet.root("web-1") / "var/lib/komodo-upgrade"
    assert (state / "lock").is_dir()
    release = ReleaseHosts(op=step.op, server=step.server)
    done = await run(Periphery(fleet.hosts).release_host, release)
    assert any("staged" in fact for fact in done.facts)
    assert [p.name for p in state.iterdir()] == ["sandbox"]
    assert step.backup is not None
    assert "broken" not in parse(
        (
            await (await fleet.hosts.get(step.server.host)).run(
                Script.load("komodo.sh", "check_saved.sh"), step.backup.folder
            )
        ).text
    )
    assert not (await run(Periphery(fleet.hosts).release_host, release)).facts, "nothing is left to be removed"

    kept = ServerBackup(fleet.hosts)
    assert await run(kept.check_server_rollback, step) == Recheck()
    binary = next(f for f in step.backup.files if f.path == step.facts.binary)
    config = next(f for f in step.backup.files if f.path in step.facts.config_paths)
    spoil(gone=(binary.saved_as, f"{step.backup.folder}/restore.sh"), other=config.saved_as)
    assert sorted((await run(kept.check_server_rollback, step)).drift) == sorted(
        [
            f"{step.backup.folder}/restore.sh is gone",
            f"{binary.saved_as} is gone",
            f"{config.saved_as} is not what was saved",
        ]
    )
    fleet.sandbox.fault("unreachable", "web-1")
    await fleet.sandbox.settled()
    gone = await run(kept.check_server_rollback, step)
    assert gone.drift == ()
    assert gone.unreachable


def spoil(*, gone: tuple[str, ...], other: str) -> None:
    for path in gone:
        Path(path).unlink()
    Path(other).write_text("other\n")


async def test_nothing_secret_is_left_on_the_host_or_in_an_error(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    await fleet.verify(step, switched)
    jobs = Path(step.op.folder(step.server.host.state_dir)) / "jobs"
    written = "".join(p.read_text(errors="replace") for p in jobs.rglob("*") if p.is_file())
    assert written
    argv = " ".join(" ".join(r.argv) for r in fleet.sandbox.journal)
    for secret in fleet.sandbox.secrets:
        assert secret not in written
        assert secret not in argv


async def test_a_job_that_is_killed_is_said_to_be_lost_and_then_finished(fleet: Fleet) -> None:
    """As after a power cut: no exit code. Retried by Temporal, the step looks at the state and goes on."""
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("slow", "web-1", seconds=2, command="systemctl")
    task = asyncio.ensure_future(fleet.switch(step))
    record = Path(step.op.folder(step.server.host.state_dir), "jobs/web-1/1/switch/pid")
    deadline = asyncio.get_running_loop().time() + 20
    while not await asyncio.to_thread(record.is_file):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    pid, *_, group = (await asyncio.to_thread(record.read_text)).split()
    assert pid == group, "the job leads a process group of its own: only that is ended here"
    os.killpg(int(group), signal.SIGKILL)
    with pytest.raises(JobLost) as caught:
        await task
    assert caught.value.transient
    fleet.sandbox.heal("slow")
    assert (await fleet.switch(step)).version == NEW
    ran = [r.argv[:2] for r in fleet.sandbox.mutations("web-1")]
    assert ran.count(("systemctl", "start")) == 1
