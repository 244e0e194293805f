"""Agents in containers of any Compose project other than Core's: survey, backup, staging, switch and restore.

The old image is held by a created container, because Komodo removes unused images every day. A container keeps its
image when it is restarted, so compose re-creates it. v2 images: v2.3.2:bin/periphery/aio.Dockerfile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from activities.core.access import SHORT, facts_in, inspect, job, parse_time, script
from activities.core.files import not_staged, read_project, staged_name, staged_words
from activities.core.upgrade import staged_digest
from activities.heartbeat import invalidate
from activities.server.auto_rollback import refuse_if_rolled_back, time_of
from activities.server.backup import Layout, back_up
from activities.server.containers import read_container
from activities.server.kinds.container import AgentContainer, container_of
from activities.server.preflight import Machine
from activities.server.survey import READ, facts_of
from hosts.exec.script import Script, parse
from hosts.host import Host
from komodo import logs
from komodo.agent.container import container_facts
from komodo.agent.survey import one
from komodo.core.containers import IMAGE_PIN, compose_command
from komodo.core.image_digests import approved_reference, local_digests
from komodo.files.edit_set import ProjectEdit, ProjectFiles, digest, edit_project
from komodo.public_key import PLACEHOLDER, validate
from komodo.releases import printed_version
from model.errors import AgentFailed, ArtifactError, CommandFailed, EditRefused, HostError, PlanChanged
from model.facts import Backup, ContainerFacts, ServerFacts, ServiceFacts
from model.fleet.spec import slug
from model.steps import (
    SWITCH,
    Recheck,
    RecheckServer,
    Restored,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    SurveyServer,
    Switched,
    SwitchServer,
)

_STOP_LIMIT = timedelta(seconds=30)
"""Docker kills a container ten seconds after it was asked to stop, unless `stop_grace_period` says otherwise."""


class ComposeAgent(AgentContainer):
    """Agents in Compose projects of their own, or next to other services. Implements AgentKind."""

    async def survey(self, host: Host, message: SurveyServer, machine: Machine) -> ServerFacts:
        """The container, its project's files, its settings, and the Docker engine. Raises HostError."""
        if machine.agent is None:
            raise HostError("no container on this host runs Komodo's agent", host=host.spec.name)
        return container_facts(await read_container(host, message, machine, machine.agent.id))

    async def recheck(self, host: Host, step: RecheckServer) -> Recheck:
        """What differs from the plan: files, the container, its image. Raises HostError."""
        facts, agent = step.facts, container_of(step.facts)
        wanted = {edit.path: edit.base_sha256 for edit in reversed(facts.edits)}
        read = Script.load("komodo.sh", "server/file_facts.sh", *wanted)
        seen = facts_of(parse((await host.run(read, timeout=READ)).text))
        drift = [f"{facts.name}: {path} is gone" for path in wanted if path not in seen]
        drift += [
            f"{facts.name}: {path} was changed since the plan was made"
            for path, sha256 in wanted.items()
            if path in seen and seen[path].sha256 != sha256
        ]
        name = agent.service.container
        now = (await inspect(host, name)).get(name)
        if now is None or not now.running:
            drift.append(f"{facts.name}: the container {name} {'is gone' if now is None else 'does not run any more'}")
        elif now.image_id != agent.service.image_id:
            drift.append(f"{facts.name}: {name} runs another image than when the plan was made ({now.image})")
        if step.staged:
            drift += await _drifted_image(host, facts.name, agent.service)
        return Recheck(drift=tuple(drift))

    async def back_up(self, host: Host, step: ServerStep) -> Backup:
        """Compose, env and config files into the run folder, with restore.sh. Raises PlanChanged, HostError."""
        agent = container_of(step.facts)
        files = await read_project(host, agent.project, agent.services)
        return await back_up(host, step, _layout(step, agent, files))

    async def stage(self, host: Host, step: ServerStep) -> StagedAgent:
        """Pull the target's image, pin both images, let compose validate the edited files, and run the image once.

        Raises ArtifactError, DownloadFailed, EditRefused, PlanChanged, HostError.
        """
        agent = container_of(step.facts)
        image, project = agent.service.target_image, agent.project
        planned = await _Planned.read(host, step, agent)
        args = ["pull", image]
        for what, reference in (("old", agent.service.image_id), ("new", image)):
            args += ["pin", _image_pin(step, what), reference]
        data = b""
        edited = [file for file in planned.edit.files if file.changed]
        for file in edited:
            content = file.after.encode()
            args += ["part", str(len(content)), staged_name(file.path), file.result_sha256]
            data += content
        args += ["compose", *staged_words(step.folder, project, [file.path for file in edited])]
        where = {"folder": step.folder, "directory": project.directory, "record": "image-pins"}
        stage = script("core/stage_core.sh", *args, **where)
        try:
            done = await job(host, step, "stage", stage, data=data, timeout=step.timing.download)
        except CommandFailed as error:
            raise not_staged(error, (image,)) from None
        images = facts_in(done).get("image", [])
        if image not in images:
            raise EditRefused(
                f"with the edited files compose would start {', '.join(sorted(images))}, not {image}",
                host=host.spec.name,
                hint="does another file or variable set the image? Set it in the compose file, then plan again",
            )
        await _prove_image(host, image, step.target)
        return StagedAgent(
            path="",
            sha256="",
            version=step.target,
            source=f"the image {image}",
            image=image,
            image_digest=await staged_digest(host, agent.service),
        )

    async def switch(self, host: Host, step: SwitchServer) -> Switched:
        """Edited files in place, then the service is re-created; proven by the container's own log.

        Raises PlanChanged (nothing was changed), AgentNotStarted, ConfigNotLoaded (both: restore it), DiskFull,
        HostError. A repeated call attaches to the running job, or finds what is done.
        """
        agent, key = container_of(step.facts), validate(step.key)
        planned = await _Planned.read(host, step, agent)
        args: list[str] = []
        data = b""
        for path, (base, after) in planned.with_key(key).items():
            content = after.encode()
            args += ["part", str(len(content)), path, digest(base), digest(after)]
            data += content
        switch = script(
            "server/switch_container.sh",
            *args,
            "compose",
            *compose_command(agent.project),
            mark=f"{step.folder}/switch-{step.op.attempt}",
            directory=agent.project.directory,
            service=agent.service.service,
            container=agent.service.container,
            auto_rollback=str(round(step.server.auto_rollback.total_seconds())),
            image=agent.service.target_image,
            approved=approved_reference(agent.service),
        )
        done = await job(host, step, SWITCH, switch, data=data, timeout=SHORT + step.timing.agent_ready)
        output = facts_in(done)
        started = parse_time(output["started"][0])
        try:
            switched = await self.prove(host, step, started, key)
        except AgentFailed:
            if step.server.auto_rollback:
                await refuse_if_rolled_back(host, step)
            raise
        return replace(
            switched,
            port_downtime=_downtime(switched.lines, started),
            lines=tuple(line for line in switched.lines if "Logged in to" not in line),
            auto_rollback_at=time_of(output.get("auto_rollback_at", [])),
        )

    async def restore(self, host: Host, step: SavedServerStep) -> Restored:
        """Runs the run folder's restore.sh, the same that a person would run, and proves that the old image runs.

        Harmless when nothing was switched, and when it is repeated. Raises AgentNotStarted, CommandFailed, HostError.
        """
        folder, change = step.backup.folder, step.op.change
        # A switch that still runs would undo the undo, one of an earlier attempt too.
        before = (*step.op.ids(SWITCH), *step.op.ids("restore")[:-1])
        await invalidate(host, folder, *before, change=change, patience=_STOP_LIMIT)
        run = Script.load("komodo.sh", "server/run_server_restore.sh", folder=folder)
        agent = container_of(step.facts).service
        for again in (True, False):
            await job(host, step, "restore", run)
            now = (await inspect(host, agent.container)).get(agent.container)
            if not again or (now is not None and now.image_id == agent.image_id):
                break
            # Restored by this attempt before, and switched again since by a later one.
            await invalidate(host, folder, step.op.id("restore"), change=change)
        return await self.prove_old(host, step)


