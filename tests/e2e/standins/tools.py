"""mongodump and mongorestore as processes: the sandbox's logic on a real database, streams and files of the machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from sandbox import mongo_tools
from tests.e2e.standins.parts import Container, Engine, Image
from tests.e2e.standins.store import MongoStore

VERSION = "100.12.0"


class Host:
    """The machine the tools run on: full when writing says so, never beforehand."""

    name = ""
    disk = None

    def refuses(self, _path: object) -> str:
        """As sandbox/host.py."""
        return ""

    @property
    def world(self) -> Any:
        """Without faults."""
        return Engine().host.world


class Call:
    """The process's own streams."""

    host = Host()

    def out(self, data: bytes | str) -> None:
        """Standard output."""
        sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)

    def err(self, text: str) -> None:
        """Standard error, at once."""
        sys.stderr.write(text)
        sys.stderr.flush()

    async def read(self) -> bytes:
        """Standard input to its end."""
        return sys.stdin.buffer.read()

    async def flush(self) -> None:
        """Standard output is written."""
        sys.stdout.buffer.flush()


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


async def _config_text(call: Call, _container: object, path: str, _interactive: bool) -> str:
    if path in {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}:
        return (await call.read()).decode()
    return _text(path)


async def _connect(call: Call, _engine: object, _container: object, options: Any) -> MongoStore | None:
    """Real authentication by the real server; errors in the tools' words, the URI's password included."""
    login: dict[str, Any] = {}
    if options.user:
        login = {"username": options.user, "password": options.password or "", "authSource": options.source}
    where = options.uri or options.host
    begin = f"{mongo_tools._now()}Failed: "
    try:
        port = (
            int(options.uri.rpartition("@")[2].partition("/")[0].partition(":")[2] or 27017) if options.uri else 27017
        )
        mongo: MongoClient[Any] = MongoClient(
            options.host, port, directConnection=True, serverSelectionTimeoutMS=30000, **login
        )
        mongo.admin.command("ping")
        mongo.list_database_names()
    except (OperationFailure, IndexError) as error:  # IndexError: pymongo's, for an empty password
        if login:
            call.err(
                f"{begin}can't create session: failed to connect to {where}: connection() error occurred during"
                " connection handshake: auth error: sasl conversation error: unable to authenticate using mechanism"
                ' "SCRAM-SHA-256": (AuthenticationFailed) Authentication failed.\n'
            )
        else:
            call.err(f"{begin}(Unauthorized) Command listCollections requires authentication: {error}\n")
        return None
    except PyMongoError:
        call.err(f"{begin}can't create session: failed to connect to {where}: server selection error: timeout\n")
        return None
    return MongoStore(mongo)


def main(name: str) -> int:
    """Exit code of `mongodump` or `mongorestore`."""
    if sys.argv[1:] == ["--version"]:
        print(f"{name} version: {VERSION}\ngit version: stand-in")
        return 0
    mongo_tools._connect = _connect  # type: ignore[assignment]
    mongo_tools._config_text = _config_text  # type: ignore[assignment]
    work = mongo_tools.dump if name == "mongodump" else mongo_tools.restore
    call: Any = Call()
    engine: Any = Engine()
    container: Any = Container(Image(VERSION))
    try:
        return asyncio.run(work(call, engine, container, sys.argv[1:], True))
    except OSError as error:
        call.err(f"{mongo_tools._now()}Failed: error writing to archive: {(error.strerror or '').lower()}\n")
        return 1
