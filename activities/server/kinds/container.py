"""Agents in containers: their log as proof, and the agent in Core's own Compose project.

The agent in Core's project shares Core's run folder: its files are saved with Core's, and `restore.sh agent` restores
it. v2 images of both kinds: ghcr.io/moghtech/komodo-periphery (v2.3.2:bin/periphery/aio.Dockerfile).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta

from activities.core.access import (
    NOTED_LATE,
    facts_in,
    inspect,
    job,
    log_of,
    log_since,
    parse_time,
    restore_sh,
    script,
    tail_of,
    until,
)
from activities.core.files import read_project, staged_name
from activities.core.upgrade import require_approved_image, staged_digest
from activities.fleet import manifest
from activities.heartbeat import invalidate
from activities.server.pins import keys_in_container
from activities.server.preflight import Machine
from activities.server.survey import AgentJournal
from hosts.host import Host
from komodo import logs
from komodo.core.containers import Container, compose_command
from komodo.core.image_digests import approved_reference
from komodo.files.edit_set import digest, pin_agents
from komodo.public_key import PLACEHOLDER, validate
from model.errors import AgentNotStarted, CommandFailed, ConfigNotLoaded, DownloadFailed, HostError, PlanChanged
from model.facts import Backup, ContainerFacts, Finding, PlannedEdit, ServerFacts, Severity, agent_backup
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
    VerifyServer,
)

_NOT_PULLED = 77
"""Exit code of stage_core.sh."""


class AgentContainer:
    """What all agents in containers share: their log is the proof."""

    async def journal(self, host: Host, verify: VerifyServer) -> AgentJournal:
        """The container's log since the switch. Raises HostError."""
        name = container_of(verify.facts).service.container
        text = await log_of(host, name, verify.switched.started_at - NOTED_LATE)
        return await _journal(host, name, logs.parse_run(logs.last_run(text)))

    def log_command(self, verify: VerifyServer) -> str:
        """The command with which a person reads the log."""
        return f"docker logs {container_of(verify.facts).service.container}"

    async def prove(self, host: Host, step: SwitchServer, started: datetime, key: str) -> Switched:
        """What the re-created agent logs about itself: version, Core's key loaded, no file skipped.

        Raises AgentNotStarted, ConfigNotLoaded, ArtifactError.
        """
        return await _proof(host, step, container_of(step.facts), key, started)

    async def prove_old(self, host: Host, step: SavedServerStep) -> Restored:
        """The old image runs, and its log says so. Raises AgentNotStarted."""
        return await _old_runs(host, step)


