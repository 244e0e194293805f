"""Dumps of Core's database: made, held to what the database holds, and proven by a restore beside it."""

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

from activities import dump_tools, replaced
from activities.core_access import (
    container,
    database,
    database_of,
    facts_in,
    folder_of,
    job,
    limited_job,
    moment,
    need,
    script,
)
from activities.signs import attach, beat, given_up, void
from hosts.host import Host
from hosts.pool import Hosts
from komodo import fingerprint
from komodo.database import TRIED, Database, DatabaseLogin, differences, dumped_counts
from komodo.fingerprint import Fingerprint, Source
from model.errors import (
    CommandFailed,
    DatabaseDenied,
    DatabaseError,
    DatabaseUnreachable,
    DumpRejected,
    HostError,
    Unreachable,
)
from model.facts import DatabasePrint, DumpFacts, DumpProof
from model.steps import CoreStep

REJECTED = 65
"""Exit code of our scripts for a dump that proves nothing."""
DENIED = 66
"""Exit code of our scripts where the database does not let us."""
SOURCE, PROOF = ".source.json", ".proof.json"
"""Beside a dump in the run folder: what its source held, and that it was proven."""
SCRATCH = "ku_proof_"
"""What the names of scratch databases begin with; nothing of Komodo's does."""
_SHORT = timedelta(minutes=5)
_PATIENCE = timedelta(minutes=10)
"""For a restore that nobody needs any more, before it is stopped."""
_SOURCE_BYTES = 64 * 1024**2
_T = TypeVar("_T")


