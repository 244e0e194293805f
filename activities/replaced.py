"""Core's database while a way back replaces it, and where what the new version had written is kept meanwhile.

A way back that was terminated half-way leaves no data of the new version behind: the database is empty, half restored,
or the old version's already. Whoever begins anew must not take that for the new version's, or start that one on it.
"""

from __future__ import annotations

from datetime import timedelta

from activities import manifests
from activities.core_access import folder_of, job, script
from hosts.host import Host
from model.facts import DumpFacts
from model.plain import to_json
from model.steps import CoreStep

LABEL = "pre_rollback"
"""Of the dump of what the new version had written."""
RECORD = "pre-rollback-dump.json"
"""What that dump holds."""
MARK = "database-replaced"
"""In the run folder from before the first change until the new Core is started again, or the old one counts as back."""


async def keep(host: Host, step: CoreStep, dump: DumpFacts) -> None:
    """`dump` is of the new version's data, all of it."""
    record = f"{folder_of(step)}/{RECORD}"
    await job(host, step, f"record_{LABEL}", "keep_note.sh", record, data=to_json(dump).encode() + b"\n")


async def begin(host: Host, step: CoreStep, name: str) -> None:
    """From here on the database is not the new version's any more. `name`: of the step that replaces it."""
    await job(host, step, f"{name}_begins", "keep_note.sh", f"{folder_of(step)}/{MARK}", data=f"{name}\n".encode())


async def begun(host: Host, step: CoreStep) -> bool:
    """An earlier way back did, and did not come to its end."""
    return await host.read(f"{folder_of(step)}/{MARK}") is not None


async def kept(host: Host, step: CoreStep) -> DumpFacts | None:
    """The new version's data, where an earlier way back has replaced it. None: it did not, or that dump is gone."""
    if not await begun(host, step):
        return None
    path = f"{folder_of(step)}/{RECORD}"
    record = await host.read(path)
    if record is None:
        return None
    dump = manifests.dump(record.data, path, host.spec.name)
    check = script("check_rollback.sh")
    gone = (await host.run(check, dump.path, dump.sha256, timeout=timedelta(minutes=10))).text.strip()
    return None if gone else dump
