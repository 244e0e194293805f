"""Core's upgrade: stage while the old version runs, stop, write the files, start, read the key."""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import activity

from activities.core.access import (
    container,
    core_api,
    facts_in,
    inspect,
    job,
    log_of,
    parse_time,
    script,
    until,
)
from activities.core.backup import image_pin
from activities.core.drift import files_without_edit
from activities.core.files import (
    not_staged,
    planned_files,
    read_and_edit,
    require_planned,
    staged_name,
    staged_words,
)
from activities.core.readiness import wait_for_core
from activities.fleet.manifest import DUMP_RECORD
from activities.heartbeat import invalidate
from hosts.host import Host
from hosts.ssh.pool import Hosts
from komodo import logs
from komodo.core.containers import compose_command
from komodo.core.image_digests import approved_reference, local_digests
from komodo.public_key import from_pem, validate
from model.errors import (
    ArtifactError,
    CommandFailed,
    CoreUnreachable,
    EditRefused,
    HostError,
    KeyRejected,
    PlanChanged,
)
from model.facts import ServiceFacts
from model.serialization import to_json
from model.steps import CoreKey, CoreStarted, CoreStep, Done, ReadCoreKey, StagedCore, WriteCoreFiles

_KEY = timedelta(minutes=1)
"""Core answered shortly before. For this long it may be too busy to report its key, as when all its servers connect at
once.
"""