class CoreProjectAgent(AgentContainer):
    """The agent in Core's own Compose project. Implements AgentKind."""

    async def survey(self, host: Host, message: SurveyServer, machine: Machine) -> ServerFacts:  # noqa: ARG002
        """The result of its project's survey, as long as its container exists. Raises HostError."""
        known = message.known
        if known is None or known.container is None:
            raise HostError(f"{message.server.name} is no agent of a surveyed Compose project", host=host.spec.name)
        name = known.container.service.container
        if name in await inspect(host, name):
            return known
        finding = Finding(
            code="container-gone",
            severity=Severity.REFUSE,
            subject=known.name,
            text=f"the container {name} is gone",
            hint="`docker ps -a` shows all",
        )
        return replace(known, findings=(finding,))

    async def recheck(self, host: Host, step: RecheckServer) -> Recheck:  # noqa: ARG002 - the interface
        """Does nothing: the recheck of its project compares container and files, and the switch compares the file
        again.
        """
        return Recheck()

    async def back_up(self, host: Host, step: ServerStep) -> Backup:
        """The backup of its project, with the command that restores this agent alone. Raises HostError."""
        path = f"{step.folder}/manifest.json"
        saved = await host.read(path)
        if saved is None:
            raise HostError(f"{path} is missing: the project was not backed up", host=host.spec.name, hint="retry")
        return agent_backup(manifest.core_backup(manifest.read(saved.data, path, host.spec.name), host.spec.name))

    async def stage(self, host: Host, step: ServerStep) -> StagedAgent:
        """Ensure that the target's image is on the host; it is pulled if the staging of its project has not done that.

        Raises DownloadFailed, HostError.
        """
        agent = container_of(step.facts)
        image, project = agent.service.target_image, agent.project
        if not json.loads((await host.run(script("core/inspect_images.sh", image))).text or "[]"):
            words = ("pull", image, "compose", *compose_command(project))
            pull = script("core/stage_core.sh", *words, folder=step.folder, directory=project.directory)
            try:
                await job(host, step, "stage", pull, timeout=step.timing.download)
            except CommandFailed as error:
                if error.code != _NOT_PULLED:
                    raise
                raise DownloadFailed(
                    f"the image {image} could not be pulled: {error.tail or error.what}",
                    host=host.spec.name,
                    residue="the old version runs, nothing was changed",
                    hint="`docker pull` the same on that host: registry down, rate limit, proxy, or no such version?",
                ) from None
        digest = await staged_digest(host, agent.service)
        return StagedAgent(
            path="", sha256="", version=step.target, source=f"the image {image}", image=image, image_digest=digest
        )

    async def switch(self, host: Host, step: SwitchServer) -> Switched:
        """Pin Core's key in the project's Compose file, re-create the service, and prove it by its own log.

        Raises AgentNotStarted, ConfigNotLoaded, PlanChanged. A repeated call attaches to the job, or returns its
        result.
        """
        agent, key = container_of(step.facts), validate(step.key)
        data, edit = b"", dict[str, str]()
        if agent.pin is not None:
            before, after = await _pinned(host, step, agent, agent.pin, key)
            data = after.encode()
            edit = {"dest": agent.pin.path, "base": digest(before), "result": digest(after)}
        switch = script(
            "core/switch_core_agent.sh",
            *compose_command(agent.project),
            folder=step.folder,
            directory=agent.project.directory,
            service=agent.service.service,
            bytes=str(len(data)),
            inside=agent.service.container if agent.service.keys_to else "",
            keys=agent.service.keys_to,
            image=agent.service.target_image,
            approved=approved_reference(agent.service),
            **edit,
        )
        done = await job(host, step, SWITCH, switch, data=data)
        return await self.prove(host, step, parse_time(facts_in(done)["started"][0]), key)

    async def restore(self, host: Host, step: SavedServerStep) -> Restored:
        """Start its old image again with the folder's restore.sh, independent of the version in the project's files.

        Raises AgentNotStarted, CommandFailed, HostError. May be repeated.
        """
        folder, change = step.backup.folder, step.op.change
        await invalidate(host, folder, *step.op.ids(SWITCH), change=change)
        await job(host, step, "restore", restore_sh(folder, "agent"))
        return await self.prove_old(host, step)


async def _journal(host: Host, name: str, run: logs.RunLog) -> AgentJournal:
    pins = run.config.pins if run.config else ()
    return AgentJournal(run, runs=True, file_keys=await keys_in_container(host, name, pins))


def container_of(facts: ServerFacts) -> ContainerFacts:
    """What the plan knows of an agent's container. Raises HostError."""
    if facts.container is None:
        raise HostError(f"{facts.name} was planned without its container", hint="komodo-upgrade plan")
    return facts.container


async def _pinned(
    host: Host, step: SwitchServer, agent: ContainerFacts, planned: PlannedEdit, key: str
) -> tuple[str, str]:
    """The file's text before and after the key was added; equal where it contains the key already. A repeated step
    finds it written.

    The edit is computed again from the planned text: the file in use, or once that is edited the staged one.
    """
    files = await read_project(host, agent.project, agent.services)
    live = {**files.envs, **files.compose}.get(planned.path, "")
    before = await _planned_base(host, step, planned, live)
    if before is not None:
        files = files.with_text(planned.path, before)
        trial, edit = [await asyncio.to_thread(pin_agents, files, name) for name in (PLACEHOLDER, key)]
        if trial and edit and trial.result_sha256 == planned.result_sha256 and live in (before, edit.after):
            return before, edit.after
    raise PlanChanged(
        f"{planned.path} is no longer what was planned and approved",
        host=host.spec.name,
        residue="the agent runs in its old version",
        hint="check what was changed there, then retry",
    )


