"""Access to Core: its HTTP API, containers, settings and database, through one SSH connection.

Credentials of the database are kept in memory only; they are read from Core's container each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from activities.heartbeat import attach, invalidate, send_heartbeat
from hosts.exec.script import Script, parse
from hosts.host import Completed, Host
from hosts.policy import policy
from hosts.secrets import resolve
from hosts.ssh.pool import Hosts
from komodo.core.api import CoreApi
from komodo.core.containers import Container, address_of, find_database, parse_containers
from komodo.core.database import Database, DatabaseLogin
from komodo.core.settings import CoreSettings, config_paths, secret_files, settings_of
from komodo.logs import cleaned_lines, stripped
from model.errors import CommandFailed, CommandTimedOut, DatabaseError, HostError, SecretMissing
from model.facts import CoreFacts, CoreInstallation
from model.fleet.spec import CoreSpec, SecretRef
from model.steps import CoreStep, ServerStep

SHORT = timedelta(minutes=5)
"""Timeout of jobs that normally take seconds: a compose command, a few files."""
LOG_LINES = 2000
LARGEST_SETTINGS = 256 * 1024
"""Bytes of a file with settings of Core; a real one has a few thousand."""
NOTED_LATE = timedelta(seconds=5)
"""A container's StartedAt can be this much later than the first line of its log."""


def script(name: str, *words: str, **params: str) -> Script:
    """One of this project's scripts for Core's host, with its parameters."""
    return Script.load("komodo.sh", name, *words, **params)


# --- the API --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def core_api(hosts: Hosts, core: CoreSpec, facts: CoreFacts, *, key: bool = True) -> AsyncIterator[CoreApi]:
    """Core's API: at `url` where the fleet file gives one, otherwise on Core's own host through the SSH connection.

    `key=False`: without credentials, even where there are some. Raises SecretMissing, HostError, Unreachable.
    """
    name = await _header(core.api_key) if key and core.api_key else ""
    secret = await _header(core.api_secret) if key and core.api_secret else ""
    if core.url:
        policy().host(urlsplit(core.url).hostname or "")
        async with CoreApi(core.url, name, secret) as api:
            yield api
        return
    host = await hosts.get(core.host)
    place = facts.published or await _unpublished(host, facts)
    address, _, port = place.rpartition(":")
    async with host.forward(address.strip("[]"), int(port)) as socket:
        scheme = "https" if facts.core_ssl else "http"
        called = f"{place} on {core.host.address}, through the SSH connection"
        async with CoreApi(f"{scheme}://127.0.0.1", name, secret, socket=socket, called=called) as api:
            yield api


async def _header(ref: SecretRef) -> str:
    """A secret that is sent in a header. The HTTP library's error for one that cannot be would repeat it."""
    value = await resolve(ref)
    if not (value.isascii() and value.isprintable()):
        hint = "it must be one line of printable ASCII characters, as Komodo shows it"
        raise SecretMissing(f"{ref} holds a value that cannot be sent to Core", hint=hint)
    return value


async def _unpublished(host: Host, facts: CoreFacts) -> str:
    """Core's own address on its network, for a Core that only a reverse proxy can reach."""
    if facts.core is None:
        raise HostError("Core's container was not found when the plan was made", hint="komodo-upgrade plan")
    core = await container(host, facts.core.container)
    place = address_of(core, facts.core_port)
    if not place:
        raise HostError(
            f"Core's port is not published and its container {core.name} has no address: it does not run",
            host=host.spec.name,
            hint=f"`docker ps -a` and `docker logs {core.name}` on that host",
        )
    return place


# --- containers -----------------------------------------------------------------------------------------------------


async def inspect(host: Host, *names: str) -> Mapping[str, Container]:
    """Containers by name, without those that do not exist."""
    text = (await host.run(script("core/inspect_containers.sh", *names))).text
    return {c.name: c for c in parse_containers(text)}


async def container(host: Host, name: str) -> Container:
    """One container that must exist."""
    found = await inspect(host, name)
    if not found:
        raise HostError(f"the container {name} no longer exists", host=host.spec.name, hint="`docker ps -a` shows all")
    return next(iter(found.values()))


async def log_of(host: Host, name: str, since: datetime | None = None, *, lines: int = LOG_LINES) -> str:
    """A container's log, not cleaned: for komodo.logs only."""
    start = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if since else ""
    read = script("core/container_log.sh", container=name, since=start, lines=str(lines))
    return (await host.run(read)).text


def log_since(container: Container, started: datetime | None) -> datetime | None:
    """The time from which to read a container's log, because the log contains all of its runs.

    Docker records the start after its own work is done. On a busy machine the agent has already logged its identity by
    then.
    """
    return parse_time(container.started_at) - NOTED_LATE if container.started_at else started


def tail_of(log: str, lines: int = 12) -> str:
    """The last lines of a log, short enough for an error message."""
    return "\n".join(cleaned_lines(stripped(log).splitlines()[-lines:]))


# --- the database ---------------------------------------------------------------------------------------------------