class Core:
    """Steps of Core's upgrade. A repeated step finds its own mark."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def stage_core(self, step: CoreStep) -> StagedCore:
        """Pull the target's images, pin both versions, stage the edited files and let compose validate them."""
        host = await self._hosts.get(step.fleet.core.host)
        facts = step.facts
        edits = await read_and_edit(host, facts, step.fleet.target, step.fleet.core.keys_mount)
        require_planned(host.spec.name, edits, facts)
        services = [s for s in (facts.core, facts.agent) if s]
        targets = tuple(dict.fromkeys(s.target_image for s in services if s.target_image))
        args: list[str] = []
        for image in targets:
            args += ["pull", image]
        for kind, service in (("core", facts.core), ("agent", facts.agent)):
            if service:
                args += ["pin", image_pin(step, f"{kind}-old"), service.image_id]
                args += ["pin", image_pin(step, f"{kind}-new"), service.target_image]
        data = b""
        for edit in edits.files:
            content = edit.after.encode()
            args += ["part", str(len(content)), staged_name(edit.path), edit.result_sha256]
            data += content
        args += ["compose", *staged_words(step.folder, facts.project, [e.path for e in edits.files])]
        stage = script("core/stage_core.sh", *args, folder=step.folder, directory=facts.project.directory)
        try:
            done = await job(host, step, "stage_core", stage, data=data, timeout=step.fleet.timing.download)
        except CommandFailed as error:
            raise not_staged(error, targets) from None
        output = facts_in(done)
        images = set(output.get("image", []))
        if not set(targets) <= images:
            raise EditRefused(
                f"with the edited files compose would start {', '.join(sorted(images))}, not {', '.join(targets)}",
                host=host.spec.name,
                hint="does another file or variable set the image? Name all files in [core] compose_files, env_file",
            )
        digests = tuple([await staged_digest(host, s) for s in services if s.target_image])
        return StagedCore(
            images=tuple(s.target_image for s in services if s.target_image),
            digests=digests,
            image_pins=tuple(output.get("image_pin", [])),
        )

    @activity.defn
    async def stop_core(self, step: CoreStep) -> Done:
        """Stop Core's service only, and prove that it stopped."""
        host = await self._hosts.get(step.fleet.core.host)
        service = step.facts.core
        if step.op.earlier_attempts:
            # The workflow of these jobs may have been terminated. A job that starts Core must not run at the same time
            # as this one.
            await invalidate(host, step.folder, *step.op.earlier_attempts, change=step.op.change)
        stop = script(
            "core/stop_core.sh",
            *compose_command(step.facts.project),
            folder=step.folder,
            directory=step.facts.project.directory,
            service=service.service,
        )
        done = await job(host, step, "stop_core", stop)
        now = (await inspect(host, service.container)).get(service.container)
        if now is not None and now.running:
            raise HostError(
                f"Core ({service.container}) runs although compose stopped it",
                host=host.spec.name,
                hint="something starts it again (a bot?); stop that, then retry",
            )
        return Done(facts=(f"stopped {facts_in(done)['stopped'][0]}",))

    @activity.defn
    async def write_core_files(self, step: WriteCoreFiles) -> Done:
        """Install the staged files and a root-only folder for Core's keys; with `staged_key`, also the pair of that
        key.

        A key pair that lies inside of Core's container is copied into that folder, and into the run folder.

        Raises PlanChanged, DiskFull.
        """
        host = await self._hosts.get(step.fleet.core.host)
        if missing := await files_without_edit(host, step):
            raise PlanChanged(
                f"{', '.join(missing)}: without the planned edits, which others make ([core] files)",
                host=host.spec.name,
                residue="nothing was changed by this step",
                hint="apply the patch of `plan --patch`, then start again",
            )
        args: list[str] = []
        for edit in planned_files(step.facts):
            args += [staged_name(edit.path), edit.path, edit.base_sha256, edit.result_sha256]
        # Staged in advance where the key is known before v2 has run.
        pair = "yes" if step.staged_key and not step.facts.public_key else "no"
        # The manifest must contain what a rollback without Temporal's history needs before the new Core can write
        # anything.
        write = script(
            "core/write_core_files.sh",
            *args,
            folder=step.folder,
            keys=step.facts.keys_dir,
            pair=pair,
            inside=step.facts.core.container if step.facts.core.keys_to else "",
            record=f"{step.folder}/{DUMP_RECORD}",
        )
        done = await job(host, step, "write_core_files", write, data=to_json(step.final_dump).encode())
        output = facts_in(done)
        written = tuple(f"wrote {p}" for p in output.get("written", []))
        return Done(facts=written + tuple(f"made {p}, root only" for p in output.get("made", [])))

    @activity.defn
    async def start_core(self, step: CoreStep) -> CoreStarted:
        """Run `up -d` for Core alone, then wait until it answers in the target version and works.

        Raises CommandFailed with Core's own last lines when it does not come up in `timing.core_ready`.
        """
        host = await self._hosts.get(step.fleet.core.host)
        service = step.facts.core
        try:
            start = script(
                "core/start_core.sh",
                *compose_command(step.facts.project),
                folder=step.folder,
                directory=step.facts.project.directory,
                service=service.service,
                database=step.facts.database.container,
                image=service.target_image,
                approved=approved_reference(service),
            )
            done = await job(host, step, "start_core", start)
        except CommandFailed as error:
            raise CommandFailed(
                f"compose did not start Core: {error.what}",
                code=error.code,
                tail=error.tail,
                host=host.spec.name,
                residue="the new files are in place, Core is stopped",
                hint="correct the cause and retry, or roll back",
            ) from None
        output = facts_in(done)
        started = parse_time(output["started"][0])
        await wait_for_core(self._hosts, host, step, step.fleet.target, started)
        await require_approved_image(host, service, (await container(host, service.container)).image_id)
        return CoreStarted(
            version=step.fleet.target,
            started_at=started,
            downtime=await _downtime(host, output.get("stopped", []), started),
        )

    @activity.defn
    async def read_core_key(self, step: ReadCoreKey) -> CoreKey:
        """Core's public key from its API, its log and `core.pub`: all sources that exist must agree. `core.key` is
        saved.

        Raises KeyRejected when they differ, when there is none, and when it is not the expected one or not the old one.
        """
        host = await self._hosts.get(step.fleet.core.host)
        service = step.facts.core
        core = await container(host, service.container)
        found = await self._reported_key(step)
        found[f"log of {core.name}"] = logs.parse_run(logs.last_run(await log_of(host, core.name))).public_key
        private = core.host_path("/config/keys/core.key")
        public = await host.read(private.removesuffix(".key") + ".pub") if private else None
        if public is not None:
            found[public.path] = from_pem(public.data.decode(errors="replace"))
        keys = {source: validate(key) for source, key in found.items() if key}
        if len(set(keys.values())) != 1:
            listed = "; ".join(f"{source}: {key}" for source, key in keys.items()) or "no source has one"
            raise KeyRejected(
                f"Core's public key is uncertain: {listed}",
                host=host.spec.name,
                residue="Core runs in the new version; no agent was touched",
                hint="if core.pub does not belong to core.key, remove the stale core.pub, then retry",
            )
        sources = tuple(keys)
        public_key = next(iter(keys.values()))
        if step.expected and step.expected != public_key:
            raise KeyRejected(
                f"Core runs with the key {public_key}, not with {step.expected}, which was created for it in advance",
                host=host.spec.name,
                residue="Core runs in the new version; agents switched with it pin the other key and refuse it",
                hint="is KOMODO_PRIVATE_KEY set, or was core.key replaced? Correct that and retry, or roll back",
            )
        if step.facts.public_key and step.facts.public_key != public_key:
            raise KeyRejected(
                f"Core runs with the key {public_key}; before its upgrade it had {step.facts.public_key}",
                host=host.spec.name,
                residue="Core runs in the new version; agents that pinned the old key refuse it",
                hint="were its keys rotated meanwhile? Then roll back and plan again; else restore core.key and retry",
            )
        if private:
            copy = script("core/read_core_key.sh", folder=step.folder, key=private)
            output = facts_in(await job(host, step, "read_core_key", copy))
            sources += tuple(f"core.key saved as {p}" for p in output.get("saved", []))
        return CoreKey(public_key=public_key, sources=sources)

    async def _reported_key(self, step: CoreStep) -> dict[str, str]:
        """The API's answer; nothing without an API key. A single answer that does not arrive in time is not yet a
        failure.
        """
        timing, found = step.fleet.timing, dict[str, str]()
        late: CoreUnreachable | None = None

        async def reported() -> bool:
            nonlocal late
            try:
                async with core_api(self._hosts, step.fleet.core, step.facts) as api:
                    if api.has_key:
                        found["API GetCoreInfo"] = (await api.core_info()).public_key
            except CoreUnreachable as error:
                late = error
                return False
            return True

        if not await until(reported, limit=min(timing.core_ready, _KEY), poll=timing.poll) and late:
            raise late
        return found