@dataclass(frozen=True, slots=True)
class _Planned:
    """The approved edits, computed again from the texts that they were planned from."""

    files: ProjectFiles
    """As they were when the plan was made."""
    edit: ProjectEdit
    live: dict[str, str]
    pins: bool
    target: str
    host: str

    @classmethod
    async def read(cls, host: Host, step: ServerStep, agent: ContainerFacts) -> _Planned:
        """From the live files, or where one is edited already from its saved copy. Raises PlanChanged, HostError."""
        edits = step.facts.edits
        found = await read_project(host, agent.project, agent.services)
        live = {**found.envs, **found.compose}
        files = found
        for path, base in {edit.path: edit.base_sha256 for edit in reversed(edits)}.items():
            if path not in live or digest(live[path]) != base:
                files = files.with_text(path, await _saved_text(host, step, path, base))
        pins = any(edit.with_key for edit in edits)
        edit = edit_project(files, target=step.target, key=PLACEHOLDER if pins else "")
        now = {(e.path, e.base_sha256, e.result_sha256) for e in edit.planned()}
        if now != {(e.path, e.base_sha256, e.result_sha256) for e in edits}:
            raise _changed(host.spec.name, ", ".join(sorted({e.path for e in edits})) or agent.project.files[0])
        return cls(files=files, edit=edit, live=live, pins=pins, target=step.target, host=host.spec.name)

    def with_key(self, key: str) -> dict[str, tuple[str, str]]:
        """Path → text before and after all edits. Raises PlanChanged where a live file is neither of them."""
        edit = edit_project(self.files, target=self.target, key=key) if self.pins else self.edit
        after = {file.path: (file.before, file.after) for file in edit.files if file.changed}
        if edit.pin is not None:
            before = {**self.files.envs, **self.files.compose}[edit.pin.path]
            after[edit.pin.path] = before, edit.pin.after
        for path, texts in after.items():
            if self.live.get(path) not in texts:
                raise _changed(self.host, path)
        return after


