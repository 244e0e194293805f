"""Core's switch: stage while the old version runs, stop, write, start, read the key, bring its own agent along."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from temporalio import activity

from activities.backup import keeper
from activities.core_access import (
    compose_words,
    container,
    core_api,
    database_of,
    facts_in,
    folder_of,
    inspect,
    job,
    log_of,
    moment,
    need,
    project_of,
    script,
    until,
)
from activities.core_edits import (
    FileEdit,
    digest,
    interpolation_file,
    planned_files,
    planned_pin,
    read_and_compute,
    read_texts,
    require_planned,
    service_env_files,
    staged_name,
)
from activities.core_proof import agent_proof, wait_for_core
from activities.manifests import DUMP_RECORD
from activities.signs import void
from hosts.host import Host
from hosts.pool import Hosts
from komodo import logs
from komodo.compose import pin_agent_key
from komodo.environment import values
from komodo.project import compose_command
from komodo.public_key import PLACEHOLDER, from_pem, validate
from model.errors import (
    ArtifactError,
    CommandFailed,
    CoreUnreachable,
    DownloadFailed,
    EditRefused,
    HostError,
    KeyRejected,
    PlanChanged,
    UpgradeError,
)
from model.facts import PlannedEdit
from model.plain import to_json
from model.steps import CoreKey, CoreStarted, CoreStep, Done, StagedCore, Switched

_NOT_PULLED, _NOT_ACCEPTED = 77, 76
_KEY = timedelta(minutes=1)
"""Core worked a moment ago: so long it may be too busy to tell its key, as when all its servers connect at once."""


class Core:
    """Steps of Core's upgrade; each finds its own mark when it is repeated."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def stage_core(self, step: CoreStep) -> StagedCore:
        """Pulls the target's images, holds both versions, lays the edited files down and lets compose judge them."""
        host = await self._hosts.get(step.fleet.core.host)
        facts = step.facts
        edits = await read_and_compute(host, facts, step.fleet.target, step.fleet.core.keys_mount)
        require_planned(host.spec.name, edits, facts)
        services = [s for s in (facts.core, facts.agent) if s]
        targets = tuple(dict.fromkeys(s.target_image for s in services if s.target_image))
        args: list[str] = []
        for image in targets:
            args += ["pull", image]
        for kind, service in (("core", facts.core), ("agent", facts.agent)):
            if service:
                args += ["keep", keeper(step, f"{kind}-old"), service.image_id]
                args += ["keep", keeper(step, f"{kind}-new"), service.target_image]
        data = b""
        for edit in edits.files:
            content = edit.after.encode()
            args += ["part", str(len(content)), staged_name(edit.path), edit.result_sha256]
            data += content
        args += ["--", *_staged_words(step, edits.files)]
        folder, directory = folder_of(step), project_of(facts).directory
        try:
            done = await job(
                host, step, "stage_core", "stage_core.sh", folder, directory, *args, data=data,
                timeout=step.fleet.clocks.download,
            )  # fmt: skip
        except CommandFailed as error:
            raise _not_staged(error, targets) from None
        said = facts_in(done)
        images = set(said.get("image", []))
        if not set(targets) <= images:
            raise EditRefused(
                f"with the edited files compose would start {', '.join(sorted(images))}, not {', '.join(targets)}",
                host=host.spec.name,
                cure="does another file or variable set the image? Name all files in [core] compose_files, env_file",
            )
        return StagedCore(images=targets, digests=await _digests(host, targets), keepers=tuple(said.get("keeper", [])))

    @activity.defn
    async def stop_core(self, step: CoreStep) -> Done:
        """Stops Core's service only, and proves it."""
        host = await self._hosts.get(step.fleet.core.host)
        service = need(step.facts.core)
        words = compose_words(step.facts)
        directory = project_of(step.facts).directory
        if step.op.earlier_attempts:
            # Their workflow may have been terminated: a job that starts Core must not run beside this one.
            await void(host, folder_of(step), *step.op.earlier_attempts, change=step.op.change)
        done = await job(host, step, "stop_core", "stop_core.sh", folder_of(step), directory, service.service, *words)
        now = (await inspect(host, service.container)).get(service.container)
        if now is not None and now.running:
            raise HostError(
                f"Core ({service.container}) runs although compose stopped it",
                host=host.spec.name,
                cure="something starts it again (a bot?); stop that, then retry",
            )
        return Done(facts=(f"stopped {facts_in(done)['stopped'][0]}",))

    @activity.defn
    async def write_core_files(self, step: CoreStep) -> Done:
        """The staged files in place, and a root-only folder for Core's keys; with `step.key`, the pair of that key.

        Raises PlanChanged, DiskFull.
        """
        host = await self._hosts.get(step.fleet.core.host)
        args: list[str] = []
        for edit in planned_files(step.facts):
            args += [staged_name(edit.path), edit.path, edit.base_sha256, edit.result_sha256]
        # Made beforehand where it is known before v2 has run.
        pair = "yes" if step.key and not step.facts.public_key else "no"
        # What leads back without any history is written down before there is something to lead back from.
        record, data = ("", b"") if step.dump is None else (DUMP_RECORD, to_json(step.dump).encode())
        folder = folder_of(step)
        words = (folder, step.facts.keys_dir, pair, record and f"{folder}/{record}")
        done = await job(host, step, "write_core_files", "write_core_files.sh", *words, *args, data=data)
        said = facts_in(done)
        written = tuple(f"wrote {p}" for p in said.get("written", []))
        return Done(facts=written + tuple(f"made {p}, root only" for p in said.get("made", [])))

    @activity.defn
    async def start_core(self, step: CoreStep) -> CoreStarted:
        """`up -d` of Core alone, then waits until it answers in the target version and does its work.

        Raises CommandFailed with Core's own last lines when it does not come up in `clocks.core_ready`.
        """
        host = await self._hosts.get(step.fleet.core.host)
        service = need(step.facts.core)
        try:
            done = await job(
                host,
                step,
                "start_core",
                "start_core.sh",
                folder_of(step),
                project_of(step.facts).directory,
                service.service,
                database_of(step.facts).container,
                *compose_words(step.facts),
            )
        except CommandFailed as error:
            raise CommandFailed(
                f"compose did not start Core: {error.what}",
                code=error.code,
                tail=error.tail,
                host=host.spec.name,
                left="the new files are in place, Core is stopped",
                cure="correct what it says and retry, or roll back",
            ) from None
        said = facts_in(done)
        started = moment(said["started"][0])
        await wait_for_core(self._hosts, host, step, step.fleet.target, started)
        return CoreStarted(
            version=step.fleet.target, started_at=started, dark=await _dark(host, said.get("stopped", []), started)
        )

    @activity.defn
    async def read_core_key(self, step: CoreStep) -> CoreKey:
        """Core's public key from its API, its log and `core.pub`: all that exist must agree. `core.key` is saved.

        Raises KeyRejected when they differ or none has it, and when it is not `step.key`, made beforehand.
        """
        host = await self._hosts.get(step.fleet.core.host)
        service = need(step.facts.core)
        core = await container(host, service.container)
        found = await self._told_key(step)
        found[f"log of {core.name}"] = logs.parse_run(logs.last_run(await log_of(host, core.name))).public_key
        private = core.host_path("/config/keys/core.key")
        public = await host.read(private.removesuffix(".key") + ".pub") if private else None
        if public is not None:
            found[public.path] = from_pem(public.data.decode(errors="replace"))
        keys = {source: validate(key) for source, key in found.items() if key}
        if len(set(keys.values())) != 1:
            listed = "; ".join(f"{source}: {key}" for source, key in keys.items()) or "no source has one"
            raise KeyRejected(
                f"Core's public key is not certain: {listed}",
                host=host.spec.name,
                left="Core runs in the new version; no agent was touched",
                cure="a core.pub beside a core.key of another origin? Remove the stale core.pub, then retry",
            )
        sources = tuple(keys)
        public_key = next(iter(keys.values()))
        if step.key and step.key != public_key:
            raise KeyRejected(
                f"Core runs with the key {public_key}, not with {step.key}, which was made for it beforehand",
                host=host.spec.name,
                left="Core runs in the new version; agents that were switched with it pin the other key and refuse it",
                cure="is KOMODO_PRIVATE_KEY set, or was core.key exchanged? Mend that and retry, or roll back",
            )
        if private:
            said = facts_in(await job(host, step, "read_core_key", "read_core_key.sh", folder_of(step), private))
            sources += tuple(f"core.key saved as {p}" for p in said.get("saved", []))
        return CoreKey(public_key=public_key, sources=sources)

    async def _told_key(self, step: CoreStep) -> dict[str, str]:
        """What the API says; nothing without an API key. One answer that does not come in time says nothing yet."""
        clocks, found = step.fleet.clocks, dict[str, str]()
        late: CoreUnreachable | None = None

        async def told() -> bool:
            nonlocal late
            try:
                async with core_api(self._hosts, step.fleet.core, step.facts) as api:
                    if api.has_key:
                        found["API GetCoreInfo"] = (await api.core_info()).public_key
            except CoreUnreachable as error:
                late = error
                return False
            return True

        if not await until(told, limit=min(clocks.core_ready, _KEY), poll=clocks.poll) and late:
            raise late
        return found

    @activity.defn
    async def switch_core_agent(self, step: CoreStep) -> Switched:
        """Pins Core's key in the project's periphery, re-creates it, and reads the proof in its own log.

        Raises AgentNotStarted, ConfigNotLoaded, PlanChanged.
        """
        host = await self._hosts.get(step.fleet.core.host)
        agent = need(step.facts.agent)
        key = validate(step.key)
        planned = planned_pin(step.facts)
        words = (folder_of(step), project_of(step.facts).directory, agent.service)
        if planned is None:
            args: tuple[str, ...] = (*words, "", "", "", "0")
            data = b""
        else:
            before, after = await _pinned(host, step, planned, key)
            data = after.encode()
            args = (*words, planned.path, digest(before), digest(after), str(len(data)))
        done = await job(
            host, step, "switch_core_agent", "switch_core_agent.sh", *args, *compose_words(step.facts), data=data
        )
        started = moment(facts_in(done)["started"][0])
        return await agent_proof(host, step, agent, key, started)


