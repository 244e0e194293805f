"""Entry point of the image that replaces `mongo`: creates the root user in an empty volume, then serves.

The flags of mongod are accepted and ignored; any other command runs unchanged (`docker run mongo bash`)."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DATA = "/data/db"
USER, PASSWORD = os.environ.get("MONGO_INITDB_ROOT_USERNAME"), os.environ.get("MONGO_INITDB_ROOT_PASSWORD")
# standalone: a replica set would refer drivers to 0.0.0.0
SERVER = [sys.executable, "-m", "secantus", "--port", "27017", "--storage-path", DATA, "--cache-size", "256M",
          "--standalone"]  # fmt: skip


def make_user() -> None:
    import pymongo
    import pymongo.errors

    server = subprocess.Popen([*SERVER, "--host", "127.0.0.1"])
    client: pymongo.MongoClient[Any] = pymongo.MongoClient(
        "mongodb://127.0.0.1:27017/?directConnection=true", serverSelectionTimeoutMS=20000
    )
    for _ in range(100):
        try:
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=[{"role": "root", "db": "admin"}])
            break
        except pymongo.errors.AutoReconnect:
            time.sleep(0.2)
    client.close()
    server.terminate()
    server.wait(20)
    print("MongoDB init process complete; ready for start up.", flush=True)


def main() -> None:
    words = sys.argv[1:]
    if words and not words[0].startswith("-") and words[0] != "mongod":
        os.execvp(words[0], words)
    if USER and PASSWORD and not Path(DATA, "WiredTiger").exists():
        make_user()
    os.execv(sys.executable, [*SERVER, "--host", "0.0.0.0", *(["--auth"] if USER and PASSWORD else [])])


main()