async def _downtime(host: Host, stopped: list[str], started: datetime) -> timedelta:
    now = await host.clock()
    return max(timedelta(0), now - (parse_time(stopped[0]) if stopped else started))


async def staged_digest(host: Host, service: ServiceFacts) -> str:
    """The digest of a service's pulled image. Raises ArtifactError if it is gone, or is not the planned one."""
    image = service.target_image
    inspected = local_digests((await host.run(script("core/inspect_images.sh", image))).text)
    present = next(iter(inspected.values()), ())
    if not present:
        raise ArtifactError(f"docker has no digest of {image} although it pulled it", host=host.spec.name)
    if service.target_digest and service.target_digest not in present:
        raise ArtifactError(
            f"{image} was pulled as {', '.join(present)}, but the plan has {service.target_digest}",
            host=host.spec.name,
            residue="the old version runs, nothing was changed",
            hint="the tag was moved since the plan was made, or a proxy serves another image: `komodo-upgrade stop`, "
            "compare both, then start again",
        )
    return service.target_digest or present[0]


async def require_approved_image(host: Host, service: ServiceFacts, image_id: str) -> None:
    """Compare the image that runs with the approved digest. Raises ArtifactError."""
    if not service.target_digest:
        return
    inspected = local_digests((await host.run(script("core/inspect_images.sh", image_id))).text)
    if service.target_digest not in inspected.get(image_id, ()):
        raise ArtifactError(
            f"{service.container} runs {image_id} ({', '.join(inspected.get(image_id, ())) or 'no digest'}), "
            f"not the approved {service.target_digest}",
            host=host.spec.name,
            residue=f"{service.container} runs in an image that nobody approved",
            hint="something else pulls or re-creates it (watchtower, a bot): stop that, then retry or roll back",
        )