async def _pinned(host: Host, step: CoreStep, planned: PlannedEdit, key: str) -> tuple[str, str]:
    """The compose file before and with the key; equal where it holds the key already. A repeated step finds it written.

    The edit is made again from the very text that was planned: the live file, or once that is edited the staged one.
    """
    agent = need(step.facts.agent)
    live = (await read_texts(host, (planned.path,)))[planned.path]
    before = await _planned_base(host, step, planned, live)
    project = project_of(step.facts)
    known: dict[str, str] = {}
    for path in service_env_files(await read_texts(host, project.files), project, step.facts):
        file = await host.read(path)
        known |= values(file.data.decode(errors="replace")) if file else {}
    if before is not None:
        trial = pin_agent_key(before, service=agent.service, key=PLACEHOLDER, env=known).text
        after = pin_agent_key(before, service=agent.service, key=key, env=known).text
        if digest(trial) == planned.result_sha256 and live in (before, after):
            return before, after
    raise PlanChanged(
        f"{planned.path} is not what was planned and approved any more",
        host=host.spec.name,
        left="Core runs in the new version; its own agent still in the old one",
        cure="look at what was changed there, then retry",
    )


async def _planned_base(host: Host, step: CoreStep, planned: PlannedEdit, live: str) -> str | None:
    if digest(live) == planned.base_sha256:
        return live
    saved = [f.saved_as for f in step.backup.files if f.path == planned.path] if step.backup else []
    for path in (f"{folder_of(step)}/staged/{staged_name(planned.path)}", *saved):
        file = await host.read(path)
        if file is not None and file.sha256 == planned.base_sha256:
            return file.data.decode()
    return None


