"""The database as drivers and tools see it: motor over a forward, mongodump and mongorestore with their traps."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from sandbox.fleet import Sandbox
from tests.sandbox.conftest import Run, connect

DUMP = "sudo -n docker exec -i komodo-mongo-1 mongodump --uri='mongodb://komodo@localhost/{query}' --config=/dev/stdin"
RESTORE = "sudo -n docker exec -i komodo-mongo-1 mongorestore --uri='mongodb://komodo@localhost/?authSource=admin'"


@pytest.fixture
async def database(fleet: Sandbox) -> AsyncIterator[Any]:
    """motor through an SSH forward to the container's address."""
    container = fleet.engine.find("komodo-mongo-1")
    assert container is not None
    async with await connect(fleet, "core") as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, container.address, 27017)
        client: Any = AsyncIOMotorClient(
            "127.0.0.1", listener.get_port(), username="komodo", password=fleet.own_secrets.db_password,
            authSource="admin", serverSelectionTimeoutMS=5000,
        )  # fmt: skip
        yield client
        await asyncio.to_thread(client.close)


async def counts(client: Any, name: str = "komodo") -> dict[str, int]:
    database = client[name]
    return {c: await database[c].count_documents({}) for c in sorted(await database.list_collection_names())}


async def test_reading_with_motor(database: Any) -> None:
    found = await counts(database)
    assert found["Server"] == 6
    assert found["Update"] == 40
    assert found["UserGroup"] == 0
    assert await database.komodo.Update.estimated_document_count() == 40
    assert len([d async for d in database.komodo.Stats.find({}, {"cpu_perc": 1}, batch_size=7)]) == found["Stats"]
    assert (await database.admin.command("buildInfo"))["version"] == "8.0.15"
    assert "komodo" in [d["name"] async for d in await database.list_databases()]
    one = await database.komodo.Server.find_one({"name": "web-1"})
    assert one["info"] is None
    assert one["config"]["address"].endswith(":8120")
    assert (await database.komodo.Server.find().sort("name", -1).to_list(2))[0]["name"] == "web-2"


async def test_writing_with_motor(database: Any) -> None:
    await database.scratch.a.insert_many([{"n": n} for n in range(250)])
    assert await database.scratch.a.count_documents({"n": {"$gte": 200}}) == 50
    await database.scratch.a.update_one({"n": 1}, {"$set": {"x.y": 2}})
    assert (await database.scratch.a.find_one({"n": 1}))["x"] == {"y": 2}
    await database.scratch.a.delete_many({"n": {"$lt": 100}})
    assert await database.scratch.a.count_documents({}) == 150
    await database.drop_database("scratch")
    assert "scratch" not in await database.list_database_names()


async def test_passwords_are_checked(fleet: Sandbox) -> None:
    container = fleet.engine.find("komodo-mongo-1")
    assert container is not None
    for user, source in ((("komodo", "wrong"), "admin"), (("komodo", fleet.own_secrets.db_password), "komodo")):
        client: Any = AsyncIOMotorClient(
            container.address, 27017, username=user[0], password=user[1], authSource=source
        )
        with pytest.raises(OperationFailure) as failure:
            await client.komodo.list_collection_names()
        assert failure.value.code == 18
        await asyncio.to_thread(client.close)
    nobody: Any = AsyncIOMotorClient(container.address, 27017)
    with pytest.raises(OperationFailure) as failure:
        await nobody.komodo.list_collection_names()
    assert failure.value.code == 13
    await asyncio.to_thread(nobody.close)


async def test_dump_and_restore(fleet: Sandbox, run: Run, database: Any) -> None:
    secret = f"password: {fleet.own_secrets.db_password}\n"
    before = await counts(database)
    command = DUMP.format(query="?authSource=admin") + " --db=komodo --archive --gzip > ~/a.gz"
    done = await run("core", command, secret)
    assert (done.exit_status, done.stdout) == (0, "")
    assert "done dumping komodo.Update (40 documents)" in str(done.stderr)
    archive = fleet.hosts["core"].root / "home/ops/a.gz"
    assert gzip.decompress(archive.read_bytes())
    await database.komodo.Update.delete_many({})
    await database.komodo.OnboardingKey.insert_one({"made": "later"})
    await run("core", "sudo -n docker cp ~/a.gz komodo-mongo-1:/tmp/a.gz")
    scratch = " --config=/dev/stdin --archive=/tmp/a.gz --gzip --nsFrom='komodo.*' --nsTo='scratch.*'"
    assert (await run("core", RESTORE + scratch, secret)).exit_status == 0
    assert await counts(database, "scratch") == before
    filtered = await run("core", RESTORE + " --config=/dev/stdin --archive=/tmp/a.gz --gzip --db=other", secret)
    assert filtered.exit_status == 0
    assert "0 document(s) restored successfully" in str(filtered.stderr)
    over = await run("core", RESTORE + " --config=/dev/stdin --archive=/tmp/a.gz --gzip", secret)
    assert over.exit_status == 0
    assert "40 document(s) restored successfully" in str(over.stderr)
    back = await run("core", RESTORE + " --config=/dev/stdin --archive=/tmp/a.gz --gzip --drop", secret)
    assert back.exit_status == 0
    assert await counts(database) == {**before, "OnboardingKey": 1}  # what is not in the archive stays
    assert fleet.own_secrets.db_password not in " ".join(" ".join(r.argv) for r in fleet.journal)


