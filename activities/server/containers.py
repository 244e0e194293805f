"""Reads an agent in a container before anything is changed there: project, files, settings and engine. Read-only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from activities.core.access import log_of, script
from activities.core.files import read_project
from activities.fleet.locks import lock_on
from activities.server.pins import keys_in_container
from activities.server.preflight import LIMIT, Machine, read_configs
from activities.server.survey import READ
from hosts.exec.script import Script, combine, parse
from hosts.host import Host
from komodo.agent.container import ContainerSurvey, config_paths, pins, settings_of_container
from komodo.agent.docker_run import replacement
from komodo.agent.survey import Survey, one
from komodo.agent.unit import Unit
from komodo.core.containers import (
    Container,
    Labelled,
    candidates,
    compose_command,
    labelled_project,
    parse_containers,
    stack_of_komodo,
)
from komodo.core.image_digests import published_digests
from komodo.files.edit_set import ProjectEdit, ProjectFiles, edit_project
from komodo.files.periphery_toml import inspect
from komodo.logs import RunLog, cleaned_lines, last_run, parse_run
from komodo.public_key import PLACEHOLDER
from komodo.releases import guide_suffix, printed_version
from model.errors import EditRefused, HostError
from model.facts import ComposeProject, Finding, Severity
from model.fleet.spec import CoreSpec, slug
from model.steps import SurveyServer

_BY_HAND = (
    "move it into a compose file, `up -d` there, and run check again; or name the server in leave_behind and replace "
    "the container by hand once Core is upgraded, on that host as root:"
)


class _Refused(Exception):
    """The project cannot be upgraded; the finding says why."""

    def __init__(self, code: str, text: str, hint: str) -> None:
        super().__init__(text)
        self.code, self.text, self.hint = code, text, hint


async def read_container(host: Host, message: SurveyServer, machine: Machine, container: str) -> ContainerSurvey:
    """Everything about the agent in this container (name or id). Raises HostError."""
    output, entry = await _inspect(host, container)
    found = parse_containers(json.dumps([entry]))[0]
    image = await _image(host, found)
    settings = settings_of_container(found)
    version = printed_version(one(output, "version"))
    base = Survey(
        server=message.server,
        target=message.target,
        fleet=message.fleet,
        agent=message.agent,
        machine=machine.output,
        unit=Unit(name=found.name, exists=True, active=found.running),
        settings=settings,
        log=await _log(host, found),
        clock_ahead=machine.clock_ahead,
        in_container=True,
    )
    digest = next((str(known) for known in image.get("RepoDigests") or ()), "")
    survey = ContainerSurvey(base=base, container=found, engine=output, repo_digest=digest)
    files: ProjectFiles | None = None
    try:
        labelled = _labelled(host, found, replacement(entry, image, message.target))
        project = await _project(host, labelled, found, output)
        survey = replace(survey, project=project)
        files = await read_project(host, project, (found.service,))
        survey = replace(survey, compose=await _prove(host, project, found))
        edit = _edit(files, found, message.target)
        survey = replace(survey, edit=edit, services=(found.service,))
        survey = replace(survey, published=await _published(host, edit.images.get(found.service, "")))
    except _Refused as error:
        survey = _with_refusal(survey, error)
    except EditRefused as error:
        pasted = f"\n{error.snippet}" if error.snippet else ""
        refused = _Refused("edit-refused", error.what, f"{error.hint or 'edit it by hand:'}{pasted}")
        survey = _with_refusal(survey, refused)
    base = await _with_files(host, base, found, files, guide_suffix(version))
    inspected = {c.path: inspect(c.text) for c in base.configs if c.text is not None}
    base = replace(base, key_files=await keys_in_container(host, found.name, pins(base, inspected)))
    return replace(survey, base=await _with_lock(host, base))


def _with_refusal(survey: ContainerSurvey, error: _Refused) -> ContainerSurvey:
    name = survey.base.server.name
    finding = Finding(code=error.code, severity=Severity.REFUSE, subject=name, text=error.text, hint=error.hint)
    return replace(survey, refusals=(*survey.refusals, finding))


async def _inspect(host: Host, container: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    done = await host.run(Script.load("komodo.sh", "server/survey_container.sh", container=container), timeout=READ)
    head, _, body = done.text.partition("-- containers --\n")
    entry = next(iter(json.loads(body or "[]")), None)
    if not isinstance(entry, dict):
        raise HostError(f"the container {container} is gone", host=host.spec.name, hint="`docker ps -a` shows all")
    return parse(head), entry


async def _log(host: Host, container: Container) -> RunLog:
    return parse_run(last_run(await log_of(host, container.name)))


async def _image(host: Host, container: Container) -> dict[str, Any]:
    listed = (await host.run(script("core/inspect_images.sh", container.image_id))).text
    return next((entry for entry in json.loads(listed or "[]") if isinstance(entry, dict)), {})


def _labelled(host: Host, container: Container, by_hand: str) -> Labelled:
    labelled = labelled_project(container, CoreSpec(host=host.spec))
    if isinstance(labelled, Finding):
        text = f"the agent's container {container.name} was made without Compose (docker run, or a panel)"
        raise _Refused("docker-run", f"{text}, so the upgrade cannot re-create it", f"{_BY_HAND}\n{by_hand}")
    return labelled


async def _project(
    host: Host, labelled: Labelled, container: Container, output: Mapping[str, list[str]]
) -> ComposeProject:
    if stack := stack_of_komodo(labelled.directory, (container,)):
        raise _Refused(
            "agent-is-a-stack",
            f"the project of the agent's container lies in {stack}: Komodo deploys it as a Stack through this very "
            "agent, would overwrite the edits, and cuts its own connection when it re-creates the container",
            f"on that host: copy {labelled.directory} to a folder of its own (/opt/periphery), run `docker compose -p "
            f"{labelled.name} up -d` there, then delete the Stack in Komodo without destroying it",
        )
    if compose := one(output, "compose"):
        command: tuple[str, ...] = ("docker", "compose")
    elif compose := one(output, "compose_old"):
        command = ("docker-compose",)
    if not compose:
        raise _Refused(
            "no-compose",
            f"{container.name} is part of the Compose project {labelled.name}, but neither `docker compose` nor "
            "`docker-compose` is on this host",
            "install Docker's compose plugin",
        )
    files = [await _existing(host, labelled, name, "compose file") for name in labelled.files]
    if len(labelled.env_files) > 1:
        raise _Refused(
            "several-env-files",
            f"the agent was started with several --env-file: {', '.join(labelled.env_files)}",
            "merge them into one and `up -d` once",
        )
    env_files = [await _existing(host, labelled, name, "env file") for name in labelled.env_files]
    return ComposeProject(
        name=labelled.name,
        directory=labelled.directory,
        files=tuple(files),
        env_file=next(iter(env_files), ""),
        command=command,
    )


async def _existing(host: Host, labelled: Labelled, name: str, what: str) -> str:
    for path in candidates(name, labelled.folders):
        if await host.read(path) is not None:
            return path
    raise _Refused(
        f"{what.replace(' ', '-')}-missing",
        f"the {what} {name}, from which the agent was started, is not there",
        "restore it; or `up -d` once with the present files, so that the container's labels name them",
    )


async def _prove(host: Host, project: ComposeProject, container: Container) -> dict[str, list[str]]:
    """Our compose command describes what runs."""
    words = compose_command(project)
    ask = script("core/survey_project.sh", *words, directory=project.directory)
    output = parse((await host.run(ask)).text)
    images = set(output.get("image", []))
    if container.image not in images:
        problem = "; ".join(cleaned_lines(output.get("config_error", [])))
        problem = problem or f"it resolves to {', '.join(sorted(images)) or 'nothing'}, but {container.image} runs"
        raise _Refused(
            "project-not-proven",
            f"`{' '.join(words)} config` does not describe what runs: {problem}",
            "`up -d` once with the present files (and the same --env-file and profiles), then run check again",
        )
    return output


async def _published(host: Host, image: str) -> Mapping[str, str]:
    asked = await host.run(script("core/published_digests.sh", image))
    return published_digests(parse(asked.text).get("digest", ()))


def _edit(files: ProjectFiles, container: Container, target: str) -> ProjectEdit:
    edit = edit_project(files, target=target, key=PLACEHOLDER)
    edit.refuse_unsafe()
    if edit.core_service:
        raise _Refused(
            "with-another-core",
            f"the project of {container.name} also runs Komodo Core in its service {edit.core_service}",
            "upgrade it as the host of that Core: [core] host",
        )
    agents = [agent for one_edit in edit.composed for agent in one_edit.agents]
    if container.service not in agents:
        raise _Refused(
            "project-not-proven",
            f"the service {container.service} of {container.name} runs no agent in the compose files as they are now",
            "`up -d` once with the present files, then run check again",
        )
    return edit


async def _with_files(
    host: Host, base: Survey, container: Container, files: ProjectFiles | None, suffix: str
) -> Survey:
    """With its mounted config files, and the owners of all files that may be replaced."""
    configs = config_paths(container)
    state_dir = base.server.host.state_dir
    read = Script.load(
        "komodo.sh", "server/survey_files.sh", *configs.on_host, state_dir=state_dir, suffix=suffix, limit=str(LIMIT)
    )
    written = (*files.compose, *files.envs) if files else ()
    foreign = Script.load("komodo.sh", "fleet/foreign_files.sh", *written)
    lock = Script.load("komodo.sh", "fleet/lock_owner.sh", state_dir=state_dir)
    output = parse((await host.run(combine(read, foreign, lock), timeout=READ)).text)
    unit = replace(base.unit, config_paths=configs.on_host)
    return replace(base, files=output, configs=await read_configs(host, output), unit=unit, lock=one(output, "lock"))


async def _with_lock(host: Host, base: Survey) -> Survey:
    if not base.lock or base.lock.split(" ")[0] == slug(base.fleet):
        return base
    owner, use = await lock_on(host)
    return replace(base, lock=owner, lock_use=use)
