"""Core's upgrade and rollback over real SSH against the sandbox: without faults, repeated, and with faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.core.access import until
from activities.fleet.run_folders import Folders
from model.errors import (
    AgentNotStarted,
    CommandFailed,
    DatabaseError,
    DiskFull,
    DownloadFailed,
    HostError,
    KeyRejected,
    PlanChanged,
    UpgradeError,
)
from model.facts import DumpFacts
from model.steps import PostChecks, ReleaseHosts
from tests.activities.core_fleet import Bench, bench, codes, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def test_an_upgrade_and_its_rollback(b: Bench) -> None:
    compose_before = (b.project / "mongo.compose.yaml").read_text()
    env_before = (b.project / "compose.env").read_text()
    database = b.restarted("komodo-mongo-1")
    servers_before = sorted(str(d) for d in b.sandbox.store.databases["komodo"]["Server"].documents)

    final = await b.upgraded()

    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "2.3.2"
    assert b.restarted("komodo-mongo-1") == database
    switched = b.results[-1]
    assert switched.version == "2.3.2"
    assert b.key in "\n".join(switched.lines)
    assert b.key in (b.project / "mongo.compose.yaml").read_text()
    assert (b.project / "mongo.compose.yaml.bak_v1").read_text() == compose_before
    assert (b.project / "compose.env.bak_v1").read_text() == env_before
    assert oct((b.project / "keys").stat().st_mode & 0o777) == "0o700"
    assert (b.folder / "core.key").read_bytes() == (b.project / "keys" / "core.key").read_bytes()
    assert oct(b.folder.stat().st_mode & 0o777) == "0o700"
    assert json.loads((b.folder / "manifest.json").read_text())["from"] == "1.19.5"
    await _repeat_the_switch(b)
    checks = await _checked_twice(b)
    assert "action-v1-style" in {f.code for f in checks.findings}
    assert not {f.code for f in checks.findings} & {"no-init", "keys-not-kept", "core-version", "core-key-open"}
    again = await b.survey()
    assert again.current
    assert again.edits == ()
    assert refusals(again) == []

    b.next_attempt()
    back = b.step
    assert (await b.back.check_rollback(b.to_check(final))).drift == ()
    await _a_rollback_without_its_files_is_refused(b, final)
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(b.to_dump("pre_rollback"))
    assert "Swarm" in {c.name for c in pre.collections}
    await b.back.restore_database(b.with_dump(final))
    assert "Swarm" not in b.sandbox.store.databases["komodo"]
    await b.back.restore_core_files(back)
    started = await b.back.start_old_core(back)
    restored = await b.restore_agent()

    assert (started.version, restored.version) == ("1.19.5", "1.19.5")
    assert (b.project / "mongo.compose.yaml").read_text() == compose_before
    assert (b.project / "compose.env").read_text() == env_before
    assert sorted(str(d) for d in b.sandbox.store.databases["komodo"]["Server"].documents) == servers_before
    assert not refusals(await b.survey())
    said = repr(b.results) + repr([r.argv for r in b.sandbox.journal])
    assert not [s for s in b.sandbox.secrets if s in said]


async def _a_rollback_without_its_files_is_refused(b: Bench, final: DumpFacts) -> None:
    dump, saved = next((b.folder / "dumps").glob("final*.gz")), b.folder / "files/compose.env"
    kept = saved.read_text()
    dump.rename(b.folder / "elsewhere")
    saved.write_text("other\n")
    drift = (await b.back.check_rollback(b.to_check(final))).drift
    assert [d for d in drift if d.endswith("final.archive.gz is gone")]
    assert [d for d in drift if "compose.env is not what was saved" in d]
    (b.folder / "elsewhere").rename(dump)
    saved.write_text(kept)


async def _repeat_the_switch(b: Bench) -> None:
    """As after a worker that died before it reported: the same facts, and nothing is done twice."""
    before = [b.ran(w) for w in ("up", "stop", "mongodump", "create", "pull")]
    assert await b.core.write_core_files(b.to_write()) == b.results[5]
    assert (await b.core.start_core(b.step)).started_at == b.results[6].started_at
    assert (await b.core.read_core_key(b.to_read())).public_key == b.key
    assert (await b.switch_agent()).invocation == b.results[8].invocation
    assert [b.ran(w) for w in ("up", "stop", "mongodump", "create", "pull")] == before


async def _checked_twice(b: Bench) -> PostChecks:
    """The first worker dies before it reports: the stack is still restarted only once."""
    named = replace(b.step, fleet=replace(b.fleet, restart_stack="web"))

    async def restarting() -> bool:
        return bool(stack_restarts(b))

    dying = asyncio.create_task(b.report.post_checks(named))
    assert await until(restarting, limit=timedelta(minutes=1), poll=timedelta(milliseconds=10))
    dying.cancel()
    await asyncio.wait([dying])
    checks = await b.report.post_checks(named)
    assert "stack-restarted" in {f.code for f in checks.findings}
    assert len(stack_restarts(b)) == 1
    return checks


def stack_restarts(b: Bench) -> list[dict[str, Any]]:
    return b.sandbox.store.find("komodo", "Update", {"operation": "RestartStack"})


async def test_a_repeated_dump_is_the_same_dump(b: Bench) -> None:
    await b.backed_up()
    step = b.to_dump("before")
    one = await b.dumps.dump_database(step)
    assert await b.dumps.dump_database(step) == one
    assert b.ran("mongodump", "--archive") == 1
    assert await b.backup.back_up_core(b.step) == b.saved
    final = b.to_dump("final")
    with pytest.raises(HostError, match="quiet database only"):
        await b.dumps.dump_database(final)
    await b.core.stop_core(b.step)
    two = await b.dumps.dump_database(final)
    assert await b.dumps.dump_database(final) == two
    assert {c.name: c.documents for c in two.collections}["Server"] == 2


async def test_a_rollback_by_hand(b: Bench) -> None:
    await b.upgraded()
    shown = await b.manual_command(f"sudo sh {b.folder}/restore.sh --dry-run")
    assert shown.exit_status == 0, shown.stderr
    assert "would run" in str(shown.stdout)
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "2.3.2"

    done = await b.manual_command(f"sudo sh {b.folder}/restore.sh")

    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5"
    facts = await b.survey()
    assert (facts.version, facts.api, refusals(facts)) == ("1.19.5", True, [])
    said = f"{done.stdout!r}{done.stderr!r}{[r.argv for r in b.sandbox.journal]}"
    assert not [s for s in b.sandbox.secrets if s in said]
    once_more = await b.manual_command(f"sudo sh {b.folder}/restore.sh files")
    assert "is as it was" in str(once_more.stdout)


async def test_a_rollback_by_hand_before_the_new_version_ran(b: Bench) -> None:
    await b.quiet()
    done = await b.manual_command(f"sudo sh {b.folder}/restore.sh")
    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert "the database is as it was" in str(done.stdout)
    assert b.ran("mongorestore") == 0
    assert not refusals(await b.survey())


# --- dumps ------------------------------------------------------------------------------------------------------------


async def test_a_dump_that_fails_leaves_nothing_and_can_be_repeated(b: Bench) -> None:
    await b.backed_up()
    step = b.to_dump("before")
    failures: tuple[tuple[str, type[UpgradeError], str], ...] = (
        ("disk-full", DiskFull, ""),
        ("dump-fails", CommandFailed, "mongodump"),
    )
    for fault, error, words in failures:
        b.sandbox.fault(fault, "core")
        with pytest.raises(error, match=words) as caught:
            await b.dumps.dump_database(step)
        assert not [s for s in b.sandbox.secrets if s in str(caught.value)]
        assert [p.name for p in (b.folder / "dumps").glob("*")] == []
        b.sandbox.heal()
    assert (await b.dumps.dump_database(step)).documents > 50


# --- before the switch ------------------------------------------------------------------------------------------------


async def test_a_file_that_was_edited_in_the_meantime_is_refused(b: Bench) -> None:
    await b.staged()
    env = b.project / "compose.env"
    env.write_text(env.read_text() + "# edited\n")
    drift = (await b.preflight.recheck_core(b.step)).drift
    assert [d for d in drift if "compose.env was edited" in d]
    before = (b.project / "mongo.compose.yaml").read_text()
    with pytest.raises(PlanChanged, match=r"compose\.env"):
        await b.core.write_core_files(b.to_write())
    b.next_attempt()
    with pytest.raises(PlanChanged):
        await b.core.stage_core(b.step)
    assert env.read_text().endswith("# edited\n")
    assert "init" not in before


async def test_an_image_that_cannot_be_pulled(b: Bench) -> None:
    await b.backed_up()
    b.sandbox.fault("pull-fails", "core")
    with pytest.raises(DownloadFailed, match="nothing was changed") as caught:
        await b.core.stage_core(b.step)
    assert caught.value.transient
    b.sandbox.heal()
    staged = await b.core.stage_core(b.step)
    assert staged.images == ("ghcr.io/moghtech/komodo-core:2.3.2", "ghcr.io/moghtech/komodo-periphery:2.3.2")
    assert len(staged.image_pins) == 4


# --- a Core that does not start ---------------------------------------------------------------------------------------


async def test_a_core_that_does_not_start(b: Bench) -> None:
    b.timing(core_ready=timedelta(seconds=3))
    await b.quiet()
    await b.core.write_core_files(b.to_write())
    for fault, words in {
        "up-does-nothing": "compose did not start Core",
        "up-keeps-old": "compose started the old image again",
        "core-never-up": "does not work in 2.3.2",
    }.items():
        b.sandbox.fault(fault, "core")
        with pytest.raises(CommandFailed, match=words) as caught:
            await b.core.start_core(b.step)
        assert "next:" in str(caught.value)
        assert not [s for s in b.sandbox.secrets if s in str(caught.value)]
        b.sandbox.heal()
        b.next_attempt()


async def test_a_core_that_answers_but_does_not_work_is_rolled_back(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.core.readiness._NO_REASON", timedelta(seconds=2))
    final = await b.quiet()
    await b.core.write_core_files(b.to_write())
    b.sandbox.fault("core-v2-broken", "core")
    with pytest.raises(CommandFailed, match="KOMODO_HOST must be an absolute URL"):
        await b.core.start_core(b.step)
    b.sandbox.heal()
    b.next_attempt()
    back = b.step
    await b.core.stop_core(back)
    await b.back.restore_database(b.with_dump(final))
    await b.back.restore_core_files(back)
    assert (await b.back.start_old_core(back)).version == "1.19.5"
    assert not refusals(await b.survey())


async def test_the_undo_of_a_stop(b: Bench) -> None:
    await b.staged()
    core = b.restarted("komodo-core-1")
    await b.core.stop_core(b.step)
    started = await b.back.start_old_core(b.step)
    assert started.version == "1.19.5"
    assert b.restarted("komodo-core-1") == core
    # The undo invalidated the mark: the same step stops Core again.
    await b.core.stop_core(b.step)
    assert b.ran("stop", "core") == 2


async def test_a_key_whose_sources_disagree_is_refused(b: Bench) -> None:
    await b.quiet()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    stale = "MCowBQYDK2VuAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
    public = b.project / "keys" / "core.pub"
    public.write_text(f"-----BEGIN PUBLIC KEY-----\n{stale}\n-----END PUBLIC KEY-----\n")
    with pytest.raises(KeyRejected, match="uncertain"):
        await b.core.read_core_key(b.to_read())
    public.unlink()
    assert (await b.core.read_core_key(b.to_read())).public_key != stale


async def _switch_the_agent_again(b: Bench) -> None:
    """The agent in Core's project is rolled back alone, while Core and its files stay in the new version."""
    restored = await b.restore_agent()
    assert (restored.version, b.sandbox.core and b.sandbox.core.version) == ("1.19.5", "2.3.2")
    b.next_attempt()
    b.sandbox.fault("crash-loop", "core")
    b.timing(agent_ready=timedelta(seconds=2))
    with pytest.raises(AgentNotStarted):
        await b.switch_agent()
    b.sandbox.heal()
    b.timing(agent_ready=timedelta(seconds=10))
    b.next_attempt()
    assert (await b.switch_agent()).version == "2.3.2"