async def read_settings(host: Host, core: Container) -> CoreSettings:
    """Core's settings from its container's environment, its secret files and its mounted config files."""
    files: dict[str, str] = {}
    for name, inside in secret_files(core).items():
        path = core.host_path(inside)
        found = await host.read(path, limit=LARGEST_SETTINGS) if path else None
        if found is None:
            raise DatabaseError(
                f"the file {inside}, which Core's environment names for its database {name}, is not on the host",
                host=host.spec.name,
            )
        files[name] = found.data.decode(errors="replace")
    read = [await host.read(path, limit=LARGEST_SETTINGS) for path in config_paths(core)]
    configs = [file.data.decode(errors="replace") for file in read if file]
    return await asyncio.to_thread(settings_of, core, files=files, configs=configs)


async def login_for(host: Host, facts: CoreInstallation) -> tuple[DatabaseLogin, str]:
    """The login for Core's database, and its host:port as seen from Core's host."""
    known = facts.database
    found = await inspect(host, facts.core.container, known.container)
    core, database = found.get(facts.core.container), found.get(known.container)
    if core is None or database is None:
        gone = known.container if core else facts.core.container
        raise DatabaseError(f"the container {gone} is gone", host=host.spec.name, hint="`docker ps -a` shows all")
    login = (await read_settings(host, core)).database
    if login is None:
        raise DatabaseError("Core's environment no longer names a database", host=host.spec.name)
    hit = find_database((database,), core, login.host, login.port)
    reach = hit[1] if hit and hit[1] else known.reach
    if not database.running:
        raise DatabaseError(
            f"the database's container {database.name} does not run",
            host=host.spec.name,
            hint=f"`docker start {database.name}`; if it stops again: `docker logs {database.name}`",
        )
    return login, reach


@contextlib.asynccontextmanager
async def database(hosts: Hosts, step: CoreStep) -> AsyncIterator[tuple[Database, DatabaseLogin]]:
    """Core's database through a forwarded port, and the login that was used."""
    host = await hosts.get(step.fleet.core.host)
    login, reach = await login_for(host, step.facts)
    async with open_database(host, login, reach) as opened:
        yield opened, login


@contextlib.asynccontextmanager
async def open_database(host: Host, login: DatabaseLogin, reach: str) -> AsyncIterator[Database]:
    """A database at host:port as seen from the remote machine."""
    address, _, port = reach.rpartition(":")
    async with host.forward(address.strip("[]"), int(port)) as socket, Database(login, socket=socket) as opened:
        yield opened


# --- jobs -----------------------------------------------------------------------------------------------------------


async def job(
    host: Host,
    step: CoreStep | ServerStep,
    name: str,
    script: Script,
    *,
    data: bytes = b"",
    timeout: timedelta = SHORT,
) -> Completed:
    """Start a script that changes Core's host, or attach to it, under this step's operation id."""
    return await attach(
        host,
        step.op.id(name),
        step.folder,
        script,
        data=data,
        change=step.op.change,
        timeout=timeout,
    )


HUNG = 124
"""Exit code of a job that was ended at its time limit."""


async def limited_job(
    host: Host, step: CoreStep, name: str, script: Script, *, data: bytes = b"", limit: timedelta
) -> Completed:
    """Like `job`, for work that may hang while Core is stopped: it is ended after `limit` and not awaited a second
    time.

    Raises CommandFailed with code HUNG in that case.
    """
    try:
        return await job(host, step, name, script, data=data, timeout=limit)
    except CommandTimedOut:
        await invalidate(host, step.folder, step.op.id(name), change=step.op.change, patience=timedelta())
        raise CommandFailed(
            f"{script.name} did not end within {limit} (timing.dump in the fleet file)",
            code=HUNG,
            host=host.spec.name,
            residue="it was ended; nothing half-done was kept",
            hint="does the database answer, is its disk slow? `docker logs` of its container; then retry",
        ) from None


def restore_sh(folder: str, verb: str, dump: str = "") -> Script:
    """One verb of the run folder's own restore.sh. `dump`: the dump that the verb `database` restores."""
    return script("core/run_core_restore.sh", folder=folder, verb=verb, dump=dump)


async def until(check: Callable[[], Awaitable[bool]], *, limit: timedelta, poll: timedelta) -> bool:
    """Poll until the condition is true (True) or the time is over (False)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit.total_seconds()
    while True:
        send_heartbeat()
        if await check():
            return True
        if loop.time() >= end:
            return False
        await asyncio.sleep(min(poll.total_seconds(), max(0.0, end - loop.time())))


def facts_in(done: Completed) -> Mapping[str, list[str]]:
    """The lines that a script printed, by key."""
    return parse(done.text)


def parse_time(text: str) -> datetime:
    """A UTC timestamp printed by a script or by docker."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?", text)
    if not found:
        raise CommandFailed(f"{text!r} is no time", code=0)
    return datetime.fromisoformat(found.group(1) + (found.group(2) or "")).replace(tzinfo=UTC)
