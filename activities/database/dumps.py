"""Dumps of Core's database: made, compared with the database, and proven by a restore into a scratch database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity

from activities.core.access import (
    container,
    database,
    facts_in,
    job,
    limited_job,
    parse_time,
    script,
)
from activities.database import dump_tools, replaced
from activities.heartbeat import attach, cancelled_for_good, invalidate, send_heartbeat
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.core import fingerprint
from komodo.core.database import TRIED, Database, DatabaseLogin, differences, dumped_counts
from komodo.core.fingerprint import Fingerprint, Source
from model.errors import (
    CommandFailed,
    DatabaseDenied,
    DatabaseError,
    DatabaseUnreachable,
    DumpRejected,
    HostError,
    Unreachable,
)
from model.facts import DatabaseFingerprint, DumpFacts, DumpLabel, DumpProof
from model.steps import CoreStep, DumpDatabase, DumpStep, FingerprintDatabase

REJECTED = 65
"""Exit code of the scripts for a dump that proves nothing."""
DENIED = 66
"""Exit code of the scripts where the database denies access."""
SOURCE, PROOF = ".source.json", ".proof.json"
"""Next to a dump in the run folder: what its source held, and that it was proven."""
SCRATCH = "ku_proof_"
"""Prefix of the names of scratch databases; Komodo uses no such name."""
_SHORT = timedelta(minutes=5)
_PATIENCE = timedelta(minutes=10)
"""Time for a restore that is no longer needed to end before it is stopped."""
_SOURCE_BYTES = 64 * 1024**2
_T = TypeVar("_T")


class Dumps:
    """Dumps of Core's database, kept and proven."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def dump_database(self, step: DumpDatabase) -> DumpFacts:
        """Make a dump, counted and with the fingerprint of the database it was taken from.

        For `final` and `pre_rollback` Core is stopped, and the counts before, in and after the dump must be equal; the
        fingerprint is taken at the same time as the dump, since nothing writes. `before` is taken of a database in use,
        which is fingerprinted before and after. Raises DumpRejected for a dump that proves nothing; DatabaseError;
        DiskFull.

        `pre_rollback` allows a return to the new version. If an earlier rollback has begun to replace the database, the
        dump made before that replacement is the one that is used; the present content is dumped too, if there is any.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if step.label is not DumpLabel.PRE_ROLLBACK:
            return await self._made(host, step)
        earlier = await replaced.kept(host, step)
        try:
            dumped = await self._made(host, step)
        except DumpRejected:
            if earlier is None:
                raise
        else:
            if earlier is None:
                await replaced.keep(host, step, dumped)
                return dumped
        return earlier

    async def _made(self, host: Host, step: DumpDatabase) -> DumpFacts:
        quiet = step.label is not DumpLabel.BEFORE
        if quiet:
            await _require_stopped(host, step)
        async with database(self._hosts, step) as (opened, login):
            if quiet:
                source, dumped = await self._dump_quiet(host, step, opened, login)
                after = await opened.counts()
            else:
                source, dumped = await self._dump_live(host, step, opened, login)
                after = source.last.counts()
        wrong = differences(dumped.collections, source.first.counts(), after, quiet=quiet)
        if wrong:
            await self._reject(host, step, dumped)
            raise DumpRejected(
                f"the dump {step.label} is not what is in the database: {'; '.join(wrong[:6])}",
                host=host.spec.name,
                residue=f"the rejected dump, renamed, in {step.folder}/dumps",
                hint="does something else write to Core's database? Stop it, then retry" if quiet else "retry",
            )
        note = f"{dumped.path}{SOURCE}"
        await job(host, step, f"note_{step.label}", script("fleet/write_note.sh", path=note), data=source.to_json())
        return replace(dumped, collections=source.first.counts(), source=note)

    async def _dump_quiet(
        self, host: Host, step: DumpDatabase, opened: Database, login: DatabaseLogin
    ) -> tuple[Source, DumpFacts]:
        """Both at once: Core is stopped, so every second counts and nothing changes."""
        form = dump_tools.form(step.facts)
        reading = asyncio.create_task(fingerprint.take(opened, form, send_heartbeat))
        try:
            dumped = await self._dump(host, step, login)
            held = await reading
        finally:
            await _end(reading)
        return Source(held, held), dumped

    async def _dump_live(
        self, host: Host, step: DumpDatabase, opened: Database, login: DatabaseLogin
    ) -> tuple[Source, DumpFacts]:
        """The first fingerprint is saved on the host before the dump begins: a repetition must not use a later one."""
        form = dump_tools.form(step.facts)
        first = await fingerprint.take(opened, form, send_heartbeat)
        kept = await job(
            host, step, f"fingerprint_{step.label}", script("fleet/keep_output.sh"), data=Source(first, first).to_json()
        )
        dumped = await self._dump(host, step, login)
        last = await fingerprint.take(opened, form, send_heartbeat)
        return Source(Source.from_json(kept.out).first, last), dumped

    async def _dump(self, host: Host, step: DumpDatabase, login: DatabaseLogin) -> DumpFacts:
        facts = step.facts.database
        tool = await dump_tools.dump(host, step, login)
        try:
            done = await limited_job(
                host,
                step,
                f"dump_{step.label}",
                tool.script,
                data=tool.data,
                limit=step.fleet.timing.dump,
            )
        except CommandFailed as error:
            if error.code == REJECTED:
                raise DumpRejected(
                    f"the dump {step.label} of {login.name} in {facts.container} proves nothing: "
                    f"{error.tail or error.what}",
                    host=host.spec.name,
                    residue="no dump file was kept; Core's data was not touched",
                    hint="is KOMODO_DATABASE_DB_NAME right, and is this the database that Core uses?",
                ) from None
            raise
        output = facts_in(done)
        return DumpFacts(
            label=step.label,
            path=output["path"][0],
            bytes=int(output["bytes"][0]),
            sha256=output["sha256"][0],
            collections=dumped_counts("\n".join(f"done dumping {line}" for line in output["dumped"]), login.name),
            taken_at=parse_time(output["taken"][0]),
            seconds=float(output["seconds"][0]),
            method=tool.method,
        )

    async def _reject(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """The next call must make a new dump instead of finding this one again."""
        names = (f"dump_{dump.label}", f"fingerprint_{dump.label}", f"note_{dump.label}")
        change, folder = step.op.change, step.folder
        await invalidate(host, folder, *(op for name in names for op in step.op.ids(name)), change=change)
        op = step.op.id(f"reject_{dump.label}")
        notes = (f"{dump.path}{SOURCE}", f"{dump.path}{PROOF}")
        reject = script("database/reject_dump.sh", *notes, path=dump.path)
        await attach(host, op, folder, reject, change=change, timeout=_SHORT)
        await invalidate(host, folder, op, change=change)

    # --- the proof ----------------------------------------------------------------------------------------------------

    @activity.defn
    async def prove_dump(self, step: DumpStep) -> DumpFacts:
        """Restore `step.dump` into a scratch database of the same server; the result must equal what its source held.

        The scratch database is always dropped; one that a crash left is found by its name. Raises DumpRejected with a
        verdict: truncated, empty, wrong database, different; DatabaseDenied where the login may not create a scratch
        database; DiskFull.
        """
        dump = step.dump
        host = await self._hosts.get(step.fleet.core.host)
        note = f"{dump.path}{PROOF}"
        async with database(self._hosts, step) as (opened, login):
            proof = read_proof(await host.read(note))
            if proof is None:
                begun = time.monotonic()
                verdict = await self._compare(host, step, dump, opened, login)
                if verdict.kind != "equal":
                    await self._refuse(host, step, dump, verdict)
                proof = DumpProof(
                    at=await host.clock(), seconds=round(time.monotonic() - begun, 1), notes=_notes(verdict, dump)
                )
                text = {"proof": 1, "at": proof.at.isoformat(), "seconds": proof.seconds, "notes": proof.notes}
                write = script("fleet/write_note.sh", path=note)
                await job(host, step, f"proven_{dump.label}", write, data=json.dumps(text).encode() + b"\n")
            await _drop_scratch(opened)
        return replace(dump, proof=proof)

    async def _compare(
        self, host: Host, step: CoreStep, dump: DumpFacts, opened: Database, login: DatabaseLogin
    ) -> fingerprint.Verdict:
        source = await _source(host, dump)
        # The scratch database is named after the operation, so its content can only come from this operation's own
        # restore.
        name = f"{SCRATCH}{step.op.change.lower()}_{dump.label}_{step.op.attempt}"
        scratch = opened.other(name)
        ready = False
        try:
            if not await self._restoring(host, step, dump) and await _reported(
                scratch.collections(), login, name, host
            ) in ((), (TRIED,)):
                # Nothing is restored yet, or the database was dropped again before a result was reported.
                await self._clear(host, step, dump, opened)
                await _reported(scratch.may_write(), login, name, host)
            await self._restore_into_scratch(host, step, dump, login, name)
            verdict = fingerprint.compare(source, await fingerprint.take(scratch, source.first.form, send_heartbeat))
            ready = True
        except (Unreachable, DatabaseUnreachable):
            # The restore continues on the host, and the next attempt attaches to it.
            ready = True
            raise
        except asyncio.CancelledError:
            ready = not cancelled_for_good()
            raise
        finally:
            if not ready:
                with contextlib.suppress(DatabaseError, HostError):
                    await _to_the_end(self._clear(host, step, dump, opened))
        return verdict

    async def _restoring(self, host: Host, step: CoreStep, dump: DumpFacts) -> bool:
        """Whether an earlier attempt's restore is still running. Must be checked before its result is inspected."""
        return await host.runs(step.op.id(f"prove_{dump.label}"), step.folder, change=step.op.change)

    async def _clear(self, host: Host, step: CoreStep, dump: DumpFacts, opened: Database) -> None:
        """Wait for a running restore first, because it would create again what is dropped here."""
        ops = step.op.ids(f"prove_{dump.label}")
        await invalidate(
            host, step.folder, *ops, change=step.op.change, patience=min(step.fleet.timing.dump, _PATIENCE)
        )
        await dump_tools.end_interrupted(host, step.facts)
        await _drop_scratch(opened)

    async def _restore_into_scratch(
        self, host: Host, step: CoreStep, dump: DumpFacts, login: DatabaseLogin, name: str
    ) -> None:
        tool = await dump_tools.restore_into_scratch(host, step, dump, login, name)
        limit = step.fleet.timing.dump
        try:
            await limited_job(host, step, f"prove_{dump.label}", tool.script, data=tool.data, limit=limit)
        except CommandFailed as error:
            output = error.tail or error.what
            if error.code == DENIED:
                raise _denied(login, name, output, host) from None
            if error.code == REJECTED:
                await self._set_aside(host, step, dump)
                raise _rejected(dump, output, host, step.folder) from None
            raise DatabaseError(
                f"the dump {dump.label} could not be restored into the scratch database {name}: {output}",
                host=host.spec.name,
                residue="the scratch database was dropped; Core's own was not touched",
                hint="retry",
            ) from None

    async def _refuse(self, host: Host, step: CoreStep, dump: DumpFacts, verdict: fingerprint.Verdict) -> None:
        async with database(self._hosts, step) as (opened, _):
            await self._clear(host, step, dump, opened)
        await self._set_aside(host, step, dump)
        raise _rejected(dump, f"{verdict.kind}: {'; '.join(verdict.wrong[:6])}", host, step.folder)

    async def _set_aside(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """A retry makes a new dump. This does not apply to `final`, which cannot be repeated: a bad one is better than
        none.
        """
        if dump.label is not DumpLabel.FINAL:
            await self._reject(host, step, dump)

    @activity.defn
    async def fingerprint_database(self, step: FingerprintDatabase) -> DatabaseFingerprint:
        """Count and digest the documents that Core's database holds now."""
        host = await self._hosts.get(step.fleet.core.host)
        async with database(self._hosts, step) as (opened, _):
            held = await fingerprint.take(opened, dump_tools.form(step.facts), send_heartbeat)
        return DatabaseFingerprint(moment=step.moment, at=await host.clock(), collections=held.counts())


async def _require_stopped(host: Host, step: DumpDatabase) -> None:
    core = await container(host, step.facts.core.container)
    if core.running:
        raise HostError(
            f"Core ({core.name}) runs: a {step.label} dump is made of a quiet database only",
            host=host.spec.name,
            hint="who started it? Stop it (`docker stop`), then retry",
        )


async def _source(host: Host, dump: DumpFacts) -> Source:
    path = dump.source or f"{dump.path}{SOURCE}"
    file = await host.read(path, limit=_SOURCE_BYTES)
    if file is None:
        raise DatabaseError(
            f"{path}, the fingerprint of the database that the dump {dump.label} was taken from, is gone",
            host=host.spec.name,
            hint="without it a dump cannot be proven any more",
        )
    return Source.from_json(file.data)


async def held_by(host: Host, dump: DumpFacts) -> Fingerprint | None:
    """The fingerprint that a restore of this dump of a quiet database must produce; None where none was kept."""
    file = await host.read(dump.source or f"{dump.path}{SOURCE}", limit=_SOURCE_BYTES)
    return Source.from_json(file.data).last if file else None


def read_proof(file: Any) -> DumpProof | None:
    """The note next to a proven dump; None: there is none."""
    if file is None:
        return None
    text = json.loads(file.data)
    return DumpProof(at=parse_time(text["at"]), seconds=float(text["seconds"]), notes=tuple(text["notes"]))


async def _drop_scratch(opened: Database) -> None:
    """All scratch databases, including those of upgrades that were killed and never resumed."""
    for name in await opened.names(SCRATCH):
        await opened.other(name).drop()


async def _reported(work: Awaitable[_T], login: DatabaseLogin, name: str, host: Host) -> _T:
    """Describe the permission that a login lacks for the scratch database."""
    try:
        return await work
    except DatabaseDenied as error:
        raise _denied(login, name, error.what, host) from None


def _denied(login: DatabaseLogin, name: str, output: str, host: Host) -> DatabaseDenied:
    user = login.username or "Core's login"
    source = login.auth_source or "admin"
    grant = '["readWriteAnyDatabase", "dbAdminAnyDatabase"]'
    return DatabaseDenied(
        f"{user} may not make the scratch database {name}, so no dump can be proven by a restore: {output}",
        host=host.spec.name,
        residue="nothing was changed in Core's database",
        hint=f'as an admin of the database: db.getSiblingDB("{source}").grantRolesToUser("{user}", {grant}), then '
        'retry; or do without the proof: [database] proof = "count" in the fleet file',
    )


def _rejected(dump: DumpFacts, why: str, host: Host, folder: str) -> DumpRejected:
    final = dump.label is DumpLabel.FINAL
    return DumpRejected(
        f"the dump {dump.label} is not what was in the database: {why}",
        host=host.spec.name,
        residue=f"{dump.path if final else f'the rejected dump, renamed, in {folder}/dumps'}; no scratch database",
        hint="`rollback --database keep` does without it; the dump `before` was proven"
        if final
        else "retry: a new dump is made",
    )


def _notes(verdict: fingerprint.Verdict, dump: DumpFacts) -> tuple[str, ...]:
    notes = []
    if verdict.changed:
        notes.append(
            f"Core wrote while the dump `{dump.label}` was made: {', '.join(verdict.changed)} changed meanwhile "
            "and are counted only; everything else is equal"
        )
    if verdict.without_indexes:
        notes.append(
            f"restored without all indexes, which Core makes at its start: {', '.join(verdict.without_indexes)}"
        )
    return tuple(notes)


async def _end(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, DatabaseError):
            await task


async def _to_the_end(work: Awaitable[_T]) -> _T:
    """Wait until the task ends, even when this step is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
