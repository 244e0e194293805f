"""Records that a rollback replaces Core's database, and which dump holds the new version's data meanwhile.

A rollback that was terminated in the middle leaves the database empty, partly restored, or already the old version's. A
later rollback must not take that for the new version's data, and must not start the new version on it.
"""

from __future__ import annotations

from datetime import timedelta

from activities.core.access import job, script
from activities.fleet import manifest
from hosts.host import Host
from model.facts import DumpFacts, DumpLabel
from model.serialization import to_json
from model.steps import CoreStep

RECORD = "pre-rollback-dump.json"
"""The content of that dump."""
MARK = "database-replaced"
"""In the run folder from before the first change until the new Core is started again, or the old Core is proven."""


async def keep(host: Host, step: CoreStep, dump: DumpFacts) -> None:
    """`dump` contains all data of the new version."""
    record = script("fleet/write_note.sh", path=f"{step.folder}/{RECORD}")
    await job(host, step, f"record_{DumpLabel.PRE_ROLLBACK}", record, data=to_json(dump).encode() + b"\n")


async def begin(host: Host, step: CoreStep, name: str) -> None:
    """From here on the database no longer holds the new version's data. `name`: the step that replaces it."""
    mark = script("fleet/write_note.sh", path=f"{step.folder}/{MARK}")
    await job(host, step, f"{name}_begins", mark, data=f"{name}\n".encode())


async def begun(host: Host, step: CoreStep) -> bool:
    """Whether an earlier rollback began to replace the database and did not finish."""
    return await host.read(f"{step.folder}/{MARK}") is not None


async def kept(host: Host, step: CoreStep) -> DumpFacts | None:
    """The dump of the new version's data, where an earlier rollback has replaced it. None: it has not, or that dump is
    missing.
    """
    if not await begun(host, step):
        return None
    path = f"{step.folder}/{RECORD}"
    record = await host.read(path)
    if record is None:
        return None
    dump = manifest.dump(record.data, path, host.spec.name)
    check = script("fleet/check_digests.sh", dump.path, dump.sha256)
    gone = (await host.run(check, timeout=timedelta(minutes=10))).text.strip()
    return None if gone else dump
