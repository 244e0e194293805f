"""Komodo's own tool in a container of its own: `km database backup | restore | v1-downgrade`.

As seen with km 1.19.5 and 2.3.2 (lib/database/src/utils/, bin/cli/src/command/database.rs): one .gz of JSON lines a
collection, Stats next to the dated folder, files of nothing for empty collections; a restore sets fields by ObjectId,
drops nothing, and ends with 0 whatever became of a collection.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import bson
from bson import json_util

from sandbox.docker.engine import Engine
from sandbox.machine.call import Call, options
from sandbox.mongo.program import database_of
from sandbox.mongo.store import Store
from sandbox.world import now

VALUED = "--name --network --env-file -e --env -v --volume --entrypoint --pull -w --workdir -u --user"


async def run(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker run --rm … --entrypoint km IMAGE database VERB …`; no other program is simulated."""
    found, words = options(argv, VALUED, first=True)
    image = engine.store.find(words[0]) if words else None
    if image is None:
        call.err(f"docker: Error response from daemon: No such image: {words[0] if words else ''}\n")
        return 125
    has_km = image.program == "core" and tuple(int(n) for n in image.version.split(".")[:2]) >= (1, 19)
    if found.get("--entrypoint") != ["km"] or not has_km or words[1:2] != ["database"]:
        call.err('docker: Error response from daemon: exec: "km": executable file not found in $PATH\n')
        return 127
    env: dict[str, str] = {}
    for file in found.get("--env-file", []):
        text = (await call.read()).decode() if file == "/dev/stdin" else call.host.path(file).read_text()
        env |= dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    env |= dict(pair.split("=", 1) for pair in found.get("-e", []) + found.get("--env", []))
    volumes = [v.split(":") for v in found.get("-v", []) + found.get("--volume", [])]
    mounts = {inside: outside for outside, inside, *_ in volumes}
    backups = call.host.path(mounts.get("/backups", "/nowhere"))
    network = (found.get("--network") or ["bridge"])[0]
    verb, rest = words[2], words[3:]
    prefix = prefix_of(verb)
    if engine.host.world.faults.strike("km-fails", engine.host.name):
        env[f"{prefix}_ADDRESS"], env[f"{prefix}_URI"] = "nowhere:1", ""
    store = await _connect(call, engine, env, prefix, network)
    if store is None:
        return 1
    name = env.get(f"{prefix}_DB_NAME") or "komodo"
    return work(call, store, name, backups, image.version, [verb, *rest])


def work(call: Call, store: Store, name: str, backups: Path, version: str, words: list[str]) -> int:
    """`km database WORDS…` on the database `name`. Exit code."""
    if words[:1] == ["backup"]:
        return _backup(call, store, name, backups)
    if words[:1] == ["restore"]:
        return _restore(call, store, name, backups, words[1:])
    if words[:1] == ["v1-downgrade"] and version.startswith("2."):
        for collection in ("Server", "Deployment"):
            store.update(name, collection, {}, {"$set": {"info": None}}, many=True, upsert=False)
        _say(call, "V1 Downgrade complete. Ready to downgrade to komodo-core:1 ✅")
        return 0
    call.err(f"error: unrecognized subcommand '{(words or [''])[0]}'\n")
    return 2


def prefix_of(verb: str) -> str:
    """Of the variables that say where km works: a restore writes to its target, all else is done at the source."""
    return "KOMODO_CLI_DATABASE_TARGET" if verb == "restore" else "KOMODO_DATABASE"


def _say(call: Call, text: str, level: str = " INFO") -> None:
    call.out(f"\x1b[2m{now():%Y-%m-%dT%H:%M:%S.%fZ}\x1b[0m \x1b[32m{level}\x1b[0m {text}\n")


async def _connect(call: Call, engine: Engine, env: Mapping[str, str], prefix: str, network: str) -> Store | None:
    uri = env.get(f"{prefix}_URI") or f"mongodb://{env.get(f'{prefix}_ADDRESS', 'localhost:27017')}"
    parts = urlsplit(uri)
    user = unquote(parts.username or "") or env.get(f"{prefix}_USERNAME", "")
    password = unquote(parts.password or "") or env.get(f"{prefix}_PASSWORD", "")
    database = database_of(engine.resolve(parts.hostname or "", network))
    if database is None:
        await asyncio.sleep(engine.host.world.scaled(3))
        _say(call, "Failed to reach the database: Server selection timeout: No available servers", "ERROR")
        return None
    if database.auth and database.store.users.get(("admin", user)) != password:
        _say(call, "SCRAM failure: Authentication failed.", "ERROR")
        return None
    return database.store


def _backup(call: Call, store: Store, name: str, backups: Path) -> int:
    folder = backups / f"{now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir(parents=True, exist_ok=True)
    _say(call, f"Backing up to {folder.name!r}...")
    for collection, content in sorted(store.databases.get(name, {}).items()):
        lines = [json_util.dumps(d, json_options=json_util.RELAXED_JSON_OPTIONS) for d in content.documents]
        file = (backups if collection == "Stats" else folder) / f"{collection}.gz"
        file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
        if lines:
            _say(call, f"[{collection}]: Backed up {len(lines)} items")
    _say(call, "Finished backing up database ✅")
    if call.host.world.faults.strike("dump-truncated", call.host.name):
        file = folder / "Server.gz"
        file.write_bytes(file.read_bytes()[:-9])
    if call.host.world.faults.strike("dump-loses", call.host.name):
        file = folder / "Server.gz"
        kept = gzip.decompress(file.read_bytes()).splitlines(keepends=True)[:-1]
        file.write_bytes(gzip.compress(b"".join(kept), mtime=0))
    return 0


def _restore(call: Call, store: Store, name: str, backups: Path, words: list[str]) -> int:
    found, _ = options(words, "--restore-folder -r")
    folder = backups / (found.get("--restore-folder") or found.get("-r") or [""])[0]
    for file in [*sorted(folder.glob("*.gz")), backups / "Stats.gz"]:
        collection, done = file.name.removesuffix(".gz"), 0
        if not file.exists():
            _say(
                call, f'[{collection}]: Failed to open file "/backups/{file.name}": No such file or directory', "ERROR"
            )
            continue
        for line in gzip.decompress(file.read_bytes()).decode().splitlines():
            document = json.loads(line, object_hook=json_util.object_hook)
            if not isinstance(document.get("_id"), bson.ObjectId):
                continue
            done += 1
            # $set makes new fields in the order of their names
            fields = {k: document[k] for k in sorted(document) if k != "_id"}
            query = {"_id": document["_id"]}
            store.update(name, collection, query, {"$set": fields}, many=False, upsert=True)
        if done:
            _say(call, f"[{collection}]: Restored {done} items")
    _say(call, "Finished restoring database ✅")
    return 0
