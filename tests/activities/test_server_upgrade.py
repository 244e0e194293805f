"""One server's way to v2 and back, over real SSH against the sandbox: the activities as Temporal calls them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from temporalio.testing import ActivityEnvironment

from activities.artifacts import Artifacts
from activities.periphery import Periphery
from activities.preflight_server import PreflightServer
from activities.server_backup import ServerBackup
from activities.verify import Verify
from hosts.pool import Hosts
from hosts.script import Script, parse
from model.errors import (
    AgentNotStarted,
    ArtifactError,
    ConfigNotLoaded,
    DiskFull,
    DownloadFailed,
    KeyRejected,
    NotProven,
    PlanChanged,
)
from model.facts import Backup, CoreFacts, ServerFacts, Severity
from model.fleet import FleetSpec, ServerSpec
from model.fleet_file import load
from model.steps import Operation, Proof, ReleaseHosts, ServerStep, StagedAgent, SurveyServer, Switched, VerifyServer
from sandbox.fleet import Sandbox

SPEED = 5.0
"""Core and agents look and retry that much faster."""
CHANGE = "20261123T221500Z"
OLD, NEW = "1.19.5", "2.3.2"
WRONG = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
T = TypeVar("T")
R = TypeVar("R")


async def run(method: Callable[[T], Awaitable[R]], given: T) -> R:
    """As a worker runs it; heartbeats go nowhere."""
    result: R = await ActivityEnvironment().run(method, given)
    return result


@dataclass
class Fleet:
    sandbox: Sandbox
    spec: FleetSpec
    hosts: Hosts

    @property
    def key(self) -> str:
        core = self.sandbox.core
        assert core is not None
        return core.public_key

    @property
    def core(self) -> CoreFacts:
        return CoreFacts(
            reachable=True,
            version=NEW,
            published="127.0.0.1:9120",
            monitoring_interval=timedelta(seconds=1),
            api=True,
            host_name="komodo.example.com",
        )

    def server(self, name: str) -> ServerSpec:
        return self.spec.server(name)

    def root(self, name: str) -> Path:
        return self.sandbox.hosts[name].root

    def config(self, name: str) -> Path:
        return self.root(name) / "etc/komodo/periphery.config.toml"

    async def survey(self, name: str, **changes: Any) -> ServerFacts:
        server = replace(self.server(name), **changes)
        asked = SurveyServer(server=server, target=NEW, fleet=self.spec.name, agent=self.spec.agent)
        return await run(PreflightServer(self.hosts).survey_server, asked)

    async def step(self, name: str, attempt: int = 1) -> ServerStep:
        return ServerStep(
            op=Operation(change=CHANGE, fleet=self.spec.name, target=name, attempt=attempt),
            server=self.server(name),
            facts=await self.survey(name),
            target=NEW,
            agent=self.spec.agent,
            clocks=self.spec.clocks,
            key=self.key,
        )

    async def back_up(self, step: ServerStep) -> Backup:
        return await run(ServerBackup(self.hosts).back_up_server, step)

    async def stage(self, step: ServerStep) -> StagedAgent:
        return await run(Artifacts(self.hosts).stage_server, step)

    async def ready(self, name: str, attempt: int = 1) -> ServerStep:
        """Backed up and staged."""
        step = await self.step(name, attempt)
        return replace(step, backup=await self.back_up(step), staged=await self.stage(step))

    async def switch(self, step: ServerStep) -> Switched:
        return await run(Periphery(self.hosts).switch_server, step)

    async def verify(self, step: ServerStep, switched: Switched, **changes: Any) -> Proof:
        asked = VerifyServer(
            op=step.op,
            fleet=self.spec,
            core=self.core,
            server=step.server,
            switched=switched,
            expected_version=NEW,
            key=step.key,
        )
        return await run(Verify(self.hosts).verify_server, replace(asked, **changes))

    def short(self) -> Fleet:
        """With little patience, for what must fail."""
        clocks = replace(self.spec.clocks, core_sees=timedelta(seconds=3), agent_ready=timedelta(seconds=4))
        return replace(self, spec=replace(self.spec, clocks=clocks))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with await Sandbox.start(tmp_path, servers=1, core_version=NEW, speed=SPEED) as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


@pytest.fixture
async def mixed(tmp_path: Path) -> AsyncIterator[Fleet]:
    """As `fleet`, with four agents: plain, sudo with a password, open to anybody, with a config full of notes."""
    async with await Sandbox.start(tmp_path, servers=4, core_version=NEW, speed=SPEED) as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


def codes(facts: ServerFacts, severity: Severity) -> set[str]:
    return {f.code for f in facts.findings if f.severity is severity}


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
    assert not again.edits
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


async def test_restore_stops_a_switch_that_still_runs(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    before = fleet.config("web-1").read_bytes()
    fleet.sandbox.fault("slow", "web-1", seconds=1, command="systemctl")
    task = asyncio.ensure_future(fleet.switch(step))
    await asyncio.sleep(1.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    fleet.sandbox.heal("slow")
    restored = await run(Periphery(fleet.hosts).restore_server, step)
    assert restored.version == OLD
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


async def test_a_wrong_key_behind_a_stale_ok_is_not_proven(fleet: Fleet) -> None:
    """The agent was Ok a moment ago, and Core still says so: the agent's own log unmasks it."""
    step = await fleet.ready("web-1")
    good = await fleet.switch(step)
    await fleet.verify(step, good)
    fleet = fleet.short()
    config = fleet.config("web-1")
    config.write_text(config.read_text().replace(fleet.key, WRONG))
    systemd = fleet.sandbox.hosts["web-1"].systemd
    service = systemd.find("periphery.service")
    assert service is not None
    await systemd.stop(service)
    await systemd.start(service)
    with pytest.raises(NotProven) as caught:
        await fleet.verify(replace(step, key=WRONG), replace(good, invocation=service.invocation))
    assert "another Core's key" in str(caught.value)
    assert not caught.value.transient


