"""A database without dump tools: FerretDB, with km of Core's own image, there and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import bson
import pytest

from komodo.database import Database
from model.errors import CommandFailed, DatabaseError, DumpRejected
from model.steps import KEEP
from tests.activities.core_fleet import Bench, bench, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, database="ferretdb") as made:
        yield made


def leaked(b: Bench, *said: object) -> list[str]:
    """Secrets in what was said, in arguments, in notes, or in what jobs left behind."""
    text = repr(said) + repr([r.argv for r in b.sandbox.journal])
    ours = [p for p in (*b.folder.rglob("jobs/**/*"), *b.folder.glob("dumps/*.json")) if p.is_file()]
    text += "".join(p.read_text(errors="replace") for p in ours)
    return [s for s in b.sandbox.secrets if s in text]


def no_km_runs(b: Bench) -> bool:
    """Neither a one-off container of now nor one whose script was killed."""
    return "komodo-upgrade-km" not in {c.name for c in b.sandbox.engine.containers.values()}


async def test_there_and_back_with_km(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database by our steps, the rest by hand."""
    before = b.sandbox.store.find("komodo", "Server")
    final = await b.upgraded()
    assert b.step.facts.database
    assert (b.step.facts.database.ferretdb, b.step.facts.database.has_mongodump) == (True, False)
    assert (final.method, final.path.endswith("final.km.tar")) == ("km", True)
    assert {c.name: c.documents for c in final.collections}["Server"] == 2
    proven = await b.dumps.prove_dump(replace(b.step, dump=final))
    assert proven.proof is not None
    assert [n for n in b.sandbox.store.databases if n.startswith("ku_proof")] == []
    b.sandbox.store.insert("komodo", "Update", [{"operation": "UpdateServerKey", "target": {"type": "Server"}}])
    b.sandbox.store.insert("komodo", "Swarm", [{"name": "v2's own"}])

    b.next_attempt()
    back = replace(b.step, dump=final)
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(replace(back, label="pre_rollback"))
    await b.by_hand("sudo docker create --name komodo-upgrade-km ghcr.io/moghtech/komodo-core:latest")
    assert not no_km_runs(b)
    drop, dropped = Database.drop, []

    async def watched(self: Database) -> None:
        dropped.append(no_km_runs(b))
        await drop(self)

    monkeypatch.setattr(Database, "drop", watched)
    await b.back.restore_database(back)
    assert dropped == [True]
    assert [d["config"] for d in b.sandbox.store.find("komodo", "Server")] == [d["config"] for d in before]
    assert "Swarm" not in b.sandbox.store.databases["komodo"]
    b.sandbox.store.insert("komodo", "Swarm", [{"name": "v2's own"}])

    shown = await b.by_hand(f"sudo sh {b.folder}/restore.sh --dry-run")
    assert "km database restore" in str(shown.stdout)
    done = await b.by_hand(f"sudo sh {b.folder}/restore.sh")
    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5"
    assert b.sandbox.store.find("komodo", "Update", {"operation": "UpdateServerKey"}) == []
    assert "Swarm" not in b.sandbox.store.databases["komodo"]
    assert refusals(await b.survey()) == []
    assert leaked(b, final, proven, pre, shown.stdout, done.stdout, done.stderr) == []


async def test_backups_of_km_that_prove_nothing(b: Bench) -> None:
    await b.backed_up()
    step = replace(b.step, label="before")
    b.sandbox.fault("dump-truncated", "core", times=1)
    with pytest.raises(DumpRejected, match=r"truncated: Server\.gz is cut off"):
        await b.dumps.dump_database(step)
    b.sandbox.fault("dump-loses", "core", times=1)
    with pytest.raises(DumpRejected, match="Server: 2"):
        await b.dumps.prove_dump(replace(step, dump=await b.dumps.dump_database(step)))
    b.next_attempt()
    step = replace(b.step, label="before")
    b.sandbox.fault("km-fails", "core", times=1)
    with pytest.raises(CommandFailed, match="km ended with 1"):
        await b.dumps.dump_database(step)
    assert (await b.dumps.prove_dump(replace(step, dump=await b.dumps.dump_database(step)))).proof is not None
    assert not list((b.folder / "dumps").glob("*.part*"))


async def test_an_older_core_has_no_km(tmp_path: Path) -> None:
    async with bench(tmp_path, database="ferretdb", core_version="1.18.4") as b:
        [found] = refusals(await b.survey())
        assert (found.code, "1.19.5" in found.cure) == ("no-mongodump", True)


async def test_what_was_written_since_is_kept(tmp_path: Path) -> None:
    """On MongoDB, whose container has mongodump: v1-downgrade is km's there too."""
    async with bench(tmp_path) as b:
        await b.upgraded()
        store = b.sandbox.store
        store.insert("komodo", "Tag", [{"name": "made in v2"}])
        for operation in ("UpdateServerKey", "DeployStack"):
            usual = store.find("komodo", "Update")[0]
            store.insert("komodo", "Update", [{**usual, "_id": bson.ObjectId(), "operation": operation}])
        for where in ({"server_id": "s", "swarm_id": None}, {"server_id": None, "swarm_id": "s"}, {}):
            alert = {"target": {"type": "Stack", "id": "s"}, "data": {"type": "StackAutoUpdated", "data": where}}
            store.insert("komodo", "Alert", [alert])
        with pytest.raises(Exception, match="runs: its database is not replaced"):
            await b.back.downgrade_database(b.step)
        b.next_attempt()
        await b.core.stop_core(b.step)
        done = await b.back.downgrade_database(b.step)
        assert "Update documents that v1 cannot read were removed" in " ".join(done.facts)
        await b.back.restore_core_files(b.step)
        assert (await b.back.start_old_core(b.step)).version == "1.19.5"
        assert len(store.find("komodo", "Tag", {"name": "made in v2"})) == 1
        kept = store.find("komodo", "Alert", {"data.type": "StackAutoUpdated"})
        assert [d["data"]["data"].get("server_id") for d in kept] == ["s", None]
        operations = {d["operation"] for d in store.find("komodo", "Update")}
        assert ("UpdateServerKey" in operations, "DeployStack" in operations) == (False, True)
        assert refusals(await b.survey()) == []
        for version, why in (("1.18.4", r"older than 1\.19\.0"), ("2.0.0", "to v1's form only, not to that of 2")):
            old = replace(b.step, facts=replace(b.step.facts, version=version))
            with pytest.raises(DatabaseError, match=why):
                await b.back.downgrade_database(old)


async def test_that_nothing_can_be_kept_is_known_before_core_is_stopped(tmp_path: Path) -> None:
    async with bench(tmp_path, core_version="1.18.4") as b:
        b.fleet = replace(b.fleet, database=replace(b.fleet.database, rollback=KEEP))
        told = [f.text for f in (await b.survey()).findings if f.code == "rollback-not-kept"]
        assert [text.split(": ")[1] for text in told] == ["what was written since cannot be kept"]
        await b.backed_up()
        way = replace(b.step, label=KEEP)
        [drift] = (await b.back.check_rollback(way)).drift
        assert "older than 1.19.0" in drift
        assert "--database restore" in drift
        assert (await b.back.check_rollback(b.step)).drift == ()
        facts = replace(b.step.facts, version="1.19.5")
        [drift] = (await b.back.check_rollback(replace(way, facts=facts))).drift
        assert "whose km keeps what was written since, is not on the host" in drift
        await b.core.stage_core(b.step)
        assert (await b.back.check_rollback(replace(way, facts=facts))).drift == ()
