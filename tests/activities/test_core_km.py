"""A database without dump tools: FerretDB, with km of Core's own image, there and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import bson
import pytest

from komodo.core.database import Database
from model.errors import CommandFailed, CoreAnswered, DatabaseError, DumpRejected
from model.fleet.spec import DatabaseRollback
from tests.activities.core_fleet import Bench, bench, refusals


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, database="ferretdb") as made:
        yield made


def leaked(b: Bench, *said: object) -> list[str]:
    """Secrets in output, arguments, notes, or files that jobs left."""
    text = repr(said) + repr([r.argv for r in b.sandbox.journal])
    ours = [p for p in (*b.folder.rglob("jobs/**/*"), *b.folder.glob("dumps/*.json")) if p.is_file()]
    text += "".join(p.read_text(errors="replace") for p in ours)
    return [s for s in b.sandbox.secrets if s in text]


def no_km_runs(b: Bench) -> bool:
    """Neither a one-off container of now nor one whose script was killed."""
    return "komodo-upgrade-km" not in {c.name for c in b.sandbox.engine.containers.values()}


async def test_an_upgrade_and_its_rollback_with_km(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database by our steps, the rest by hand."""
    before = b.sandbox.store.find("komodo", "Server")
    final = await b.upgraded()
    assert b.step.facts.database
    assert (b.step.facts.database.ferretdb, b.step.facts.database.has_mongodump) == (True, False)
    assert (final.method, final.path.endswith("final.km.tar")) == ("km", True)
    assert {c.name: c.documents for c in final.collections}["Server"] == 2
    proven = await b.dumps.prove_dump(b.with_dump(final))
    assert proven.proof is not None
    assert [n for n in b.sandbox.store.databases if n.startswith("ku_proof")] == []
    b.sandbox.store.insert("komodo", "Update", [{"operation": "UpdateServerKey", "target": {"type": "Server"}}])
    b.sandbox.store.insert("komodo", "Swarm", [{"name": "v2's own"}])

    b.next_attempt()
    back = b.step
    await b.core.stop_core(back)
    pre = await b.dumps.dump_database(b.to_dump("pre_rollback"))
    await b.manual_command("sudo docker create --name komodo-upgrade-km ghcr.io/moghtech/komodo-core:latest")
    assert not no_km_runs(b)
    drop, dropped = Database.drop, []

    async def watched(self: Database) -> None:
        dropped.append(no_km_runs(b))
        await drop(self)

    monkeypatch.setattr(Database, "drop", watched)
    await b.back.restore_database(b.with_dump(final))
    assert dropped == [True]
    assert [d["config"] for d in b.sandbox.store.find("komodo", "Server")] == [d["config"] for d in before]
    assert "Swarm" not in b.sandbox.store.databases["komodo"]
    b.sandbox.store.insert("komodo", "Swarm", [{"name": "v2's own"}])

    shown = await b.manual_command(f"sudo sh {b.folder}/restore.sh --dry-run")
    assert "km database restore" in str(shown.stdout)
    done = await b.manual_command(f"sudo sh {b.folder}/restore.sh")
    assert done.exit_status == 0, f"{done.stdout!r}\n{done.stderr!r}"
    assert b.sandbox.core is not None
    assert b.sandbox.core.version == "1.19.5"
    assert b.sandbox.store.find("komodo", "Update", {"operation": "UpdateServerKey"}) == []
    assert "Swarm" not in b.sandbox.store.databases["komodo"]
    assert refusals(await b.survey()) == []
    assert leaked(b, final, proven, pre, shown.stdout, done.stdout, done.stderr) == []


async def test_backups_of_km_that_prove_nothing(b: Bench) -> None:
    await b.backed_up()
    step = b.to_dump("before")
    b.sandbox.fault("dump-truncated", "core", times=1)
    with pytest.raises(DumpRejected, match=r"truncated: Server\.gz is cut off"):
        await b.dumps.dump_database(step)
    b.sandbox.fault("dump-loses", "core", times=1)
    with pytest.raises(DumpRejected, match="Server: 2"):
        await b.dumps.prove_dump(b.with_dump(await b.dumps.dump_database(step)))
    b.next_attempt()
    step = b.to_dump("before")
    b.sandbox.fault("km-fails", "core", times=1)
    with pytest.raises(CommandFailed, match="km ended with 1"):
        await b.dumps.dump_database(step)
    assert (await b.dumps.prove_dump(b.with_dump(await b.dumps.dump_database(step)))).proof is not None
    assert not list((b.folder / "dumps").glob("*.part*"))


