"""The way back on Core's host. The run folder's own restore.sh does the work, so every rollback tests it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from temporalio import activity

from activities import dump_tools, replaced
from activities.core_access import (
    compose_words,
    core_api,
    database,
    database_of,
    facts_in,
    folder_of,
    inspect,
    job,
    limited_job,
    log_of,
    moment,
    need,
    project_of,
    script,
    tail_of,
    until,
)
from activities.core_edits import planned_files, planned_pin, staged_name
from activities.core_proof import since, wait_for_core
from activities.dumps import held_by
from activities.signs import beat, void
from hosts.host import Host
from hosts.pool import Hosts
from komodo import fingerprint, logs
from komodo.database import differences
from komodo.project import Container
from komodo.releases import version_of
from komodo.v1_documents import OLDEST_KEPT, forget, why_not_kept
from model.errors import AgentNotStarted, CommandFailed, DatabaseError, HostError
from model.facts import DumpFacts
from model.steps import KEEP, CoreStarted, CoreStep, Done, Recheck, Restored

_RESTORE = "roll back with --database restore"


class CoreRollback:
    """Undoes Core's upgrade, step by step; every step may be repeated until it works."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def check_rollback(self, step: CoreStep) -> Recheck:
        """What makes the way back impossible: a dump, a saved file or an old image that is gone or different.

        `step.label` KEEP: the database is to be kept, and that is not possible.
        """
        host = await self._hosts.get(step.fleet.core.host)
        folder = folder_of(step)
        pairs: list[str] = [f"{folder}/restore.sh", "", f"{folder}/restore.list", ""]
        for saved in step.backup.files if step.backup else ():
            pairs += [saved.saved_as, saved.sha256]
        if step.dump:
            pairs += [step.dump.path, step.dump.sha256]
        said = facts_in(await host.run(script("check_rollback.sh"), *pairs, timeout=timedelta(minutes=10)))
        drift = [f"{p} is gone" for p in said.get("missing", [])]
        drift += [f"{p} is not what was saved" for p in said.get("differs", [])]
        services = [s for s in (step.facts.core, step.facts.agent) if s]
        listed = (await host.run(script("images.sh"), *(s.image_id for s in services))).text
        have = {str(e.get("Id", "")) for e in json.loads(listed or "[]")}
        drift += [
            f"the old image of {s.service} ({s.image}, {s.image_id[:19]}) is not on the host any more"
            for s in services
            if s.image_id not in have
        ]
        if step.label == KEEP:
            drift += await _not_to_be_kept(host, step)
        return Recheck(drift=tuple(drift))

    @activity.defn
    async def restore_core_files(self, step: CoreStep) -> Done:
        """Compose and env files as they were saved."""
        host = await self._hosts.get(step.fleet.core.host)
        await self._void(host, step, "write_core_files", "switch_core_agent")
        done = await job(host, step, "restore_core_files", "run_core_restore.sh", folder_of(step), "files")
        return Done(facts=tuple(done.text.splitlines()))

    @activity.defn
    async def restore_database(self, step: CoreStep) -> Done:
        """Drops the whole database and restores `step.dump`; it must hold what the dump's source held.

        Core must be stopped.
        """
        if step.dump is None:
            raise DatabaseError("no dump was named to restore", host=step.fleet.core.host.name)
        return Done(facts=(await self._restore(step, step.dump, "restore_database"),))

    @activity.defn
    async def downgrade_database(self, step: CoreStep) -> Done:
        """v1's form again with what was written since: km's v1-downgrade, and what v1 cannot read removed.

        Core must be stopped. Raises DatabaseError where the old version is too old for that.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if why := why_not_kept(step.facts.version):
            raise DatabaseError(why, host=host.spec.name, cure=_RESTORE)
        await _require_stopped(host, need(step.facts.core).container)
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, login):
            tool = await dump_tools.downgrade(host, step, login)
            await replaced.begin(host, step, "downgrade_database")
            try:
                done = await job(host, step, "downgrade_database", tool.script, *tool.args, data=tool.data)
            except CommandFailed as error:
                raise DatabaseError(
                    f"km could not take the database {login.name} to v1's form: {error.tail or error.what}",
                    host=host.spec.name,
                    left="Core is stopped; the dump `pre_rollback` holds the database as v2 left it",
                    cure="retry, or roll back with --database restore",
                ) from None
            removed = await forget(opened, version_of(step.facts.version) or OLDEST_KEPT)
        return Done(facts=(*facts_in(done).get("said", []), *removed))

    @activity.defn
    async def start_old_core(self, step: CoreStep) -> CoreStarted:
        """Starts Core of the files now in place: the last step of a way back, and the undo of a stop.

        Proven by the login options of its version, and with an API key by ListServers and ListUpdates: v1 on a
        database that v2 has written to answers, and lists nothing.
        """
        host = await self._hosts.get(step.fleet.core.host)
        dump = step.label or "final"
        await self._void(host, step, "stop_core", f"dump_{dump}", f"note_{dump}", "start_core")
        folder = folder_of(step)
        await job(host, step, "start_old_core", "run_core_restore.sh", folder, "start")
        started = await self._time_in(host, f"{folder}/old-core-started-at")
        stopped = await self._time_in(host, f"{folder}/core-stopped-at")
        begun = started or await host.clock()
        await wait_for_core(self._hosts, host, step, step.facts.version, begun)
        async with core_api(self._hosts, step.fleet.core, step.facts) as api:
            if api.has_key:
                await api.list_updates()
        await job(host, step, "note_old_core", "run_core_restore.sh", folder, "done")
        now = await host.clock()
        return CoreStarted(
            version=step.facts.version, started_at=begun, dark=max(timedelta(0), now - (stopped or begun))
        )

    @activity.defn
    async def restore_core_agent(self, step: CoreStep) -> Restored:
        """The periphery of Core's project in its old version again, whatever version Core's files have."""
        host = await self._hosts.get(step.fleet.core.host)
        agent = need(step.facts.agent)
        await self._void(host, step, "switch_core_agent")
        await job(host, step, "restore_core_agent", "run_core_restore.sh", folder_of(step), "agent")
        run = logs.RunLog()
        now: Container | None = None

        async def ready() -> bool:
            nonlocal run, now
            now = (await inspect(host, agent.container)).get(agent.container)
            if now is None or not now.running or now.image_id != agent.image_id:
                return False
            run = logs.parse_run(logs.last_run(await log_of(host, agent.container, since(now, None))))
            return bool(run.version) and bool(run.listening or run.config)

        clocks = step.fleet.clocks
        if not await until(ready, limit=clocks.agent_ready, poll=clocks.poll) or now is None:
            raise AgentNotStarted(
                f"the periphery of Core's project ({agent.container}) does not run in its old version: "
                f"{run.reason or tail_of(await log_of(host, agent.container)) if now else 'it is gone'}",
                host=host.spec.name,
                cure=f"by hand: sudo sh {folder_of(step)}/restore.sh agent",
            )
        started = moment(now.started_at) if now.started_at else await host.clock()
        line = next(iter(run.proof), "")
        return Restored(version=run.version, started_at=started, line=line, invocation=now.id)

    @activity.defn
    async def return_to_new_core(self, step: CoreStep) -> CoreStarted:
        """After a way back that failed before the agents: the new Core with its data, as before.

        `step.dump` (pre_rollback) is restored where the database was touched; None: it was not, by this way back. Where
        an earlier one did, what that one had dumped is. Raises DatabaseError where nobody has dumped it.
        """
        host = await self._hosts.get(step.fleet.core.host)
        facts, folder = step.facts, folder_of(step)
        service, directory, words = need(facts.core), project_of(facts).directory, compose_words(facts)
        names = ["stop_core", "restore_database", "downgrade_database", "restore_core_files", "start_old_core"]
        names += ["note_old_core", "dump_pre_rollback", "note_pre_rollback"]
        await self._void(host, step, *names)
        await job(host, step, "return_stop", "stop_core.sh", folder, directory, service.service, *words)
        dump = step.dump or await replaced.kept(host, step)
        if dump:
            await self._restore_once(host, step, dump)
        elif await replaced.begun(host, step):
            raise _not_v2s(host, folder)
        pin = planned_pin(facts)
        args: list[str] = []
        for edit in planned_files(facts):
            args += [staged_name(edit.path), edit.path, edit.base_sha256, edit.result_sha256]
        await job(host, step, "return_files", "return_core_files.sh", folder, pin.path if pin else "", *args)
        data = database_of(facts).container
        done = await job(host, step, "return_start", "start_core.sh", folder, directory, service.service, data, *words)
        said = facts_in(done)
        started = moment(said["started"][0])
        await wait_for_core(self._hosts, host, step, step.fleet.target, started)
        stopped = moment(said["stopped"][0]) if said.get("stopped") else started
        now = await host.clock()
        return CoreStarted(version=step.fleet.target, started_at=started, dark=max(timedelta(0), now - stopped))

    async def _restore_once(self, host: Host, step: CoreStep, dump: DumpFacts) -> None:
        """Not again by a second try: the new Core may run on it by then, or be about to start.

        (restore.sh's own mark, database-restored, is gone as soon as a Core is started.)
        """
        note = f"{folder_of(step)}/returned-database-{step.op.attempt}"
        if await host.read(note) is None:
            done = await self._restore(step, dump, "return_database")
            await job(host, step, "return_noted", "keep_note.sh", note, data=f"{done}\n".encode())

    async def _restore(self, step: CoreStep, dump: DumpFacts, name: str) -> str:
        host = await self._hosts.get(step.fleet.core.host)
        await _require_stopped(host, need(step.facts.core).container)
        held = (await host.run(script("check_rollback.sh"), dump.path, dump.sha256, timeout=timedelta(minutes=10))).text
        if held.strip():
            raise DatabaseError(f"the dump {dump.path} is gone or not what was made", host=host.spec.name)
        # One that another worker began is waited for: a drop under a running restore would leave half of the data.
        patience = step.fleet.clocks.dump
        ops = (*step.op.ids("restore_database"), *step.op.ids("return_database"))
        await void(host, folder_of(step), *ops, change=step.op.change, patience=patience)
        async with database(self._hosts, step.fleet.core, step.facts) as (opened, login):
            mark = await host.read(f"{folder_of(step)}/database-restored")
            done = mark is not None and mark.data.decode().strip() == dump.path
            if not done:
                await replaced.begin(host, step, name)
                await dump_tools.settle(host, step.facts)
                await opened.drop()
                beat()
                await self._run_restore(host, step, dump, name, login.name)
            after = await opened.counts()
            wrong = differences(dump.collections, after, after, quiet=True)
            # Equal counts alone say little: v2 rewrites documents in place.
            expected = await held_by(host, dump)
            if expected and not wrong:
                restored = await fingerprint.take(opened, expected.form, beat)
                wrong = fingerprint.judge(fingerprint.Source(expected, expected), restored).wrong
        if wrong:
            raise DatabaseError(
                f"the restored database is not what the dump {dump.label} holds: {'; '.join(wrong[:6])}",
                host=host.spec.name,
                left="Core is stopped; the dump is whole",
                cure=f"retry, or by hand: sudo sh {folder_of(step)}/restore.sh database",
            )
        return f"{dump.documents} documents of {len(dump.collections)} collections restored from {dump.path}"

    async def _run_restore(self, host: Host, step: CoreStep, dump: DumpFacts, name: str, base: str) -> None:
        folder = folder_of(step)
        try:
            limit = step.fleet.clocks.dump
            await limited_job(host, step, name, "run_core_restore.sh", folder, "database", dump.path, limit=limit)
        except CommandFailed as error:
            raise DatabaseError(
                f"the database {base} could not be restored from {dump.path}: {error.tail or error.what}",
                host=host.spec.name,
                left="Core is stopped, its database incomplete; the dump is whole",
                cure=f"retry, or by hand: sudo sh {folder}/restore.sh database",
            ) from None

    async def _void(self, host: Host, step: CoreStep, *names: str) -> None:
        """An undo waits for the jobs it undoes, whichever attempt began them, and takes their marks away."""
        ops = [op for name in names for op in step.op.ids(name)]
        await void(host, folder_of(step), *ops, change=step.op.change)

    async def _time_in(self, host: Host, path: str) -> datetime | None:
        file = await host.read(path)
        return moment(file.data.decode()) if file else None


async def _not_to_be_kept(host: Host, step: CoreStep) -> list[str]:
    if why := why_not_kept(step.facts.version):
        return [f"{why}: {_RESTORE}"]
    image = need(step.facts.core).target_image
    if json.loads((await host.run(script("images.sh"), image)).text or "[]"):
        return []
    return [f"{image}, whose km keeps what was written since, is not on the host any more: {_RESTORE}"]


def _not_v2s(host: Host, folder: str) -> DatabaseError:
    return DatabaseError(
        "an earlier way back had begun to replace Core's database, and no dump of what the new version had written is "
        "there: the new Core is not started on what is left",
        host=host.spec.name,
        left="Core is stopped",
        cure=f"finish the way back by hand: sudo sh {folder}/restore.sh",
    )


async def _require_stopped(host: Host, core: str) -> None:
    now = (await inspect(host, core)).get(core)
    if now is not None and now.running:
        raise HostError(
            f"Core ({core}) runs: its database is not replaced under it",
            host=host.spec.name,
            cure="who started it? Stop it (`docker stop`), then retry",
        )
