"""mongodump and mongorestore as processes: the sandbox's logic with a real database, streams and files."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from sandbox.mongo import tools
from tests.e2e.standins.parts import Container, Engine, Image
from tests.e2e.standins.store import MongoStore

VERSION = "100.12.0"


class Host:
    """The machine that the tools run on; a full disk shows in a failed write."""

    name = ""
    disk = None

    def refuses(self, _path: object) -> str:
        """Why a path cannot be written, as in sandbox/machine/host.py: never."""
        return ""

    @property
    def world(self) -> Any:
        """A world without faults."""
        return Engine().host.world


class Call:
    """The standard streams of the process."""

    host = Host()

    def out(self, data: bytes | str) -> None:
        """Write to standard output."""
        sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)

    def err(self, text: str) -> None:
        """Write to standard error at once."""
        sys.stderr.write(text)
        sys.stderr.flush()

    async def read(self) -> bytes:
        """Read standard input to its end."""
        return sys.stdin.buffer.read()

    async def flush(self) -> None:
        """Flush standard output."""
        sys.stdout.buffer.flush()


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


async def _config_text(call: Call, _container: object, path: str, _interactive: bool) -> str:
    if path in {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}:
        return (await call.read()).decode()
    return _text(path)


async def _connect(call: Call, _engine: object, _container: object, options: Any) -> MongoStore | None:
    """Authenticate at the real server; errors have the tools' wording, including the password in the URI."""
    login: dict[str, Any] = {}
    if options.user:
        login = {"username": options.user, "password": options.password or "", "authSource": options.source}
    where = options.uri or options.host
    begin = f"{tools._now()}Failed: "
    try:
        port = (
            int(options.uri.rpartition("@")[2].partition("/")[0].partition(":")[2] or 27017) if options.uri else 27017
        )
        mongo: MongoClient[Any] = MongoClient(
            options.host, port, directConnection=True, serverSelectionTimeoutMS=30000, **login
        )
        mongo.admin.command("ping")
        mongo.list_database_names()
    except (OperationFailure, IndexError) as error:  # IndexError: pymongo raises it for an empty password
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
    """Run `mongodump` or `mongorestore`. Returns its exit code."""
    if sys.argv[1:] == ["--version"]:
        print(f"{name} version: {VERSION}\ngit version: stand-in")
        return 0
    tools._connect = _connect  # type: ignore[assignment]
    tools._config_text = _config_text  # type: ignore[assignment]
    work = tools.dump if name == "mongodump" else tools.restore
    call: Any = Call()
    engine: Any = Engine()
    container: Any = Container(Image(VERSION))
    try:
        return asyncio.run(work(call, engine, container, sys.argv[1:], True))
    except OSError as error:
        call.err(f"{tools._now()}Failed: error writing to archive: {(error.strerror or '').lower()}\n")
        return 1
