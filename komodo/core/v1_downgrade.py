"""Core's database in a form that v1 reads, beyond what `km database v1-downgrade` does; and what is lost by that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from komodo.core import v1_documents
from komodo.core.database import Database
from komodo.core.v1_documents import SWARM, V1, Converted

_NEW_ACCOUNTS, _OLD_ACCOUNTS = "ImageRegistryAccount", "DockerRegistryAccount"
"""v2.3 uses the new collection unless only the old one holds accounts (v2.3.2:lib/database/src/lib.rs)."""
_RULES: tuple[tuple[str, Callable[[Mapping[str, Any], V1], Converted | None], tuple[str, ...]], ...] = (
    ("Builder", v1_documents.builder, ("name", "config")),
    ("Stack", v1_documents.stack, ("name", "config.additional_env_files")),
    ("Procedure", v1_documents.procedure, ("name", "config.stages")),
    ("Alerter", v1_documents.alerter, ("name", "config")),
    ("Stack", v1_documents.in_swarm, ("name", "config.swarm_id")),
    ("Deployment", v1_documents.in_swarm, ("name", "config.swarm_id")),
    ("Server", v1_documents.server, ("name", "config.address")),
    ("User", v1_documents.user, ("username", "totp.secret", "passkey.passkey", "linked_logins")),
)
_SHOWN = 12
"""Losses that a gate names one by one."""


async def losses(database: Database, version: tuple[int, int, int]) -> tuple[str, ...]:
    """What v1 will not have of the database as it is, for people. Read-only. Raises DatabaseError."""
    found = [change.lost async for _, _, change in _conversions(database, version) if change.lost]
    swarms = [str(d.get("name")) for d in await database.find(SWARM, {}, ("name",))]
    if swarms:
        found.append(f"v1 does not show Swarms: {', '.join(sorted(swarms))}")
    if keys := len(await database.find("OnboardingKey", {}, ("name",))):
        found.append(f"v1 does not know onboarding keys: {keys} of them")
    found = sorted(found)
    more = (f"and {len(found) - _SHOWN} more of these",) if len(found) > _SHOWN else ()
    return (*found[:_SHOWN], *more)


async def convert(database: Database, version: tuple[int, int, int]) -> tuple[str, ...]:
    """Change or remove what v1 of this version cannot read. Returns what was done, for people. Raises DatabaseError.

    Core must be stopped. May be repeated.
    """
    done: dict[str, int] = {}
    async for collection, document, change in _conversions(database, version):
        if change.set or change.unset:
            update: dict[str, Any] = {"$set": dict(change.set)} if change.set else {}
            if change.unset:
                update["$unset"] = dict.fromkeys(change.unset, "")
            await database.change(collection, {"_id": document["_id"]}, update)
            text = f"{collection} documents were converted to v1's form"
            done[text] = done.get(text, 0) + 1
    if moved := await _move_accounts(database):
        done[f"registry accounts were moved to {_OLD_ACCOUNTS}"] = moved
    # Computed again by v1 when it refreshes the Sync.
    await database.change(
        "ResourceSync", {"info.resource_updates.target.type": SWARM}, {"$set": {"info.resource_updates": []}}
    )
    for name, count in (await _remove(database, V1(version=version))).items():
        done[f"{name} documents that v1 cannot read were removed"] = count
    return tuple(f"{count} {text}" for text, count in done.items() if count)


async def _conversions(
    database: Database, version: tuple[int, int, int]
) -> AsyncIterator[tuple[str, Mapping[str, Any], Converted]]:
    servers = {str(d["_id"]): str(d.get("name")) for d in await database.servers()}
    v1 = V1(version=version, servers=servers)
    for collection, rule, fields in _RULES:
        for document in await database.find(collection, {}, fields):
            if change := rule(document, v1):
                yield collection, document, change


async def _move_accounts(database: Database) -> int:
    """v1 knows the old collection only. Left in the new one, they would hide the old one's from v2.3 the next time."""
    accounts = await database.find(_NEW_ACCOUNTS, {}, ())
    for account in accounts:
        same = {"domain": account.get("domain"), "username": account.get("username"), "_id": {"$ne": account["_id"]}}
        await database.remove(_OLD_ACCOUNTS, same)
        await database.put(_OLD_ACCOUNTS, account)
        await database.remove(_NEW_ACCOUNTS, {"_id": account["_id"]})
    return len(accounts)


async def _remove(database: Database, v1: V1) -> dict[str, int]:
    removed: dict[str, int] = {}
    queries: tuple[tuple[str, dict[str, Any]], ...] = (
        ("Update", {"operation": {"$nin": sorted(v1.operations)}}),
        ("Update", {"target.type": SWARM}),
        ("Alert", {"target.type": SWARM}),
        # Of a stack or deployment in a swarm: v1 requires the server that such an alert does not have.
        ("Alert", {"data.data.swarm_id": {"$nin": [None, ""]}}),
        ("Permission", {"resource_target.type": SWARM}),
    )
    for collection, query in queries:
        removed[collection] = removed.get(collection, 0) + await database.remove(collection, query)
    for collection in ("User", "UserGroup"):
        for place in (f"recents.{SWARM}", f"all.{SWARM}"):
            await database.unset(collection, place)
    return removed