async def test_an_older_core_has_no_km(tmp_path: Path) -> None:
    async with bench(tmp_path, database="ferretdb", core_version="1.18.4") as b:
        [found] = refusals(await b.survey())
        assert (found.code, "1.19.5" in found.hint) == ("no-mongodump", True)


async def test_documents_written_since_the_upgrade_are_kept(tmp_path: Path) -> None:
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


async def test_what_v1_cannot_read_is_named_and_converted(tmp_path: Path) -> None:
    """Documents as v2.3.2 writes them: left as they are, no list of v1 works that holds one."""
    async with bench(tmp_path) as b:
        await b.upgraded()
        store = b.sandbox.store
        web, db = (str(d["_id"]) for d in store.find("komodo", "Server")[:2])
        swarm = {"type": "Swarm", "id": "s"}
        made = {
            "Builder": {"type": "Server", "params": {"server_ids": [web, db]}},
            "Stack": {"additional_env_files": [{"path": "a.env", "track": True}], "swarm_id": ""},
            "Procedure": {"stages": [{"executions": [{"execution": {"type": "RotateCoreKeys", "params": {}}}]}]},
            "Alerter": {"alert_types": ["SwarmUnhealthy"], "resources": [swarm]},
            "ResourceSync": {},
            "Swarm": {},
        }
        for collection, config in made.items():
            usual = {"name": f"{collection} of v2", "info": {}, "config": config}
            store.insert("komodo", collection, [usual])
        updates = {"$set": {"info.resource_updates": [{"target": swarm}]}}
        store.update("komodo", "ResourceSync", {}, updates, many=True, upsert=False)
        account = {"_id": bson.ObjectId(), "domain": "docker.io", "username": "me", "token": "t"}
        store.insert("komodo", "ImageRegistryAccount", [account])
        store.insert("komodo", "DockerRegistryAccount", [{**account, "_id": bson.ObjectId(), "token": "old"}])

        check = await b.back.check_rollback(b.to_check(keep=True))
        named = "\n".join(check.losses)
        assert check.drift == ()
        for text in ("Builder of v2 builds on", "Procedure of v2 loses RotateCoreKeys", "Alerter of v2", "Swarm of v2"):
            assert text in named
        b.next_attempt()
        await b.core.stop_core(b.step)
        done = " ".join((await b.back.downgrade_database(b.step)).facts)
        assert "1 Builder documents were converted" in done
        assert store.find("komodo", "Builder")[0]["config"]["params"] == {"server_id": web}
        assert store.find("komodo", "DockerRegistryAccount") == [account]
        assert store.find("komodo", "ImageRegistryAccount") == []
        await b.back.restore_core_files(b.step)
        assert (await b.back.start_old_core(b.step)).version == "1.19.5"


async def test_an_old_core_that_cannot_list_its_stacks_is_not_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.upgraded()
        b.next_attempt()
        await b.core.stop_core(b.step)
        await b.back.downgrade_database(b.step)
        config = {"additional_env_files": [{"path": "a.env", "track": True}]}
        b.sandbox.store.insert("komodo", "Stack", [{"name": "of v2", "info": {}, "config": config}])
        await b.back.restore_core_files(b.step)
        with pytest.raises(CoreAnswered, match="invalid type: map, expected a string"):
            await b.back.start_old_core(b.step)


async def test_a_rollback_that_can_keep_nothing_is_refused_before_core_is_stopped(tmp_path: Path) -> None:
    async with bench(tmp_path, core_version="1.18.4") as b:
        b.fleet = replace(b.fleet, database=replace(b.fleet.database, rollback=DatabaseRollback.KEEP))
        reported = [f.text for f in (await b.survey()).findings if f.code == "rollback-not-kept"]
        assert [text.split(": ")[1] for text in reported] == ["what was written since cannot be kept"]
        await b.backed_up()
        [drift] = (await b.back.check_rollback(b.to_check(keep=True))).drift
        assert "older than 1.19.0" in drift
        assert "--database restore" in drift
        assert (await b.back.check_rollback(b.to_check())).drift == ()
        b.step = replace(b.step, facts=replace(b.step.facts, version="1.19.5"))
        [drift] = (await b.back.check_rollback(b.to_check(keep=True))).drift
        assert "whose km keeps what was written since, is no longer on the host" in drift
        await b.core.stage_core(b.step)
        assert (await b.back.check_rollback(b.to_check(keep=True))).drift == ()
