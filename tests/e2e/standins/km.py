"""The part of km that the upgrade uses: `km database backup | restore | v1-downgrade`, `km key generate --format json`
and `km --version`. The logic is the sandbox's (sandbox/mongo/km.py), here with a real database."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from sandbox import keys
from sandbox.mongo import km
from tests.e2e.standins.core import client
from tests.e2e.standins.store import MongoStore
from tests.e2e.standins.tools import Call


def main(version: str) -> int:
    """Run the program. Returns its exit code."""
    words = [w for w in sys.argv[1:] if w not in ("-y", "--yes")]
    if words in (["--version"], ["-V"]):
        print(f"km {version}")
        return 0
    if words == ["key", "generate", "--format", "json"] and not version.startswith("1."):
        private, public = keys.mint()
        print(json.dumps({"private_key": private, "public_key": public}, separators=(",", ":")))
        return 0
    if words[:1] != ["database"] or len(words) < 2:
        print(f"error: unrecognized subcommand '{' '.join(words)}'", file=sys.stderr)
        return 2
    prefix = km.prefix_of(words[1])
    env = {k.replace(prefix, "KOMODO_DATABASE", 1): v for k, v in os.environ.items() if k.startswith(prefix)}
    call: Any = Call()
    try:
        mongo = client(env, serverSelectionTimeoutMS=30000)
        mongo.admin.command("ping")
        store: Any = MongoStore(mongo)
        backups = Path(os.environ.get("KOMODO_CLI_BACKUPS_FOLDER") or "/backups")
        return km.work(call, store, env.get("KOMODO_DATABASE_DB_NAME") or "komodo", backups, version, words[1:])
    except PyMongoError as error:
        call.out(f"ERROR: Failed to reach the database: {error}\n")
        return 1