async def _planned_base(host: Host, step: SwitchServer, planned: PlannedEdit, live: str) -> str | None:
    if digest(live) == planned.base_sha256:
        return live
    saved = [f.saved_as for f in step.backup.files if f.path == planned.path]
    for path in (f"{step.folder}/staged/{staged_name(planned.path)}", *saved):
        file = await host.read(path)
        if file is not None and file.sha256 == planned.base_sha256:
            return file.data.decode()
    return None


async def _proof(host: Host, step: SwitchServer, agent: ContainerFacts, key: str, started: datetime) -> Switched:
    """What the re-created agent logs about itself: version, Core's key loaded, no file skipped."""
    name, timing = agent.service.container, step.timing
    run = logs.RunLog()
    now: Container | None = None
    before = ""

    async def ready() -> bool:
        nonlocal run, now, before
        now = (await inspect(host, name)).get(name)
        held = now is not None and now.running and now.started_at == before
        before = now.started_at if now else ""
        if now is None or not held:
            return False  # it must still be the same run one poll later: a crash loop runs at times, too
        run = logs.parse_run(logs.last_run(await log_of(host, name, log_since(now, started))))
        return run.version == step.target and bool(run.listening or (run.config and run.config.core_addresses))

    came_up = await until(ready, limit=timing.agent_ready, poll=timing.poll)
    if not came_up or now is None:
        log = await log_of(host, name, started) if now else ""
        raise AgentNotStarted(
            f"the agent's container {name} does not run in {step.target}: "
            f"{run.reason or tail_of(log) or 'its log is empty'}",
            host=host.spec.name,
            residue=f"{name} in its new version; `{step.backup.restore_command}` restores it",
            hint=logs.hint(run.reason) or f"`docker logs {name}` on that host",
        )
    await require_approved_image(host, agent.service, now.image_id)

    async def accepts() -> bool:
        return (await _journal(host, name, run)).accepts(key)

    # An agent that connects by itself writes a key file that is missing when it sees Core.
    patience = timing.agent_ready if run.config and run.config.core_addresses else timedelta()
    if run.unparsed or not await until(accepts, limit=patience, poll=timing.poll):
        loaded = f"it loaded {run.config.core_public_keys}" if run.config else "it has logged no config"
        raise ConfigNotLoaded(
            f"the agent's container {name} runs without Core's key: {run.reason or loaded}",
            host=host.spec.name,
            residue=f"{name} may accept any Core; `{step.backup.restore_command}` restores its old version",
            hint=f"is {name}'s environment overridden elsewhere (PERIPHERY_CORE_PUBLIC_KEYS)?",
        )
    if not now.init:
        raise AgentNotStarted(
            f"the agent's container {name} was created without init: zombie processes would pile up in it",
            host=host.spec.name,
            residue=f"{name} in its new version; `{step.backup.restore_command}` restores it",
            hint=f"which file sets `init: false` for the service {agent.service.service}?",
        )
    return Switched(
        version=run.version,
        invocation=now.id,
        started_at=parse_time(now.started_at) if now.started_at else started,
        port_downtime=timedelta(0),
        lines=run.proof,
    )


async def _old_runs(host: Host, step: SavedServerStep) -> Restored:
    agent, timing = container_of(step.facts).service, step.timing
    run = logs.RunLog()
    now: Container | None = None

    async def ready() -> bool:
        nonlocal run, now
        now = (await inspect(host, agent.container)).get(agent.container)
        if now is None or not now.running or now.image_id != agent.image_id:
            return False
        run = logs.parse_run(logs.last_run(await log_of(host, agent.container, log_since(now, None))))
        return bool(run.version) and bool(run.listening or run.config)

    if not await until(ready, limit=timing.agent_ready, poll=timing.poll) or now is None:
        raise AgentNotStarted(
            f"the agent's container {agent.container} does not run in its old version: "
            f"{run.reason or tail_of(await log_of(host, agent.container)) if now else 'it is gone'}",
            host=host.spec.name,
            hint=f"by hand: {step.backup.restore_command}",
        )
    started = parse_time(now.started_at) if now.started_at else await host.clock()
    line = next(iter(run.proof), "")
    return Restored(version=run.version, started_at=started, line=line, invocation=now.id)