class Dumps:
    """Core's database, kept and proven."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def dump_database(self, step: CoreStep) -> DumpFacts:
        """A dump, counted and with the fingerprint of the database it was taken from.

        For `final` and `pre_rollback` Core is stopped, and the counts before, in and after the dump must be equal; the
        fingerprint is taken beside the dump, since nothing writes. `before` is of a database in use: it is
        fingerprinted before and after. Raises DumpRejected for a dump that proves nothing; DatabaseError; DiskFull.

        `pre_rollback` is what leads forward again. Where an earlier way back had begun to replace the database, that is
        the dump that was made before it; what is there now is dumped too, if it is anything.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if step.label != replaced.LABEL:
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

    async def _made(self, host: Host, step: CoreStep) -> DumpFacts:
        quiet = step.label != "before"
        if quiet:
            await _require_stopped(host, step)
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, login):
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
                left=f"the rejected dump, renamed, in {folder_of(step)}/dumps",
                cure="does something else write to Core's database? Stop it, then retry" if quiet else "retry",
            )
        note = f"{dumped.path}{SOURCE}"
        await job(host, step, f"note_{step.label}", "keep_note.sh", note, data=source.to_json())
        return replace(dumped, collections=source.first.counts(), source=note)

    async def _dump_quiet(
        self, host: Host, step: CoreStep, opened: Database, login: DatabaseLogin
    ) -> tuple[Source, DumpFacts]:
        """Both at once: Core is stopped, so every second counts and nothing changes."""
        form = dump_tools.form(step.facts)
        look = asyncio.create_task(fingerprint.take(opened, form, beat))
        try:
            dumped = await self._dump(host, step, login)
            held = await look
        finally:
            await _end(look)
        return Source(held, held), dumped

    async def _dump_live(
        self, host: Host, step: CoreStep, opened: Database, login: DatabaseLogin
    ) -> tuple[Source, DumpFacts]:
        """The first look is kept on the host before the dump begins: a repetition must not look later than that."""
        form = dump_tools.form(step.facts)
        first = await fingerprint.take(opened, form, beat)
        kept = await job(host, step, f"look_{step.label}", "echo.sh", data=Source(first, first).to_json())
        dumped = await self._dump(host, step, login)
        last = await fingerprint.take(opened, form, beat)
        return Source(Source.from_json(kept.out).first, last), dumped

    async def _dump(self, host: Host, step: CoreStep, login: DatabaseLogin) -> DumpFacts:
        facts = database_of(step.facts)
        tool = await dump_tools.dump(host, step, login)
        try:
            done = await limited_job(
                host,
                step,
                f"dump_{step.label}",
                tool.script,
                *tool.args,
                data=tool.data,
                limit=step.fleet.clocks.dump,
            )
        except CommandFailed as error:
            if error.code == REJECTED:
                raise DumpRejected(
                    f"the dump {step.label} of {login.name} in {facts.container} proves nothing: "
                    f"{error.tail or error.what}",
                    host=host.spec.name,
                    left="no dump file was kept; Core's data was not touched",
                    cure="is KOMODO_DATABASE_DB_NAME right, and is this the database Core works with?",
                ) from None
            raise
        said = facts_in(done)
        return DumpFacts(
            label=step.label,
            path=said["path"][0],
            bytes=int(said["bytes"][0]),
            sha256=said["sha256"][0],
            collections=dumped_counts("\n".join(f"done dumping {line}" for line in said["dumped"]), login.name),
            taken_at=moment(said["taken"][0]),
            seconds=float(said["seconds"][0]),
            method=tool.method,
        )

    async def _reject(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """The next call must make a new dump, not find this one again."""
        names = (f"dump_{dump.label}", f"look_{dump.label}", f"note_{dump.label}")
        change, folder = step.op.change, folder_of(step)
        await void(host, folder, *(op for name in names for op in step.op.ids(name)), change=change)
        op = step.op.id(f"reject_{dump.label}")
        notes = (f"{dump.path}{SOURCE}", f"{dump.path}{PROOF}")
        await attach(host, op, folder, script("reject_dump.sh"), dump.path, *notes, change=change, timeout=_SHORT)
        await void(host, folder, op, change=change)

    # --- the proof ----------------------------------------------------------------------------------------------------

    @activity.defn
    async def prove_dump(self, step: CoreStep) -> DumpFacts:
        """`step.dump`, restored into a scratch database of the same server, must hold what its source held.

        The scratch database is dropped in any case; one that a crash left behind is found by its name. Raises
        DumpRejected with a verdict: truncated, empty, wrong database, different; DatabaseDenied where the login may
        not make a scratch database; DiskFull.
        """
        dump = step.dump
        if dump is None:
            raise DatabaseError("no dump was named to prove", host=step.fleet.core.host.name)
        host = await self._hosts.get(step.fleet.core.host)
        note = f"{dump.path}{PROOF}"
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, login):
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
                await job(
                    host, step, f"proven_{dump.label}", "keep_note.sh", note, data=json.dumps(text).encode() + b"\n"
                )
            await _drop_scratch(opened)
        return replace(dump, proof=proof)

    async def _compare(
        self, host: Host, step: CoreStep, dump: DumpFacts, opened: Database, login: DatabaseLogin
    ) -> fingerprint.Verdict:
        source = await _source(host, dump)
        # Its name is that of the operation, so what is in it can only come from this operation's own restore.
        name = f"{SCRATCH}{step.op.change.lower()}_{dump.label}_{step.op.attempt}"
        scratch = opened.other(name)
        ready = False
        try:
            if not await self._restoring(host, step, dump) and await _told(
                scratch.collections(), login, name, host
            ) in ((), (TRIED,)):
                # Nothing restored yet, or dropped again before anybody was told.
                await self._clear(host, step, dump, opened)
                await _told(scratch.may_write(), login, name, host)
            await self._restore_beside(host, step, dump, login, name)
            verdict = fingerprint.judge(source, await fingerprint.take(scratch, source.first.form, beat))
            ready = True
        except (Unreachable, DatabaseUnreachable):
            # The restore goes on without us, and the next try attaches to it.
            ready = True
            raise
        except asyncio.CancelledError:
            ready = not given_up()
            raise
        finally:
            if not ready:
                with contextlib.suppress(DatabaseError, HostError):
                    await _surely(self._clear(host, step, dump, opened))
        return verdict

    async def _restoring(self, host: Host, step: CoreStep, dump: DumpFacts) -> bool:
        """An earlier try's restore is at it right now; to be asked before one looks for what it has restored."""
        return await host.runs(step.op.id(f"prove_{dump.label}"), folder_of(step), change=step.op.change)

    async def _clear(self, host: Host, step: CoreStep, dump: DumpFacts, opened: Database) -> None:
        """A restore that runs ends first, for it would make anew what is dropped here."""
        ops = step.op.ids(f"prove_{dump.label}")
        await void(host, folder_of(step), *ops, change=step.op.change, patience=min(step.fleet.clocks.dump, _PATIENCE))
        await dump_tools.settle(host, step.facts)
        await _drop_scratch(opened)

    async def _restore_beside(
        self, host: Host, step: CoreStep, dump: DumpFacts, login: DatabaseLogin, name: str
    ) -> None:
        tool = await dump_tools.restore_beside(host, step, dump, login, name)
        limit = step.fleet.clocks.dump
        try:
            await limited_job(host, step, f"prove_{dump.label}", tool.script, *tool.args, data=tool.data, limit=limit)
        except CommandFailed as error:
            said = error.tail or error.what
            if error.code == DENIED:
                raise _denied(login, name, said, host) from None
            if error.code == REJECTED:
                await self._set_aside(host, step, dump)
                raise _rejected(dump, said, host, folder_of(step)) from None
            raise DatabaseError(
                f"the dump {dump.label} could not be restored into the scratch database {name}: {said}",
                host=host.spec.name,
                left="the scratch database was dropped; Core's own was not touched",
                cure="retry",
            ) from None

    async def _refuse(self, host: Host, step: CoreStep, dump: DumpFacts, verdict: fingerprint.Verdict) -> None:
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, _):
            await self._clear(host, step, dump, opened)
        await self._set_aside(host, step, dump)
        raise _rejected(dump, f"{verdict.kind}: {'; '.join(verdict.wrong[:6])}", host, folder_of(step))

    async def _set_aside(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """A retry makes a new one; but for `final`, of which there is no second: better a bad one than none."""
        if dump.label != "final":
            await self._reject(host, step, dump)

    @activity.defn
    async def fingerprint_database(self, step: CoreStep) -> DatabasePrint:
        """What Core's database holds now. `step.label` says which moment that is."""
        host = await self._hosts.get(step.fleet.core.host)
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, _):
            held = await fingerprint.take(opened, dump_tools.form(step.facts), beat)
        return DatabasePrint(moment=step.label, at=await host.clock(), collections=held.counts())


