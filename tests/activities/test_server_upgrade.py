"""The upgrade and rollback of one server over real SSH against the sandbox, by activities as Temporal calls them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from activities.fleet.run_folders import Folders
from activities.server.agents import Agents
from hosts.exec.script import Script, parse
from model.errors import AgentNotStarted, ConfigNotLoaded, JobLost, KeyRejected, PlanChanged
from model.facts import Severity
from model.fleet.spec import slug
from model.planning import evaluate_key
from model.steps import Recheck, ReleaseHosts
from tests.activities.server_fleet import NEW, OLD, WRONG, Fleet, codes, run


async def test_an_upgrade_and_its_rollback(fleet: Fleet) -> None:
    before = fleet.config("web-1").read_bytes()
    binary = fleet.root("web-1") / "usr/local/bin/periphery"
    old = binary.read_bytes()
    step = await fleet.step("web-1")
    facts = step.facts
    assert not codes(facts, Severity.REFUSE), facts.findings
    assert (facts.version, facts.running_version, facts.current, facts.open_today) == (OLD, OLD, False, False)
    assert facts.binary == str(binary)
    key_file = fleet.root("web-1") / "etc/komodo/keys/core.pub"
    assert [e.path for e in facts.edits] == [str(fleet.config("web-1")), str(key_file)]
    assert f'core_public_keys = ["file:{key_file}"]' in facts.edits[0].diff
    step = await fleet.ready("web-1")
    assert step.staged.version == NEW
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert binary.read_bytes() == old
    assert fleet.config("web-1").read_bytes() == before
    switched = await fleet.switch(step)
    assert switched.version == NEW
    assert any(f"file:{key_file}" in line for line in switched.lines)
    assert fleet.key in key_file.read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert fleet.sandbox.agent_version("web-1") == NEW
    assert hashlib.sha256(binary.read_bytes()).hexdigest() == step.staged.sha256
    proof = await fleet.verify(step, switched)
    assert proof.by_core
    assert "Logged in to Komodo Core" in proof.line
    assert not proof.unverified
    again = await fleet.survey("web-1")
    assert again.current
    assert (again.pinned_keys, again.file_keys) == ((f"file:{key_file}",), (fleet.key,))
    restored = await fleet.restore(step)
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


async def test_an_open_agent_is_reported_and_closed(mixed: Fleet) -> None:
    step = await mixed.ready("nas")
    assert step.facts.open_today
    assert "agent-open" in codes(step.facts, Severity.WARN)
    switched = await mixed.switch(step)
    assert (await mixed.verify(step, switched)).by_core


async def test_a_cancelled_switch_is_attached_to(fleet: Fleet) -> None:
    """The worker dies in the middle: the job continues, and the next call attaches to it."""
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
    """Also when a rollback undoes an earlier attempt whose workflow was terminated."""
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
    restored = await fleet.restore(undo)
    assert restored.version == OLD
    assert not (folder / "jobs" / slug("web-1") / "1" / "switch").exists()
    await asyncio.sleep(1.5)
    assert fleet.sandbox.agent_version("web-1") == OLD
    assert fleet.config("web-1").read_bytes() == before


async def test_restore_where_nothing_was_switched(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    assert (await fleet.restore(step)).version == OLD
    assert not [r for r in fleet.sandbox.mutations("web-1") if r.argv[0] == "systemctl"]


async def test_a_retry_after_a_rollback_can_be_rolled_back_again(fleet: Fleet) -> None:
    first = await fleet.ready("web-1")
    await fleet.switch(first)
    await fleet.restore(first)
    second = await fleet.prepared(replace(first, op=replace(first.op, attempt=2)))
    assert (await fleet.switch(second)).version == NEW
    # A rollback of the fleet may come with the number of an attempt that was rolled back before.
    assert (await fleet.restore(first)).version == OLD
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_the_hosts_own_restore_sh_by_hand(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    await fleet.switch(step)
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


async def test_a_crash_loop_is_reported_and_can_be_rolled_back(fleet: Fleet) -> None:
    fleet = fleet.short()
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("crash-loop", "web-1")
    with pytest.raises(AgentNotStarted) as caught:
        await fleet.switch(step)
    assert "restore.sh" in str(caught.value)
    assert "web-1" in str(caught.value)
    # systemd has stopped trying by now, and refuses a start within ten seconds until `reset-failed`.
    service = fleet.sandbox.hosts["web-1"].systemd.find("periphery.service")
    assert service is not None
    async with asyncio.timeout(20):
        while service.active != "failed":  # noqa: ASYNC110 - the stand-in has no event for it
            await asyncio.sleep(0.05)
    assert (await fleet.restore(step)).version == OLD


async def test_an_agent_that_ignores_its_config_is_found(fleet: Fleet) -> None:
    fleet = fleet.short()
    step = await fleet.ready("web-1")
    fleet.sandbox.fault("agent-ignores-config", "web-1")
    with pytest.raises(ConfigNotLoaded) as caught:
        await fleet.switch(step)
    assert "core_public_keys" in str(caught.value)
    fleet.sandbox.heal()
    assert (await fleet.restore(step)).version == OLD


async def test_files_that_changed_since_the_plan_are_kept(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    config = fleet.config("web-1")
    config.write_text(config.read_text() + "# changed by hand\n")
    recheck = await fleet.recheck(step)
    assert any(str(config) in line for line in recheck.drift)
    with pytest.raises(PlanChanged):
        await fleet.switch(step)
    assert "core_public_keys = [" not in config.read_text()
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_an_agent_on_the_target_with_another_key_gets_cores_key(fleet: Fleet) -> None:
    fleet = fleet.inline()
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
    facts = evaluate_key(core, await fleet.survey("web-1"))
    assert (facts.version, facts.current) == (NEW, False)
    later = await fleet.prepared(replace(step, op=replace(step.op, change="20261124T100000Z"), facts=facts))
    switched = await fleet.switch(later)
    assert (await fleet.verify(later, switched)).by_core
    facts = evaluate_key(core, await fleet.survey("web-1"))
    assert (facts.current, facts.edits, set(facts.pinned_keys)) == (True, (), {fleet.key, WRONG})


@pytest.mark.parametrize("others", [(), (WRONG,)])
async def test_a_config_with_cores_key_is_not_changed(fleet: Fleet, others: tuple[str, ...]) -> None:
    """The plan cannot know it: its placeholder is next to a key that turns out to be the same."""
    fleet = fleet.inline()
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
    restored = await fleet.restore(step)
    assert (restored.version, config.read_bytes()) == (OLD, before)


@pytest.mark.parametrize("key", ["MCowBQYDK2VwAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY=", "", WRONG[:40]])
async def test_an_invalid_key_never_reaches_a_host(fleet: Fleet, key: str) -> None:
    step = await fleet.ready("web-1")
    with pytest.raises(KeyRejected):
        await fleet.switch(replace(step, key=key))
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_a_release_removes_the_lock_and_keeps_the_backup(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    await fleet.switch(step)
    state = fleet.root("web-1") / "var/lib/komodo-upgrade"
    assert (state / "lock").is_dir()
    release = ReleaseHosts(op=step.op, server=step.server)
    done = await run(Folders(fleet.hosts).release_host, release)
    assert any("staged" in fact for fact in done.facts)
    assert [p.name for p in state.iterdir()] == ["sandbox"]
    assert "broken" not in parse(
        (
            await (await fleet.hosts.get(step.server.host)).run(
                Script.load("komodo.sh", "server/check_saved.sh", folder=step.backup.folder)
            )
        ).text
    )
    assert not (await run(Folders(fleet.hosts).release_host, release)).facts, "nothing is left to be removed"

    kept = Agents(fleet.hosts)
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


async def test_a_killed_job_is_reported_as_lost_and_then_completed(fleet: Fleet) -> None:
    """As after a power cut: no exit code. Retried by Temporal, the step checks the state and continues."""
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
