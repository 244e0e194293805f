"""The rollback on Core's host. The run folder's own restore.sh does the work, so every rollback tests it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from temporalio import activity

from activities.core.access import (
    core_api,
    database,
    facts_in,
    inspect,
    job,
    limited_job,
    parse_time,
    restore_sh,
    script,
)
from activities.core.files import planned_files, planned_pin, staged_name
from activities.core.readiness import wait_for_core
from activities.database import dump_tools, replaced
from activities.database.dumps import held_by
from activities.heartbeat import invalidate, send_heartbeat
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo.core import fingerprint, v1_downgrade
from komodo.core.containers import compose_command
from komodo.core.database import differences
from komodo.core.v1_documents import OLDEST_KEPT, why_not_kept
from komodo.releases import version_of
from model.errors import CommandFailed, DatabaseError, HostError
from model.facts import DumpFacts
from model.steps import (
    SWITCH,
    CheckRollback,
    CoreStarted,
    CoreStep,
    Done,
    DumpStep,
    Recheck,
    ReturnToNewCore,
    agent_operation,
)

_RESTORE = "roll back with --database restore"


class CoreRollback:
    """Undoes Core's upgrade, step by step. Every step may be repeated until it works."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def check_rollback(self, step: CheckRollback) -> Recheck:
        """Reasons why the rollback is impossible: a dump, a saved file or an old image that is missing or different.

        With `keep_database` also what prevents keeping the database.
        """
        host = await self._hosts.get(step.fleet.core.host)
        folder = step.folder
        pairs: list[str] = [f"{folder}/restore.sh", "", f"{folder}/restore.list", ""]
        for saved in step.backup.files:
            pairs += [saved.saved_as, saved.sha256]
        if step.dump:
            pairs += [step.dump.path, step.dump.sha256]
        output = facts_in(await host.run(script("fleet/check_digests.sh", *pairs), timeout=timedelta(minutes=10)))
        drift = [f"{p} is gone" for p in output.get("missing", [])]
        drift += [f"{p} is not what was saved" for p in output.get("differs", [])]
        services = [s for s in (step.facts.core, step.facts.agent) if s]
        listed = (await host.run(script("core/inspect_images.sh", *(s.image_id for s in services)))).text
        have = {str(e.get("Id", "")) for e in json.loads(listed or "[]")}
        drift += [
            f"the old image of {s.service} ({s.image}, {s.image_id[:19]}) is no longer on the host"
            for s in services
            if s.image_id not in have
        ]
        if not step.keep_database:
            return Recheck(drift=tuple(drift))
        drift += await _reasons_not_to_keep(host, step)
        return Recheck(drift=tuple(drift), losses=await self._losses(step))

    async def _losses(self, step: CoreStep) -> tuple[str, ...]:
        try:
            async with database(self._hosts, step) as (opened, _):
                return await v1_downgrade.losses(opened, version_of(step.facts.version) or OLDEST_KEPT)
        except DatabaseError as error:
            return (f"what else v1 cannot read is unknown: {error.what}",)

    @activity.defn
    async def restore_core_files(self, step: CoreStep) -> Done:
        """Write the compose and env files as they were saved."""
        host = await self._hosts.get(step.fleet.core.host)
        agent = agent_operation(step.op, step.facts)
        await self._invalidate(host, step, "write_core_files", also=agent.ids(SWITCH) if agent else ())
        done = await job(host, step, "restore_core_files", restore_sh(step.folder, "files"))
        return Done(facts=tuple(done.text.splitlines()))

    @activity.defn
    async def restore_database(self, step: DumpStep) -> Done:
        """Drop the whole database and restore `step.dump`; the result must equal what the dump's source held.

        Core must be stopped.
        """
        return Done(facts=(await self._restore(step, step.dump, "restore_database"),))

    @activity.defn
    async def downgrade_database(self, step: CoreStep) -> Done:
        """Convert the database to v1's form, with what was written since: km's v1-downgrade, and removal of what v1
        cannot read.

        Core must be stopped. Raises DatabaseError where the old version is too old for that.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if why := why_not_kept(step.facts.version):
            raise DatabaseError(why, host=host.spec.name, hint=_RESTORE)
        await _require_stopped(host, step.facts.core.container)
        async with database(self._hosts, step) as (opened, login):
            tool = await dump_tools.downgrade(host, step, login)
            await replaced.begin(host, step, "downgrade_database")
            try:
                done = await job(host, step, "downgrade_database", tool.script, data=tool.data)
            except CommandFailed as error:
                raise DatabaseError(
                    f"km could not take the database {login.name} to v1's form: {error.tail or error.what}",
                    host=host.spec.name,
                    residue="Core is stopped; the dump `pre_rollback` holds the database as v2 left it",
                    hint="retry, or roll back with --database restore",
                ) from None
            removed = await v1_downgrade.convert(opened, version_of(step.facts.version) or OLDEST_KEPT)
        return Done(facts=(*facts_in(done).get("output", []), *removed))

    @activity.defn
    async def start_old_core(self, step: CoreStep) -> CoreStarted:
        """Start Core from the files now in place: the last step of a rollback, and the undo of a stop.

        Proven by the login options of its version, and with an API key by its lists, because v1 on a database that v2
        has written to answers but lists nothing.
        """
        host = await self._hosts.get(step.fleet.core.host)
        await self._invalidate(host, step, "stop_core", "dump_final", "note_final", "start_core")
        folder = step.folder
        await job(host, step, "start_old_core", restore_sh(folder, "start"))
        started = await self._time_in(host, f"{folder}/old-core-started-at")
        stopped = await self._time_in(host, f"{folder}/core-stopped-at")
        begun = started or await host.clock()
        await wait_for_core(self._hosts, host, step, step.facts.version, begun)
        async with core_api(self._hosts, step.fleet.core, step.facts) as api:
            if api.has_key:
                await api.list_updates()
                await api.require_lists()
        await job(host, step, "note_old_core", restore_sh(folder, "done"))
        now = await host.clock()
        return CoreStarted(
            version=step.facts.version, started_at=begun, downtime=max(timedelta(0), now - (stopped or begun))
        )

    @activity.defn
    async def return_to_new_core(self, step: ReturnToNewCore) -> CoreStarted:
        """Restore the new Core and its data after a rollback that failed before the agents.

        `step.dump` (pre_rollback) is restored where this rollback has changed the database; None: it has not. If an
        earlier rollback has, the dump that it made is restored. Raises DatabaseError where no dump exists.
        """
        host = await self._hosts.get(step.fleet.core.host)
        facts, folder = step.facts, step.folder
        service, directory, words = facts.core, facts.project.directory, compose_command(facts.project)
        names = ["stop_core", "restore_database", "downgrade_database", "restore_core_files", "start_old_core"]
        names += ["note_old_core", "dump_pre_rollback", "note_pre_rollback"]
        await self._invalidate(host, step, *names)
        stop = script("core/stop_core.sh", *words, folder=folder, directory=directory, service=service.service)
        await job(host, step, "return_stop", stop)
        dump = step.dump or await replaced.kept(host, step)
        if dump:
            await self._restore_once(host, step, dump)
        elif await replaced.begun(host, step):
            raise _no_dump_of_v2(host, folder)
        pin = planned_pin(facts)
        args: list[str] = []
        for edit in planned_files(facts):
            args += [staged_name(edit.path), edit.path, edit.base_sha256, edit.result_sha256]
        write = script("core/reapply_core_files.sh", *args, folder=folder, pinned=pin.path if pin else "")
        await job(host, step, "return_files", write)
        start = script(
            "core/start_core.sh",
            *words,
            folder=folder,
            directory=directory,
            service=service.service,
            database=facts.database.container,
        )
        done = await job(host, step, "return_start", start)
        output = facts_in(done)
        started = parse_time(output["started"][0])
        await wait_for_core(self._hosts, host, step, step.fleet.target, started)
        stopped = parse_time(output["stopped"][0]) if output.get("stopped") else started
        now = await host.clock()
        return CoreStarted(version=step.fleet.target, started_at=started, downtime=max(timedelta(0), now - stopped))

    async def _restore_once(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """A second attempt must not restore again, because the new Core may be running on the database or about to
        start.

        (restore.sh's own mark, database-restored, is removed as soon as a Core is started.)
        """
        note = f"{step.folder}/returned-database-{step.op.attempt}"
        if await host.read(note) is None:
            done = await self._restore(step, dump, "return_database")
            write = script("fleet/write_note.sh", path=note)
            await job(host, step, "return_noted", write, data=f"{done}\n".encode())

    async def _restore(self, step: CoreStep, dump: DumpFacts, name: str) -> str:
        host = await self._hosts.get(step.fleet.core.host)
        await _require_stopped(host, step.facts.core.container)
        check = script("fleet/check_digests.sh", dump.path, dump.sha256)
        held = (await host.run(check, timeout=timedelta(minutes=10))).text
        if held.strip():
            raise DatabaseError(f"the dump {dump.path} is gone or not what was made", host=host.spec.name)
        # Wait for a restore that another worker began: dropping the database during a restore would leave half of the
        # data.
        patience = step.fleet.timing.dump
        ops = (*step.op.ids("restore_database"), *step.op.ids("return_database"))
        await invalidate(host, step.folder, *ops, change=step.op.change, patience=patience)
        async with database(self._hosts, step) as (opened, login):
            mark = await host.read(f"{step.folder}/database-restored")
            done = mark is not None and mark.data.decode().strip() == dump.path
            if not done:
                await replaced.begin(host, step, name)
                await dump_tools.end_interrupted(host, step.facts)
                await opened.drop()
                send_heartbeat()
                await self._run_restore(host, step, dump, name, login.name)
            after = await opened.counts()
            wrong = differences(dump.collections, after, after, quiet=True)
            # Equal counts are not sufficient proof, because v2 rewrites documents in place.
            expected = await held_by(host, dump)
            if expected and not wrong:
                restored = await fingerprint.take(opened, expected.form, send_heartbeat)
                wrong = fingerprint.compare(fingerprint.Source(expected, expected), restored).wrong
        if wrong:
            raise DatabaseError(
                f"the restored database is not what the dump {dump.label} holds: {'; '.join(wrong[:6])}",
                host=host.spec.name,
                residue="Core is stopped; the dump is whole",
                hint=f"retry, or by hand: sudo sh {step.folder}/restore.sh database",
            )
        return f"{dump.documents} documents of {len(dump.collections)} collections restored from {dump.path}"

    async def _run_restore(self, host: Host, step: CoreStep, dump: DumpFacts, name: str, base: str) -> None:
        folder = step.folder
        try:
            limit = step.fleet.timing.dump
            await limited_job(host, step, name, restore_sh(folder, "database", dump.path), limit=limit)
        except CommandFailed as error:
            raise DatabaseError(
                f"the database {base} could not be restored from {dump.path}: {error.tail or error.what}",
                host=host.spec.name,
                residue="Core is stopped, its database incomplete; the dump is whole",
                hint=f"retry, or by hand: sudo sh {folder}/restore.sh database",
            ) from None

    async def _invalidate(self, host: Host, step: CoreStep, *names: str, also: tuple[str, ...] = ()) -> None:
        """Wait for the jobs that this undo reverses, of any attempt, and remove their marks."""
        ops = [*(op for name in names for op in step.op.ids(name)), *also]
        await invalidate(host, step.folder, *ops, change=step.op.change)

    async def _time_in(self, host: Host, path: str) -> datetime | None:
        file = await host.read(path)
        return parse_time(file.data.decode()) if file else None


async def _reasons_not_to_keep(host: Host, step: CoreStep) -> list[str]:
    if why := why_not_kept(step.facts.version):
        return [f"{why}: {_RESTORE}"]
    image = step.facts.core.target_image
    if json.loads((await host.run(script("core/inspect_images.sh", image))).text or "[]"):
        return []
    return [f"{image}, whose km keeps what was written since, is no longer on the host: {_RESTORE}"]


def _no_dump_of_v2(host: Host, folder: str) -> DatabaseError:
    return DatabaseError(
        "an earlier rollback began to replace Core's database, and no dump of what the new version had written is "
        "there: the new Core is not started on what is left",
        host=host.spec.name,
        residue="Core is stopped",
        hint=f"finish the rollback by hand: sudo sh {folder}/restore.sh",
    )


async def _require_stopped(host: Host, core: str) -> None:
    now = (await inspect(host, core)).get(core)
    if now is not None and now.running:
        raise HostError(
            f"Core ({core}) runs: its database is not replaced under it",
            host=host.spec.name,
            hint="who started it? Stop it (`docker stop`), then retry",
        )
