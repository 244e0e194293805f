"""How activities get at Core: its HTTP API, containers, settings and database, through one SSH connection.

Credentials of the database live in memory only: they are read anew from Core's container each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from activities.signs import attach, beat, void
from hosts.host import Completed, Host
from hosts.pool import Hosts
from hosts.script import Script, parse
from hosts.secrets import resolve
from komodo.core_api import CoreApi
from komodo.core_settings import CoreSettings, config_paths, secret_files, settings_of
from komodo.database import Database, DatabaseLogin
from komodo.logs import cleaned_lines, stripped
from komodo.project import Container, address_of, compose_command, find_database, parse_containers
from model.errors import CommandFailed, CommandTimedOut, DatabaseError, HostError
from model.facts import ComposeProject, CoreFacts, DatabaseFacts, ServiceFacts
from model.fleet import CoreSpec
from model.steps import CoreStep

SCRIPTS = "komodo.sh"
SHORT = timedelta(minutes=5)
"""For a job that takes seconds on an honest host: a compose command, a few files."""
LOG_LINES = 2000


def script(name: str) -> Script:
    """One of our scripts for Core's host."""
    return Script.load(SCRIPTS, name)


# --- the API --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def core_api(hosts: Hosts, core: CoreSpec, facts: CoreFacts, *, key: bool = True) -> AsyncIterator[CoreApi]:
    """Core's API: at `url` where a person named one, else on Core's own host through the SSH connection.

    `key=False`: without credentials, even where there are some. Raises SecretMissing, HostError, Unreachable.
    """
    name = await resolve(core.api_key) if key and core.api_key else ""
    secret = await resolve(core.api_secret) if key and core.api_secret else ""
    if core.url:
        async with CoreApi(core.url, name, secret) as api:
            yield api
        return
    host = await hosts.get(core.host)
    place = facts.published or await _unpublished(host, facts)
    address, _, port = place.rpartition(":")
    async with host.forward(address.strip("[]"), int(port)) as local:
        scheme = "https" if facts.core_ssl else "http"
        called = f"{place} on {core.host.address}, through the SSH connection"
        async with CoreApi(f"{scheme}://127.0.0.1:{local}", name, secret, forwarded=True, called=called) as api:
            yield api


async def _unpublished(host: Host, facts: CoreFacts) -> str:
    """Core's own address on its network, for a Core that only a proxy beside it reaches."""
    core = await container(host, need(facts.core).container)
    place = address_of(core, facts.core_port)
    if not place:
        raise HostError(
            f"Core's port is not published and its container {core.name} has no address: it does not run",
            host=host.spec.name,
            cure=f"`docker ps -a` and `docker logs {core.name}` on that host",
        )
    return place


# --- containers -----------------------------------------------------------------------------------------------------


async def inspect(host: Host, *names: str) -> Mapping[str, Container]:
    """Containers by name; those that do not exist are missing."""
    text = (await host.run(script("inspect.sh"), *names)).text
    return {c.name: c for c in parse_containers(text)}


async def container(host: Host, name: str) -> Container:
    """One container that must exist."""
    found = await inspect(host, name)
    if not found:
        raise HostError(f"there is no container {name} any more", host=host.spec.name, cure="`docker ps -a` shows all")
    return next(iter(found.values()))


async def log_of(host: Host, name: str, since: datetime | None = None, *, lines: int = LOG_LINES) -> str:
    """A container's log, not cleaned: only for komodo.logs."""
    start = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if since else ""
    return (await host.run(script("container_log.sh"), name, start, str(lines))).text


def tail_of(log: str, lines: int = 12) -> str:
    """The last lines of a log, fit for an error message."""
    return "\n".join(cleaned_lines(stripped(log).splitlines()[-lines:]))


def need(service: ServiceFacts | None) -> ServiceFacts:
    """Core's service of the facts; a plan with refusals never gets here without it."""
    if service is None:
        raise HostError("Core's container was not found when the plan was made", cure="komodo-upgrade plan")
    return service


def project_of(facts: CoreFacts) -> ComposeProject:
    """Core's project of the facts."""
    if facts.project is None:
        raise HostError("Core's compose project was not found when the plan was made", cure="komodo-upgrade plan")
    return facts.project


def compose_words(facts: CoreFacts) -> tuple[str, ...]:
    """The compose command of Core's project, before the sub-command."""
    return compose_command(project_of(facts))


# --- the database ---------------------------------------------------------------------------------------------------