async def test_an_agent_on_passkeys_is_not_proven(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    fleet = fleet.short()
    config = fleet.config("web-1")
    config.write_text("\n".join(x for x in config.read_text().splitlines() if not x.startswith("core_public_keys")))
    systemd = fleet.sandbox.hosts["web-1"].systemd
    service = systemd.find("periphery.service")
    assert service is not None
    await systemd.stop(service)
    await systemd.start(service)
    with pytest.raises(NotProven) as caught:
        await fleet.verify(step, switched)
    assert "without Core's key" in str(caught.value)


async def test_without_an_api_key_the_journal_speaks_and_says_what_is_open(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    switched = await fleet.switch(step)
    proof = await fleet.verify(step, switched, core=replace(fleet.core, api=False))
    assert not proof.by_core
    assert "Logged in" in proof.line
    assert "API key" in proof.unverified[0]


async def test_a_full_disk_leaves_nothing_half_written(fleet: Fleet) -> None:
    step = await fleet.ready("web-1")
    before = fleet.config("web-1").read_bytes()
    binary = (fleet.root("web-1") / "usr/local/bin/periphery").read_bytes()
    fleet.sandbox.fault("disk-full", "web-1", path="usr/local/bin")
    with pytest.raises(DiskFull):
        await fleet.switch(step)
    assert fleet.config("web-1").read_bytes() == before
    assert (fleet.root("web-1") / "usr/local/bin/periphery").read_bytes() == binary
    assert [p.name for p in (fleet.root("web-1") / "usr/local/bin").iterdir()] == ["periphery"]
    assert fleet.sandbox.agent_version("web-1") == OLD
    fleet.sandbox.heal()
    assert (await fleet.switch(step)).version == NEW


async def test_a_full_disk_is_foreseen_and_staging_says_so(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("disk-full", "web-1", path="var/lib")
    assert "no-space" in codes(await fleet.survey("web-1"), Severity.REFUSE)
    with pytest.raises(DiskFull):
        await fleet.stage(step)


@pytest.mark.parametrize("fault", ["download-403", "download-wrong-file"])
async def test_a_host_that_cannot_download_gets_it_from_the_worker_or_says_why(
    fleet: Fleet, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    step = await fleet.step("web-1")
    fleet.sandbox.fault(fault, "web-1")
    if fault == "download-403":
        by_host = replace(step, op=replace(step.op, attempt=2), agent=replace(step.agent, download="host"))
        with pytest.raises(DownloadFailed):
            await fleet.stage(by_host)
        staged = await fleet.stage(step)
        assert "pushed" in staged.source
        assert list((tmp_path / "cache/komodo-upgrade/artifacts").iterdir())
    else:
        with pytest.raises(ArtifactError) as caught:
            await fleet.stage(step)
        assert "no program" in str(caught.value)


async def test_a_system_that_is_too_old_is_told_before_anything_stops(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    fleet.sandbox.fault("old-libc", "web-1")
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(step)
    assert "GLIBC_2.34" in str(caught.value)
    assert "leave_behind" in caught.value.cure
    assert fleet.sandbox.agent_version("web-1") == OLD


async def test_another_digest_than_expected_is_refused(fleet: Fleet) -> None:
    step = await fleet.step("web-1")
    agent = replace(step.agent, sha256={step.facts.arch: "0" * 64})
    with pytest.raises(ArtifactError) as caught:
        await fleet.stage(replace(step, agent=agent))
    assert "expected " + "0" * 64 in str(caught.value)


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


async def test_nothing_changed_is_no_drift(mixed: Fleet) -> None:
    step = await mixed.ready("db-1")
    assert not (await run(PreflightServer(mixed.hosts).recheck_server, step)).drift


@pytest.mark.parametrize("key", ["MCowBQYDK2VwAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY=", "", WRONG[:40]])
async def test_a_key_that_is_none_never_reaches_a_host(fleet: Fleet, key: str) -> None:
    step = await fleet.ready("web-1")
    with pytest.raises(KeyRejected):
        await fleet.switch(replace(step, key=key))
    assert fleet.sandbox.agent_version("web-1") == OLD


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('passkeys = ["a"]\nport = 8120\npasskeys = ["b"]\n', "duplicate-key"),
        ("passkeys = changeme\n", "config-broken"),
        ('passkeys = ["a"]\ncore_address = "https://k.example"\n', "outbound"),
        ('passkeys = ["a"]\ndisable_container_exec = true\ndisable_container_terminals = true\n', "alias-pair"),
        ('passkeys = ["a"]\n[logging]\nlevel = "error"\n', "logs-too-little"),
    ],
)
async def test_preflight_refuses_with_a_way_out(fleet: Fleet, text: str, code: str) -> None:
    fleet.config("web-1").write_text(text)
    facts = await fleet.survey("web-1")
    assert code in codes(facts, Severity.REFUSE)
    assert all(f.cure for f in facts.findings if f.severity is Severity.REFUSE)
    if code == "duplicate-key":
        assert any("lines 1 and 3" in f.text for f in facts.findings)


async def test_preflight_finds_what_is_missing(mixed: Fleet) -> None:
    assert "no-agent" in codes(await mixed.survey("web-1", unit="nothing.service"), Severity.REFUSE)
    mixed.config("nas").unlink()
    assert "config-missing" in codes(await mixed.survey("nas"), Severity.REFUSE)
    service = mixed.sandbox.hosts["build-1"].systemd.find("periphery.service")
    assert service is not None
    await mixed.sandbox.hosts["build-1"].systemd.stop(service)
    assert "agent-not-running" in codes(await mixed.survey("build-1"), Severity.REFUSE)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("unreachable", "unreachable"), ("host-key-changed", "host-key-changed"), ("sudo-wrong", "sudo-failed")],
)
async def test_a_host_that_cannot_be_looked_at_is_a_finding(mixed: Fleet, fault: str, code: str) -> None:
    name = "db-1" if fault == "sudo-wrong" else "web-1"
    mixed.sandbox.fault(fault, name)
    await mixed.sandbox.settled()
    facts = await mixed.survey(name)
    assert not facts.reachable
    assert codes(facts, Severity.REFUSE) == {code}
    assert facts.findings[0].cure


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
    assert (await run(Periphery(fleet.hosts).release_host, release)) == done


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
