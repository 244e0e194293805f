"""Which tool dumps and restores Core's database, and how it is called: mongodump in the database's container, or km.

km is Komodo's own tool, in Core's image since 1.19.0; it runs in a container of its own, so also while Core is stopped
(v1.19.5:bin/cli/src/command/database.rs). It takes what it needs from its environment (v1.19.5:bin/cli/src/config.rs).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from activities.core_access import database_of, folder_of, inspect, need, script
from hosts.host import Host
from komodo.database import DatabaseLogin
from komodo.fingerprint import EXACT, VALUES
from komodo.project import Container
from model.errors import DatabaseError
from model.facts import CoreFacts, DumpFacts
from model.steps import CoreStep

MONGODUMP, KM = "mongodump", "km"
SOURCE, TARGET = "KOMODO_DATABASE", "KOMODO_CLI_DATABASE_TARGET"
"""What km reads from, and what its restore writes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One call of one of our scripts."""

    method: str
    script: str
    args: tuple[str, ...]
    data: bytes = b""


def method(facts: CoreFacts) -> str:
    """mongodump where the database's container has it, else km of Core's own image."""
    return MONGODUMP if database_of(facts).has_mongodump else KM


def form(facts: CoreFacts) -> str:
    """Of the fingerprint that a restore by this tool is held to."""
    return EXACT if method(facts) == MONGODUMP else VALUES


async def dump(host: Host, step: CoreStep, login: DatabaseLogin) -> Tool:
    """Core's database into the run folder."""
    facts = step.facts
    if method(facts) == KM:
        image = need(facts.core).image_id
        own = (folder_of(step), step.label, login.name, image, await network(host, facts))
        return Tool(method=KM, script="dump_by_km.sh", args=own, data=environment(login, SOURCE, login.name))
    word = "login" if login.config() else "open"
    stall = str(max(1, round(step.fleet.clocks.dump_stall.total_seconds())))
    args = (folder_of(step), step.label, database_of(facts).container, login.uri(), login.name, word, stall)
    return Tool(method=MONGODUMP, script="dump_database.sh", args=args, data=login.config())


async def restore_beside(host: Host, step: CoreStep, kept: DumpFacts, login: DatabaseLogin, name: str) -> Tool:
    """A dump into another database of the same server."""
    facts = step.facts
    if kept.path.endswith(".km.tar"):
        own = (kept.path, need(facts.core).image_id, await network(host, facts))
        return Tool(method=KM, script="prove_by_km.sh", args=own, data=environment(login, TARGET, name))
    word = "login" if login.config() else "open"
    place = database_of(facts).container
    args = (folder_of(step), kept.path, place, login.uri(), login.name, name, word)
    return Tool(method=MONGODUMP, script="prove_dump.sh", args=args, data=login.config())


async def downgrade(host: Host, step: CoreStep, login: DatabaseLogin) -> Tool:
    """`km database v1-downgrade` of the new version's image (v2.3.2:bin/cli/src/command/database.rs)."""
    args = (need(step.facts.core).target_image, await network(host, step.facts))
    data = environment(login, SOURCE, login.name)
    return Tool(method=KM, script="downgrade_by_km.sh", args=args, data=data)


async def settle(host: Host, facts: CoreFacts) -> None:
    """Before a database is dropped: no km works on it whose script was killed."""
    if method(facts) == KM:
        await host.run(script("end_km.sh"))


async def network(host: Host, facts: CoreFacts) -> str:
    """The network in which Core finds its database under the name that its settings have."""
    core, data = need(facts.core).container, database_of(facts).container
    found = await inspect(host, core, data)
    return network_of(found.get(core), found.get(data))


def network_of(core: Container | None, data: Container | None) -> str:
    """The same, of the two containers. Raises DatabaseError where they share none."""
    if core is not None and core.network_mode == "host":
        return "host"
    shared = [n for n in core.networks if data is not None and n in data.networks] if core else []
    if not shared:
        raise DatabaseError(
            "Core and its database share no network any more: km cannot reach the database",
            cure="`docker inspect` both containers; start the database with Core's own compose project",
        )
    return shared[0]


def environment(login: DatabaseLogin, prefix: str, name: str) -> bytes:
    """For `docker run --env-file /dev/stdin`: how km gets in, and to which database."""
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
