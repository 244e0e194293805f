"""Dumps that are proven, and dumps that prove nothing: over real SSH against the sandbox's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.core.access import login_for
from activities.database.dumps import SCRATCH
from komodo.core.database import TRIED
from model.errors import CommandFailed, DatabaseDenied, DumpRejected, UpgradeError
from model.facts import DumpProof, Moment
from model.steps import DumpStep, FingerprintDatabase
from tests.activities.core_fleet import Bench, bench


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def scratch(b: Bench) -> list[str]:
    return [name for name in b.sandbox.store.databases if name.startswith("ku_proof_")]


async def dumped(b: Bench, label: str = "before") -> DumpStep:
    await b.backed_up()
    if label != "before":
        await b.core.stop_core(b.step)
    return b.with_dump(await b.dumps.dump_database(b.to_dump(label)))


async def test_a_dump_is_proven_and_proven_once(b: Bench) -> None:
    step = await dumped(b)
    assert all(len(c.digest) == 32 for c in step.dump.collections)
    proven = await b.dumps.prove_dump(step)
    assert proven.proof is not None
    assert (scratch(b), b.ran("mongorestore")) == ([], 1)
    assert await b.dumps.prove_dump(step) == proven
    assert b.ran("mongorestore") == 1
    said = repr(proven) + repr([r.argv for r in b.sandbox.journal])
    assert not [s for s in b.sandbox.secrets if s in said]
    assert not list((b.folder / "dumps").glob("*.part*")) + list((b.folder / "dumps").glob("*.log"))


async def test_the_final_dump_is_proven_with_v2_running(b: Bench) -> None:
    final = await b.quiet()
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    proven = await b.dumps.prove_dump(b.with_dump(final))
    assert proven.proof is not None
    assert proven.proof.notes == ()
    after = await b.dumps.fingerprint_database(FingerprintDatabase(**b.step.basis(), moment=Moment.AFTER))
    before = {c.name: c.digest for c in final.collections}
    now = {c.name: c.digest for c in after.collections}
    assert now["Server"] != before["Server"]
    assert now["Tag"] == before["Tag"]


async def test_what_changes_during_a_dump(b: Bench) -> None:
    """In a database in use: tolerated and reported. In one that must be quiet: refused."""
    await b.backed_up()
    for what in ("insert", "update", "delete"):
        b.sandbox.fault("dump-meanwhile", "core", what=what, times=1)
        assert "Update (1 of" in (await prove(b)).notes[0]
        b.next_attempt()
    await b.core.stop_core(b.step)
    b.sandbox.fault("dump-meanwhile", "core", what="insert", times=1)
    with pytest.raises(DumpRejected, match="does something else write"):
        await b.dumps.dump_database(b.to_dump("final"))


async def prove(b: Bench) -> DumpProof:
    step = b.to_dump("before")
    proven = await b.dumps.prove_dump(b.with_dump(await b.dumps.dump_database(step)))
    assert proven.proof is not None
    return proven.proof


async def test_dumps_that_prove_nothing(b: Bench) -> None:
    await b.backed_up()
    for fault, verdict in {
        "dump-loses": "truncated: .* documents in the database",
        "dump-of-another": "proves nothing: .* found no collection",
        "dump-empty": "proves nothing: .*wrote an empty archive",
        "dump-truncated": "proves nothing: .*cut off or damaged",
    }.items():
        b.sandbox.fault(fault, "core", times=1)
        with pytest.raises(DumpRejected, match=f"(?s){verdict}"):
            await prove(b)
        assert scratch(b) == []
        b.next_attempt()
    assert not (await prove(b)).notes


async def test_a_database_without_dump_tools_is_dumped_by_km(b: Bench) -> None:
    b.sandbox.fault("no-mongodump", "core")
    step = await dumped(b)
    assert step.dump.method == "km"
    assert (await b.dumps.prove_dump(step)).proof is not None


@pytest.mark.parametrize("how", ["stalls", "takes too long"])
async def test_a_dump_that_hangs_is_ended_and_core_may_start_again(b: Bench, how: str) -> None:
    """Core is stopped meanwhile: it is waited for once, not once per retry."""
    limit = timedelta(seconds=3)
    b.timing(**({"dump_stall": limit} if how == "stalls" else {"dump": limit}))
    await b.backed_up()
    await b.core.stop_core(b.step)
    b.sandbox.fault("dump-hangs", "core", times=1)
    with pytest.raises(CommandFailed, match=r"mongodump wrote nothing for 3 s|did not end within 0:00:03") as caught:
        await b.dumps.dump_database(b.to_dump("final"))
    assert not caught.value.transient
    assert [p.name for p in (b.folder / "dumps").iterdir()] == []
    assert (await b.back.start_old_core(b.step)).version == "1.19.5"


async def test_archives_that_are_not_what_was_dumped(b: Bench) -> None:
    step = await dumped(b, "final")
    path, source = File(step.dump.path), File(step.dump.source)
    whole = path.data
    b.sandbox.store.insert("elsewhere", "Server", [{"name": "x"}])
    other = await archive(b, "elsewhere")
    for server in b.sandbox.store.databases["komodo"]["Server"].documents:
        server["name"] += "x"
    changed = await archive(b, "komodo")
    for data, verdict in (
        (whole[:-100], "truncated: .*cut off"),
        (other, "wrong database: the archive holds no document of the database 'komodo'"),
        (changed, "different: .*Server: 2 documents in both, not the same content"),
        (None, "gone: .* does not exist"),
    ):
        path.put(data)
        source.put(source.data)
        with pytest.raises(DumpRejected, match=f"(?s){verdict}"):
            await b.dumps.prove_dump(step)
        assert scratch(b) == []
        b.next_attempt()
        step = replace(step, op=b.step.op)
    assert [d["name"] for d in b.sandbox.store.find("elsewhere", "Server")] == ["x"]


async def archive(b: Bench, database: str) -> bytes:
    """The archive that mongodump writes of a database."""
    login, _ = await login_for(await b.hosts.get(b.fleet.core.host), b.step.facts)
    out = b.sandbox.folder / "archive"
    done = await b.manual_command(
        f"printf 'password: {login.password}\\n' | sudo docker exec -i komodo-mongo-1 mongodump '--uri={login.uri()}' "
        f"--config=/dev/stdin --db={database} --archive --gzip > {out}"
    )
    assert done.exit_status == 0, done.stderr
    return out.read_bytes()


async def test_a_login_that_may_not_make_a_scratch_database(b: Bench) -> None:
    step = await dumped(b)
    b.sandbox.store.only = "komodo"
    with pytest.raises(DatabaseDenied, match="may not make the scratch database") as caught:
        await b.dumps.prove_dump(step)
    assert "grantRolesToUser" in caught.value.hint
    assert "[database] proof" in caught.value.hint
    b.sandbox.store.only = ""
    assert (await b.dumps.prove_dump(step)).proof is not None


class File:
    """On Core's host."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.data = self.path.read_bytes()

    def put(self, data: bytes | None) -> None:
        self.path.unlink(missing_ok=True)
        if data:
            self.path.write_bytes(data)