@pytest.mark.parametrize("released", [False, True])
async def test_a_failed_rollback_returns_to_the_new_version(b: Bench, released: bool) -> None:
    final = await b.upgraded()
    await _switch_the_agent_again(b)
    if released:
        release = ReleaseHosts(op=b.step.op, core=b.fleet.core)
        await Folders(b.hosts).release_host(release)
    b.next_attempt()
    back = b.step
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(b.to_dump("pre_rollback"))
    if released:
        # The old Core does not start on its own data.
        await b.back.restore_database(b.with_dump(final))
        await b.back.restore_core_files(back)
        b.sandbox.fault("core-never-up", "core", version="1")
        b.timing(core_ready=timedelta(seconds=2))
        with pytest.raises(UpgradeError, match=r"1\.19\.5"):
            await b.back.start_old_core(replace(back, fleet=b.fleet))
        b.timing(core_ready=timedelta(minutes=1))
    else:
        b.sandbox.fault("restore-fails", "core", times=1)
        with pytest.raises(DatabaseError, match="could not be restored"):
            await b.back.restore_database(b.with_dump(final))
        await b.back.restore_core_files(back)
    started = await b.back.return_to_new_core(b.to_return(pre))
    assert started.version == "2.3.2"
    assert (await b.survey()).current
    # Its worker died before it reported: nothing is dropped while Core runs.
    restored = b.ran("mongorestore")
    assert (await b.back.return_to_new_core(b.to_return(pre))).started_at == started.started_at
    assert (b.ran("mongorestore"), (await b.survey()).current) == (restored, True)


