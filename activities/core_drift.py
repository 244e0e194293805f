"""Core's second look: what is not as it was when the plan was made, and what goes on right now. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activities.core_access import core_api, database, facts_in, inspect, script
from hosts.host import Host
from hosts.pool import Hosts
from komodo.project import Container
from model.errors import CoreUnreachable
from model.facts import CoreFacts, DatabaseFacts
from model.steps import CoreStep


async def drifted_files(host: Host, step: CoreStep) -> list[str]:
    """Files that were edited since the plan, and room that is gone since."""
    spec = step.fleet.core.host
    bases: dict[str, str] = {}
    for edit in step.facts.edits:
        bases.setdefault(edit.path, edit.base_sha256)
    said = facts_in(await host.run(script("look_at_files.sh"), spec.state_dir, *bases))
    drift = []
    for line in said.get("file", []):
        digest, _, _, path = line.split("\t", 3)
        if digest != bases.get(path):
            drift.append(f"{path} was edited since the plan was made")
    need = 2 * (step.facts.database.bytes if step.facts.database else 0)
    free = int(said.get("free", ["0"])[0])
    if free < need:
        drift.append(f"{free // 1024**2} MiB are free for the dumps, {need // 1024**2} MiB are needed")
    return drift


async def drifted_containers(host: Host, facts: CoreFacts) -> list[str]:
    """Containers that are gone, stopped, or run another image than planned."""
    services = [s for s in (facts.core, facts.agent) if s]
    data: list[DatabaseFacts] = [facts.database] if facts.database else []
    found = await inspect(host, *(s.container for s in services), *(d.container for d in data))
    drift = []
    for service in services:
        now = found.get(service.container)
        if now is None:
            drift.append(f"the container {service.container} is gone")
        elif now.image_id != service.image_id:
            drift.append(f"{service.container} runs another image than when the plan was made ({now.image})")
        elif not now.running:
            drift.append(f"{service.container} does not run any more")
    drift += [f"the database's container {d.container} does not run" for d in data if not _runs(found, d.container)]
    return drift


def _runs(found: Mapping[str, Container], name: str) -> bool:
    return name in found and found[name].running


async def in_progress(hosts: Hosts, step: CoreStep) -> tuple[str, ...]:
    """Updates that run now. All hosts compare their files at this moment: one late answer says nothing."""
    try:
        return await _asked(hosts, step)
    except CoreUnreachable:
        return await _asked(hosts, step)


async def _asked(hosts: Hosts, step: CoreStep) -> tuple[str, ...]:
    if step.facts.api:
        async with core_api(hosts, step.fleet.core, step.facts) as api:
            return tuple(str(u) for u in await api.list_updates(open_only=True))
    async with database(hosts, step.fleet.core, step.facts) as (opened, _):
        return tuple(update_words(u) for u in await opened.open_updates())


def update_words(update: Mapping[str, Any]) -> str:
    """One Update as people know it."""
    target = update.get("target") or {}
    return f"{update.get('operation', '')} {target.get('type', '')} {target.get('id', '')}".strip()
