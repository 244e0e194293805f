"""km as far as the upgrade knows it: `km database v1-downgrade -y`, `km database backup -y`, `km key generate --format
json`, `km --version`."""

from __future__ import annotations

import gzip
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import bson
from pymongo.errors import PyMongoError

from sandbox import keys
from tests.e2e.standins.core import client


def main(version: str) -> int:
    """Exit code."""
    words = [w for w in sys.argv[1:] if w not in ("-y", "--yes")]
    if words in (["--version"], ["-V"]):
        print(f"km {version}")
        return 0
    if words == ["key", "generate", "--format", "json"] and not version.startswith("1."):
        private, public = keys.mint()
        print(json.dumps({"private_key": private, "public_key": public}, separators=(",", ":")))
        return 0
    database = client(dict(os.environ), serverSelectionTimeoutMS=30000)[
        os.environ.get("KOMODO_DATABASE_DB_NAME", "komodo")
    ]
    try:
        if words == ["database", "v1-downgrade"] and not version.startswith("1."):
            for name in ("Server", "Deployment"):
                database[name].update_many({}, {"$set": {"info": None}})
            print("V1 Downgrade complete. Ready to downgrade to komodo-core:1 ✅")
            return 0
        if words == ["database", "backup"]:
            folder = Path("/backups") / datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
            folder.mkdir(parents=True)
            for name in database.list_collection_names():
                data = b"".join(bson.encode(d) for d in database[name].find())
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            return 0
    except PyMongoError:
        print("ERROR: Failed to downgrade Server schema", file=sys.stderr)
        return 1
    print(f"error: unrecognized subcommand '{' '.join(words)}'", file=sys.stderr)
    return 2