async def test_truncated_archive(fleet: Sandbox, run: Run, database: Any) -> None:
    secret = f"password: {fleet.own_secrets.db_password}\n"
    fleet.fault("dump-truncated", "core", times=1)
    dump = DUMP.format(query="?authSource=admin") + " --db=komodo --archive --gzip > ~/a.gz"
    assert (await run("core", dump, secret)).exit_status == 0
    assert (await run("core", "gzip -t ~/a.gz")).exit_status == 1
    await run("core", "sudo -n docker cp ~/a.gz komodo-mongo-1:/tmp/a.gz")
    options = " --config=/dev/stdin --archive=/tmp/a.gz --gzip --nsFrom='komodo.*' --nsTo='scratch.*'"
    dry = await run("core", f"{RESTORE}{options} --dryRun", secret)
    assert dry.exit_status == 0  # proves nothing
    done = await run("core", RESTORE + options, secret)
    assert done.exit_status == 1
    assert 0 < sum((await counts(database, "scratch")).values()) < sum((await counts(database)).values())


@pytest.mark.parametrize(
    ("query", "password", "database", "code", "words"),
    [
        ("?authSource=admin", "right", "wrong-name", 0, ""),
        ("?authSource=admin", "wrong", "komodo", 1, "AuthenticationFailed"),
        ("", "right", "komodo", 1, "AuthenticationFailed"),  # the user is expected in the dumped database
    ],
)
async def test_traps(fleet: Sandbox, run: Run, query: str, password: str, database: str, code: int, words: str) -> None:
    secret = fleet.own_secrets.db_password if password == "right" else "nonsense"
    command = DUMP.format(query=query) + f" --db={database} --archive --gzip > ~/a.gz"
    done = await run("core", command, f"password: {secret}\n")
    assert done.exit_status == code
    assert words in str(done.stderr)
    assert secret not in str(done.stderr)
    if not code:  # an empty archive that seems valid
        assert (await run("core", "gzip -t ~/a.gz")).exit_status == 0
        assert (fleet.hosts["core"].root / "home/ops/a.gz").stat().st_size < 200


async def test_password_in_the_uri_is_printed(fleet: Sandbox, run: Run) -> None:
    uri = "mongodb://komodo:visible@localhost/?authSource=admin"
    done = await run("core", f"sudo -n docker exec komodo-mongo-1 mongodump --uri='{uri}' --db=komodo --archive=/tmp/x")
    assert done.exit_status == 1
    assert "visible" in str(done.stderr)


async def test_dump_faults(fleet: Sandbox, run: Run) -> None:
    secret = f"password: {fleet.own_secrets.db_password}\n"
    command = DUMP.format(query="?authSource=admin") + " --db=komodo --archive --gzip > ~/a.gz"
    fleet.fault("dump-empty", "core", times=1)
    empty = await run("core", command, secret)
    assert (empty.exit_status, empty.stderr) == (0, "")
    fleet.fault("no-mongodump", "core")
    assert "executable file not found" in str((await run("core", command, secret)).stderr)
    fleet.heal("no-mongodump")
    fleet.fault("dump-fails", "core", times=1)
    assert (await run("core", command, secret)).exit_status == 1
    fleet.fault("disk-full", "core")
    full = await run("core", command, secret)
    assert full.exit_status == 1
    assert "no space left on device" in str(full.stderr)
    fleet.heal()
    fleet.fault("dump-hangs", "core", times=1)
    done = await run("core", f"timeout 0.5 {command.replace('sudo -n ', 'sudo -n ')}", secret)
    assert done.exit_status in (124, 141)
    await run("core", "sudo -n docker stop komodo-mongo-1")
    assert "is not running" in str((await run("core", command, secret)).stderr)
    await run("core", "sudo -n docker start komodo-mongo-1")
    assert (await run("core", command, secret)).exit_status == 0


async def test_data_survives_a_new_container(fleet: Sandbox, run: Run, tmp_path: Path) -> None:
    root = fleet.hosts["core"].root
    flags = "-p komodo -f komodo/mongo.compose.yaml --env-file komodo/compose.env"
    done = await run("core", f"cd {root}/opt && sudo -n docker compose {flags} up -d --force-recreate mongo")
    assert done.exit_status == 0
    assert len(fleet.store.find("komodo", "Server")) == 6
