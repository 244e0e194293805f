"""Core's recheck: what changed since the plan was made, and what is in progress now. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activities.core.access import core_api, database, facts_in, inspect, script
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.core.containers import Container
from komodo.core.image_digests import local_digests
from model.errors import CoreUnreachable
from model.facts import CoreFacts, DatabaseFacts
from model.fleet.spec import CoreFiles
from model.steps import CoreStep


async def drifted_files(host: Host, step: CoreStep) -> list[str]:
    """Files that were edited since the plan, and disk space that has been used up since."""
    spec, external = step.fleet.core.host, step.fleet.core.files == CoreFiles.EXTERNAL
    allowed: dict[str, list[str]] = {}
    for edit in step.facts.edits:
        allowed.setdefault(edit.path, [edit.base_sha256])
        if external:
            allowed[edit.path].append(edit.result_sha256)
    output = facts_in(await host.run(script("fleet/survey_paths.sh", *allowed, state_dir=spec.state_dir)))
    drift = []
    for line in output.get("file", []):
        digest, _, _, path = line.split("\t", 3)
        if digest not in allowed.get(path, ()):
            drift.append(f"{path} was edited since the plan was made")
    need = 2 * (step.facts.database.bytes if step.facts.database else 0)
    free = int(output.get("free", ["0"])[0])
    if free < need:
        drift.append(f"{free // 1024**2} MiB are free for the dumps, {need // 1024**2} MiB are needed")
    return drift


async def files_without_edit(host: Host, step: CoreStep) -> list[str]:
    """Of files that others edit, those that are not as planned."""
    if step.fleet.core.files != CoreFiles.EXTERNAL:
        return []
    results = {edit.path: edit.result_sha256 for edit in step.facts.edits}
    state = step.fleet.core.host.state_dir
    output = facts_in(await host.run(script("fleet/survey_paths.sh", *results, state_dir=state)))
    found = [line.split("\t", 3) for line in output.get("file", [])]
    return [path for digest, _, _, path in found if digest != results.get(path)]


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
            drift.append(f"{service.container} no longer runs")
    drift += [f"the database's container {d.container} does not run" for d in data if not _runs(found, d.container)]
    drift += [
        f"the database's container {d.container} runs another image than when the plan was made"
        for d in data
        if d.image_id and _runs(found, d.container) and found[d.container].image_id != d.image_id
    ]
    return drift


async def drifted_images(host: Host, facts: CoreFacts) -> list[str]:
    """Pulled images that are gone, or have another digest than approved."""
    drift = []
    for service in (facts.core, facts.agent):
        if service and service.target_digest:
            inspected = (await host.run(script("core/inspect_images.sh", service.target_image))).text
            present = [digest for digests in local_digests(inspected).values() for digest in digests]
            if service.target_digest not in present:
                now = ", ".join(present) or "gone"
                drift.append(f"the image {service.target_image} is not {service.target_digest} any more: it is {now}")
    return list(dict.fromkeys(drift))


def _runs(found: Mapping[str, Container], name: str) -> bool:
    return name in found and found[name].running


async def in_progress(hosts: Hosts, step: CoreStep) -> tuple[str, ...]:
    """Updates that are running now. All hosts compare their files at the same time, so one late answer is ignored."""
    try:
        return await _running_updates(hosts, step)
    except CoreUnreachable:
        return await _running_updates(hosts, step)


async def _running_updates(hosts: Hosts, step: CoreStep) -> tuple[str, ...]:
    if step.facts.api:
        async with core_api(hosts, step.fleet.core, step.facts) as api:
            return tuple(str(u) for u in await api.list_updates(open_only=True))
    async with database(hosts, step) as (opened, _):
        return tuple(update_words(u) for u in await opened.open_updates())


def update_words(update: Mapping[str, Any]) -> str:
    """One Update as Komodo's UI shows it."""
    target = update.get("target") or {}
    return f"{update.get('operation', '')} {target.get('type', '')} {target.get('id', '')}".strip()