async def read_settings(host: Host, core: Container) -> CoreSettings:
    """Core's settings out of its container's environment, its secret files and its mounted config files."""
    files: dict[str, str] = {}
    for name, inside in secret_files(core).items():
        path = core.host_path(inside)
        found = await host.read(path) if path else None
        if found is None:
            raise DatabaseError(
                f"the file {inside}, which Core's environment names for its database {name}, is not on the host",
                host=host.spec.name,
            )
        files[name] = found.data.decode(errors="replace")
    configs = [found.data.decode(errors="replace") for p in config_paths(core) if (found := await host.read(p))]
    return settings_of(core, files=files, configs=configs)


def database_of(facts: CoreFacts) -> DatabaseFacts:
    """Core's database of the facts."""
    if facts.database is None:
        raise DatabaseError("Core's database was not found when the plan was made", cure="komodo-upgrade plan")
    return facts.database


async def login_for(host: Host, facts: CoreFacts) -> tuple[DatabaseLogin, str]:
    """How to log in to Core's database, and host:port of it as seen from Core's host."""
    known = database_of(facts)
    found = await inspect(host, need(facts.core).container, known.container)
    core, database = found.get(need(facts.core).container), found.get(known.container)
    if core is None or database is None:
        gone = known.container if core else need(facts.core).container
        raise DatabaseError(f"the container {gone} is gone", host=host.spec.name, cure="`docker ps -a` shows all")
    login = (await read_settings(host, core)).database
    if login is None:
        raise DatabaseError("Core's environment names no database any more", host=host.spec.name)
    hit = find_database((database,), core, login.host, login.port)
    reach = hit[1] if hit and hit[1] else known.reach
    if not database.running:
        raise DatabaseError(
            f"the database's container {database.name} does not run",
            host=host.spec.name,
            cure=f"`docker start {database.name}`; if it stops again: `docker logs {database.name}`",
        )
    return login, reach


@contextlib.asynccontextmanager
async def database(hosts: Hosts, core: CoreSpec, facts: CoreFacts) -> AsyncIterator[tuple[Database, DatabaseLogin]]:
    """Core's database through a forward, and the login that was used."""
    host = await hosts.get(core.host)
    login, reach = await login_for(host, facts)
    async with open_database(host, login, reach) as opened:
        yield opened, login


@contextlib.asynccontextmanager
async def open_database(host: Host, login: DatabaseLogin, reach: str) -> AsyncIterator[Database]:
    """A database at host:port as seen from the remote machine."""
    address, _, port = reach.rpartition(":")
    async with host.forward(address.strip("[]"), int(port)) as local, Database(login, port=local) as opened:
        yield opened


# --- jobs -----------------------------------------------------------------------------------------------------------


async def job(
    host: Host,
    step: CoreStep,
    name: str,
    script_name: str,
    *args: str,
    data: bytes = b"",
    timeout: timedelta = SHORT,
) -> Completed:
    """One changing script on Core's host under this step's operation id: started, or attached to."""
    return await attach(
        host,
        step.op.id(name),
        folder_of(step),
        script(script_name),
        *args,
        data=data,
        change=step.op.change,
        timeout=timeout,
    )


HUNG = 124
"""Exit code of what was ended because its time was over."""


async def limited_job(
    host: Host, step: CoreStep, name: str, script_name: str, *args: str, data: bytes = b"", limit: timedelta
) -> Completed:
    """The same for what may hang while Core is stopped: after `limit` it is ended, and not waited for once more.

    Raises CommandFailed of code HUNG then.
    """
    try:
        return await job(host, step, name, script_name, *args, data=data, timeout=limit)
    except CommandTimedOut:
        await void(host, folder_of(step), step.op.id(name), change=step.op.change, patience=timedelta())
        raise CommandFailed(
            f"{script_name} did not end within {limit} (timing.dump in the fleet file)",
            code=HUNG,
            host=host.spec.name,
            left="it was ended; nothing half-done was kept",
            cure="does the database answer, is its disk slow? `docker logs` of its container; then retry",
        ) from None


def folder_of(step: CoreStep) -> str:
    """Core's run folder."""
    return step.op.folder(step.fleet.core.host.state_dir)


async def until(check: Callable[[], Awaitable[bool]], *, limit: timedelta, poll: timedelta) -> bool:
    """Ask until it is true (True) or time is over (False)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit.total_seconds()
    while True:
        beat()
        if await check():
            return True
        if loop.time() >= end:
            return False
        await asyncio.sleep(min(poll.total_seconds(), max(0.0, end - loop.time())))


def facts_in(done: Completed) -> Mapping[str, list[str]]:
    """What a script said."""
    return parse(done.text)


def moment(text: str) -> datetime:
    """A script's or docker's UTC time stamp."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?", text)
    if not found:
        raise CommandFailed(f"{text!r} is no time", code=0)
    return datetime.fromisoformat(found.group(1) + (found.group(2) or "")).replace(tzinfo=UTC)