async def test_a_connection_cut_between_the_write_test_and_the_drop(b: Bench) -> None:
    """The rest of the write test is neither a restore nor one of the dump's collections."""
    step = await dumped(b)
    op = step.op
    b.sandbox.store.insert(f"{SCRATCH}{op.change.lower()}_before_{op.attempt}", TRIED, [{"by": "komodo-upgrade"}])
    assert (await b.dumps.prove_dump(step)).proof is not None
    assert scratch(b) == []


class _Killed(BaseException):
    """An exception that no code catches."""


async def test_a_crash_between_the_restore_and_the_drop(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    step = await dumped(b)

    def dies(*_: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr("activities.database.dumps._drop_scratch", dies)
        patch.setattr("activities.database.dumps.Dumps._clear", dies)
        patch.setattr("activities.database.dumps.fingerprint.compare", dies)
        b.sandbox.store.insert("ku_proof_old_before_1", "Server", [{"name": "left by a run that never came back"}])
        with pytest.raises(_Killed):
            await b.dumps.prove_dump(step)
    assert scratch(b) != []
    assert (await b.dumps.prove_dump(step)).proof is not None
    assert scratch(b) == []
    assert b.ran("mongorestore") <= 2


async def test_a_cancel_leaves_no_scratch_database(b: Bench) -> None:
    step = await dumped(b)
    b.sandbox.fault("slow", "core", command="docker", seconds=0.5)
    task = asyncio.create_task(b.dumps.prove_dump(step))
    async with asyncio.timeout(30):
        while not b.ran("cp", "komodo-mongo-1:/tmp/komodo-upgrade-proof.archive.gz"):  # noqa: ASYNC110 - the sandbox has no event for it
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scratch(b) == []


async def test_a_restore_continues_without_its_connection_and_the_next_try_attaches(b: Bench) -> None:
    step = await dumped(b)
    b.sandbox.fault("slow", "core", command="docker", seconds=0.5)
    task = asyncio.create_task(b.dumps.prove_dump(step))
    async with asyncio.timeout(30):
        while not b.ran("cp", "komodo-mongo-1:/tmp/komodo-upgrade-proof.archive.gz"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    b.sandbox.kill_connections("core")
    with pytest.raises(UpgradeError) as caught:
        await task
    assert caught.value.transient
    assert (await b.dumps.prove_dump(step)).proof is not None
    assert (scratch(b), b.ran("mongorestore")) == ([], 1)