async def _saved_text(host: Host, step: ServerStep, path: str, sha256: str) -> str:
    saved = step.backup.files if isinstance(step, SavedServerStep) else ()
    for copy in saved:
        if copy.path == path and copy.sha256 == sha256:
            file = await host.read(copy.saved_as)
            if file is not None and file.sha256 == sha256:
                return file.data.decode()
    raise _changed(host.spec.name, path)


def _changed(host: str, path: str) -> PlanChanged:
    return PlanChanged(
        f"{path} is no longer what was planned and approved",
        host=host,
        residue="nothing was changed by this step",
        hint="check what was changed there, then plan and approve again",
    )


def _layout(step: ServerStep, agent: ContainerFacts, files: ProjectFiles) -> Layout:
    """Every file of the project, and the config files that are mounted into the container."""
    project, service = agent.project, agent.service
    wanted = [("compose", path) for path in files.compose]
    wanted += [("env", path) for path in files.envs]
    wanted += [("config", path) for path in step.facts.config_paths]
    words = compose_command(project)
    listed = [
        ("container", service.container),
        ("service", service.service),
        ("compose", " ".join(project.command)),
        ("project", project.name),
        ("directory", project.directory),
        *(("compose_file", path) for path in project.files),
        ("env_file", project.env_file),
        ("project_directory", project.directory if "--project-directory" in words else ""),
        ("image", service.image),
        ("image_id", service.image_id),
    ]
    command = " ".join((*words, "up -d --no-deps", service.service))
    return Layout(
        wanted=tuple(wanted),
        guide_copies=tuple(dict.fromkeys(edit.path for edit in step.facts.edits)),
        listed=tuple(listed),
        script="server/restore_container.sh",
        by_hand=f"copy each file back to its place with the mode and owner above,\n"
        f"docker tag {service.image_id} {service.image}, then in {project.directory}:\n{command}",
    )


def _image_pin(step: ServerStep, what: str) -> str:
    """Name of the created, never started container that holds an image: `old` or `new`."""
    return f"{IMAGE_PIN}{step.op.change.lower()}-{slug(step.server.name)}-{what}"


async def _prove_image(host: Host, image: str, target: str) -> None:
    """It runs on this host in the target's version, and its Docker CLI reaches the host's engine."""
    prove = Script.load("komodo.sh", "server/prove_image.sh", image=image)
    output = parse((await host.run(prove, timeout=SHORT)).text)
    version, client = one(output, "version"), one(output, "client")
    untouched = "the old version runs, nothing was changed"
    if printed_version(version) != target:
        raise ArtifactError(
            f"the image {image} does not run here as {target}: {version}",
            host=host.spec.name,
            residue=untouched,
            hint=f"on that host: docker run --rm --entrypoint periphery {image} --version",
        )
    if client:
        raise ArtifactError(
            f"the Docker CLI in {image} cannot speak to this host's engine: {client}",
            host=host.spec.name,
            residue=untouched,
            hint="upgrade Docker on that host, or install the agent under systemd, where it uses the host's own docker",
        )


async def _drifted_image(host: Host, server: str, service: ServiceFacts) -> list[str]:
    inspected = local_digests((await host.run(script("core/inspect_images.sh", service.target_image))).text)
    if not inspected:
        return [f"{server}: the image {service.target_image} is gone"]
    present = next(iter(inspected.values()))
    if service.target_digest and service.target_digest not in present:
        now = ", ".join(present) or "one without a digest"
        return [f"{server}: the image {service.target_image} is not {service.target_digest} any more: it is {now}"]
    return []


def _downtime(lines: tuple[str, ...], started: datetime) -> timedelta:
    """From the start of the re-creation until the new agent listened, by the host's clock."""
    for line in lines:
        if logs.is_listening(line):
            try:
                return max(parse_time(line) - started, timedelta())
            except CommandFailed:
                return timedelta()
    return timedelta()
