"""`docker exec`: programs inside simulated containers."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

from sandbox import keys
from sandbox.docker.engine import Container, Engine
from sandbox.docker.output import missing
from sandbox.machine.call import Call, options
from sandbox.mongo import tools
from sandbox.mongo.program import database_of


async def run(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker exec [-i] [-t] [-e K=V] [-u USER] CONTAINER CMD …`."""
    found, words = options(argv, "-e --env -u --user -w --workdir --env-file", first=True)
    if len(words) < 2:
        call.err("docker: 'docker exec' requires at least 2 arguments\n")
        return 1
    container = engine.find(words[0])
    if container is None:
        return missing(call, words[0])
    if container.status != "running":
        call.err(f"Error response from daemon: container {container.id} is not running\n")
        return 1
    interactive = "-i" in found or "--interactive" in found
    return await program(call, engine, container, words[1:], interactive=interactive)


async def program(call: Call, engine: Engine, container: Container, argv: list[str], *, interactive: bool) -> int:
    """Run one program in a container."""
    name = Path(argv[0]).name
    role = container.image.program
    bare = container.image.ferretdb or call.host.world.faults.on("no-mongodump", call.host.name) is not None
    if role == "mongo" and name in {"mongodump", "mongorestore", "mongosh"} and not bare:
        if argv[1:] == ["--version"]:
            call.out(f"{name} version: 100.12.0\n")
            return 0
        tool = {"mongodump": tools.dump, "mongorestore": tools.restore, "mongosh": tools.shell}[name]
        return await tool(call, engine, container, argv[1:], interactive)
    if {"periphery": "periphery", "km": "core"}.get(name) == role and argv[1:2] in (["--version"], ["-V"]):
        call.out(f"{name} {container.image.version}\n")
        return 0
    if name == "docker" and role == "periphery" and argv[1:2] == ["version"]:
        return _client(call, engine)
    if (
        name == "km"
        and role == "core"
        and argv[1:3] == ["key", "generate"]
        and not container.image.version.startswith("1.")
    ):
        return _generate(call, argv[3:])
    if name == "core" and role == "core":  # there is no option to ask: a second Core starts, and the port is taken
        await asyncio.sleep(0.05)
        call.err("Error: Address already in use (os error 98)\n")
        return 1
    if name == "psql" and "postgres" in container.image.repository:
        return await _psql(call, engine, argv)
    if name in _FILES:
        return await _file_tool(call, container, name, argv[1:])
    if name in {"env", "printenv"}:
        call.out("".join(f"{line}\n" for line in container.env))
        return 0
    call.err(
        "OCI runtime exec failed: exec failed: unable to start container process: exec:"
        f' "{argv[0]}": executable file not found in $PATH\n'
    )
    return 127


def _client(call: Call, engine: Engine) -> int:
    """The Docker CLI in the agent's image, of a release whose oldest API is 1.40."""
    if tuple(map(int, engine.api.split("."))) < (1, 40):
        reason = f"client version 1.54 is too new. Maximum supported API version is {engine.api}"
        call.err(f"Error response from daemon: {reason}\n")
        return 1
    call.out(f"{engine.version}\n")
    return 0


def _generate(call: Call, argv: list[str]) -> int:
    """`km key generate [--format json]` (v2.3.2:bin/cli/src/command)."""
    found, _ = options(argv, "-f --format")
    private, public = keys.mint()
    call.host.world.minted.append(private)
    if (found.get("-f", []) + found.get("--format", []))[:1] == ["json"]:
        call.out(json.dumps({"private_key": private, "public_key": public}, separators=(",", ":")) + "\n")
    else:
        call.out(f"\nPrivate Key: {private}\nPublic  Key: {public}\n")
    return 0


async def _psql(call: Call, engine: Engine, argv: list[str]) -> int:
    """Of DocumentDB's functions: drop_database alone."""
    found = re.search(r"documentdb_api\.drop_database\('([^']*)'\)", " ".join(argv))
    database = next((d for c in engine.containers.values() if (d := database_of(c))), None)
    if found is None or database is None:
        call.err('psql: error: connection to server on socket "/tmp/.s.PGSQL.5432" failed\n')
        return 2
    database.store.databases.pop(found.group(1), None)
    call.out(" drop_database \n---------------\n \n(1 row)\n\n")
    return 0


_FILES = frozenset({"rm", "ls", "cat", "mkdir", "test", "stat", "true", "df", "sha256sum", "chmod", "du"})


async def _file_tool(call: Call, container: Container, name: str, argv: list[str]) -> int:
    """Plain tools, run for real on the container's files; paths in their messages are those of the container."""
    if name == "true":
        return 0
    words = [a if a.startswith("-") else str(container.locate(a)) for a in argv]
    if name == "df":  # options have no paths in them
        words = [a for a in argv if a.startswith("-")] + [str(container.rootfs)]
    tool = shutil.which(name, path="/usr/bin:/bin") or name
    process = await asyncio.create_subprocess_exec(
        tool, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    out, err = await process.communicate()
    for inside in argv:
        if not inside.startswith("-"):
            real = str(container.locate(inside)).encode()
            out, err = out.replace(real, inside.encode()), err.replace(real, inside.encode())
    call.out(out)
    call.err(err)
    return process.returncode or 0