# --- preflight --------------------------------------------------------------------------------------------------------


async def test_without_an_api_key(b: Bench) -> None:
    b.fleet = replace(b.fleet, core=replace(b.fleet.core, api_key=None, api_secret=None))
    facts = await b.survey()
    assert refusals(facts) == []
    assert {"no-api-key", "action-v1-style"} <= codes(facts)
    assert not facts.api
    assert facts.version == "1.19.5"
    assert {s.name for s in facts.servers} == {"Local", "web-1"}
    assert facts.agent_server == "Local"


async def test_a_server_that_is_not_covered_and_one_unknown(b: Bench) -> None:
    other = replace(b.fleet.servers[0], name="Web-1")
    b.fleet = replace(b.fleet, servers=(other,), leave_behind=("gone",))
    assert {f.code: f.severity for f in (await b.survey()).findings if f.subject in ("web-1", "Web-1", "gone")} == {
        "server-not-covered": "refuse",
        "server-unknown": "refuse",
        "left-behind-unknown": "warn",
    }
    b.fleet = replace(b.fleet, servers=(), leave_behind=("web-1",))
    assert refusals(await b.survey()) == []


async def test_a_wrong_api_secret_is_tried_once(b: Bench) -> None:
    secret = b.sandbox.folder / "secrets" / "api_secret"
    secret.write_text("S_wrong_S")
    facts = await b.survey()
    assert "api-refused" in codes(facts)
    assert "S_wrong_S" not in repr(facts)
    assert {s.name for s in facts.servers} == {"Local", "web-1"}


async def test_a_core_host_that_cannot_be_reached(b: Bench) -> None:
    b.sandbox.fault("unreachable", "core")
    await b.sandbox.settled()
    facts = await b.survey()
    assert not facts.reachable
    assert codes(facts) == {"unreachable"}


async def test_host_without_scheme_is_refused_before_anything(tmp_path: Path) -> None:
    async with bench(tmp_path, core_url="komodo.example.com") as b:
        assert "host-not-url" in {f.code for f in refusals(await b.survey())}


async def test_a_survey_is_repeated_after_a_broken_connection(b: Bench) -> None:
    before = [f.code for f in (await b.survey()).findings]
    b.sandbox.fault("connection-drop", "core", at=3, times=1)
    assert [f.code for f in (await b.survey()).findings] == before
    assert not b.sandbox.world.faults.on("connection-drop", "core"), "the connection was cut"