async def _dark(host: Host, stopped: list[str], started: datetime) -> timedelta:
    now = await host.clock()
    return max(timedelta(0), now - (moment(stopped[0]) if stopped else started))


def _staged_words(step: CoreStep, files: tuple[FileEdit, ...]) -> tuple[str, ...]:
    """The compose command with the staged files in place of the edited ones."""
    folder = f"{folder_of(step)}/staged"
    staged = {f.path: f"{folder}/{staged_name(f.path)}" for f in files}
    project = project_of(step.facts)
    env_file = interpolation_file(project)
    return compose_command(
        project, files=[staged.get(p, p) for p in project.files], env_file=staged.get(env_file, project.env_file)
    )


def _not_staged(error: CommandFailed, targets: tuple[str, ...]) -> UpgradeError:
    if error.code == _NOT_PULLED:
        return DownloadFailed(
            f"an image could not be pulled ({', '.join(targets)}): {error.tail or error.what}",
            host=error.host,
            left="the old version runs, nothing was changed",
            cure="`docker pull` the same on Core's host: registry down, rate limit, proxy, or no such version?",
        )
    if error.code == _NOT_ACCEPTED:
        return EditRefused(
            f"compose does not accept the edited files: {error.tail or error.what}",
            host=error.host,
            left="the old version runs, nothing was changed",
            cure="please report this with the file (without secrets); meanwhile edit by hand and plan again",
        )
    return error


async def _digests(host: Host, images: tuple[str, ...]) -> tuple[str, ...]:
    done = await host.run(script("images.sh"), *images)
    entries = json.loads(done.text or "[]")
    if len(entries) < len(images):
        raise ArtifactError(f"docker does not have {', '.join(images)} although it pulled them", host=host.spec.name)
    return tuple(str((e.get("RepoDigests") or [e.get("Id", "")])[0]) for e in entries)