async def _require_stopped(host: Host, step: CoreStep) -> None:
    core = await container(host, need(step.facts.core).container)
    if core.running:
        raise HostError(
            f"Core ({core.name}) runs: a {step.label} dump is made of a quiet database only",
            host=host.spec.name,
            cure="who started it? Stop it (`docker stop`), then retry",
        )


async def _source(host: Host, dump: DumpFacts) -> Source:
    path = dump.source or f"{dump.path}{SOURCE}"
    file = await host.read(path, limit=_SOURCE_BYTES)
    if file is None:
        raise DatabaseError(
            f"{path}, the fingerprint of the database that the dump {dump.label} was taken from, is gone",
            host=host.spec.name,
            cure="without it a dump cannot be proven any more",
        )
    return Source.from_json(file.data)


async def held_by(host: Host, dump: DumpFacts) -> Fingerprint | None:
    """What a restore of this dump, taken of a quiet database, must lead to; None where no fingerprint was kept."""
    file = await host.read(dump.source or f"{dump.path}{SOURCE}", limit=_SOURCE_BYTES)
    return Source.from_json(file.data).last if file else None


def read_proof(file: Any) -> DumpProof | None:
    """The note beside a proven dump; None: it has none."""
    if file is None:
        return None
    text = json.loads(file.data)
    return DumpProof(at=moment(text["at"]), seconds=float(text["seconds"]), notes=tuple(text["notes"]))


async def _drop_scratch(opened: Database) -> None:
    """All of them: also those that an upgrade left behind which was killed and never came back."""
    for name in await opened.names(SCRATCH):
        await opened.other(name).drop()


async def _told(work: Awaitable[_T], login: DatabaseLogin, name: str, host: Host) -> _T:
    """Say what a login is missing that may not do this in the scratch database."""
    try:
        return await work
    except DatabaseDenied as error:
        raise _denied(login, name, error.what, host) from None


def _denied(login: DatabaseLogin, name: str, said: str, host: Host) -> DatabaseDenied:
    user = login.username or "Core's login"
    source = login.auth_source or "admin"
    grant = '["readWriteAnyDatabase", "dbAdminAnyDatabase"]'
    return DatabaseDenied(
        f"{user} may not make the scratch database {name}, so no dump can be proven by a restore: {said}",
        host=host.spec.name,
        left="nothing was changed in Core's database",
        cure=f'as an admin of the database: db.getSiblingDB("{source}").grantRolesToUser("{user}", {grant}), then '
        'retry; or do without the proof: [database] proof = "count" in the fleet file',
    )


def _rejected(dump: DumpFacts, why: str, host: Host, folder: str) -> DumpRejected:
    final = dump.label == "final"
    return DumpRejected(
        f"the dump {dump.label} is not what was in the database: {why}",
        host=host.spec.name,
        left=f"{dump.path if final else f'the rejected dump, renamed, in {folder}/dumps'}; no scratch database",
        cure="`rollback --database keep` does without it; the dump `before` was proven"
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


async def _surely(work: Awaitable[_T]) -> _T:
    """To its end, also when this step is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
