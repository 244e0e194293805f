"""Which tool dumps and restores Core's database, and how it is called: mongodump in the database's container, or km.

km is Komodo's own tool, in Core's image since 1.19.0; it runs in a container of its own, so also while Core is stopped
(v1.19.5:bin/cli/src/command/database.rs). It takes what it needs from its environment (v1.19.5:bin/cli/src/config.rs).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from activities.core.access import inspect, script
from hosts.exec.script import Script
from hosts.host import Host
from komodo.core.containers import Container
from komodo.core.database import DatabaseLogin
from komodo.core.fingerprint import EXACT, VALUES
from model.errors import DatabaseError
from model.facts import CoreInstallation, DumpFacts, DumpMethod
from model.steps import CoreStep, DumpDatabase

SOURCE, TARGET = "KOMODO_DATABASE", "KOMODO_CLI_DATABASE_TARGET"
"""The database that km reads from, or that its restore writes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One call of one of this project's scripts."""

    method: DumpMethod
    script: Script
    data: bytes = b""


def method(facts: CoreInstallation) -> DumpMethod:
    """mongodump where the database's container has it, otherwise km of Core's own image."""
    return DumpMethod.MONGODUMP if facts.database.has_mongodump else DumpMethod.KM


def form(facts: CoreInstallation) -> str:
    """The form of the fingerprint with which a restore by this tool is compared."""
    return EXACT if method(facts) is DumpMethod.MONGODUMP else VALUES


async def dump(host: Host, step: DumpDatabase, login: DatabaseLogin) -> Tool:
    """Dump Core's database into the run folder."""
    facts = step.facts
    if method(facts) is DumpMethod.KM:
        image = facts.core.image_id
        own = script(
            "database/dump_by_km.sh",
            folder=step.folder,
            label=step.label,
            database=login.name,
            image=image,
            network=await network(host, facts),
        )
        return Tool(method=DumpMethod.KM, script=own, data=environment(login, SOURCE, login.name))
    mongodump = script(
        "database/dump_database.sh",
        folder=step.folder,
        label=step.label,
        container=facts.database.container,
        uri=login.uri(),
        database=login.name,
        login="login" if login.config() else "open",
        stall=str(max(1, round(step.fleet.timing.dump_stall.total_seconds()))),
    )
    return Tool(method=DumpMethod.MONGODUMP, script=mongodump, data=login.config())


async def restore_into_scratch(host: Host, step: CoreStep, kept: DumpFacts, login: DatabaseLogin, name: str) -> Tool:
    """Restore a dump into another database of the same server."""
    facts = step.facts
    if kept.path.endswith(".km.tar"):
        image = facts.core.image_id
        own = script("database/prove_by_km.sh", archive=kept.path, image=image, network=await network(host, facts))
        return Tool(method=DumpMethod.KM, script=own, data=environment(login, TARGET, name))
    mongorestore = script(
        "database/prove_dump.sh",
        archive=kept.path,
        container=facts.database.container,
        uri=login.uri(),
        database=login.name,
        scratch=name,
        login="login" if login.config() else "open",
    )
    return Tool(method=DumpMethod.MONGODUMP, script=mongorestore, data=login.config())


async def downgrade(host: Host, step: CoreStep, login: DatabaseLogin) -> Tool:
    """`km database v1-downgrade` of the new version's image (v2.3.2:bin/cli/src/command/database.rs)."""
    image = step.facts.core.target_image
    own = script("database/downgrade_by_km.sh", image=image, network=await network(host, step.facts))
    return Tool(method=DumpMethod.KM, script=own, data=environment(login, SOURCE, login.name))


async def end_interrupted(host: Host, facts: CoreInstallation) -> None:
    """End every km whose script was killed. Must run before a database is dropped."""
    if method(facts) is DumpMethod.KM:
        await host.run(script("database/end_km.sh"))


async def network(host: Host, facts: CoreInstallation) -> str:
    """The network in which Core finds its database under the name in its settings."""
    core, data = facts.core.container, facts.database.container
    found = await inspect(host, core, data)
    return network_of(found.get(core), found.get(data))


def network_of(core: Container | None, data: Container | None) -> str:
    """The network that the two containers share. Raises DatabaseError where they share none."""
    if core is not None and core.network_mode == "host":
        return "host"
    shared = [n for n in core.networks if data is not None and n in data.networks] if core else []
    if not shared:
        raise DatabaseError(
            "Core and its database no longer share a network: km cannot reach the database",
            hint="`docker inspect` both containers; start the database with Core's own compose project",
        )
    return shared[0]


def environment(login: DatabaseLogin, prefix: str, name: str) -> bytes:
    """For `docker run --env-file /dev/stdin`: km's login, and the database to use."""
    lines = {f"{prefix}_DB_NAME": name}
    if login.auth_source or login.mechanism:
        options = {"authSource": login.auth_source or "admin"}
        if login.mechanism:
            options["authMechanism"] = login.mechanism
        user = f"{quote(login.username, safe='')}:{quote(login.password, safe='')}@" if login.username else ""
        lines[f"{prefix}_URI"] = f"mongodb://{user}{login.host}:{login.port}/?{urlencode(options)}"
    else:
        lines[f"{prefix}_ADDRESS"] = f"{login.host}:{login.port}"
        if login.username:
            lines |= {f"{prefix}_USERNAME": login.username, f"{prefix}_PASSWORD": login.password}
    return "".join(f"{k}={v}\n" for k, v in lines.items()).encode()
