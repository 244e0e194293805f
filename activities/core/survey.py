"""The survey of Core's host, step by step; each step adds facts, sources and findings, and may end the survey."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from activities.core.access import facts_in, read_settings, script
from activities.core.files import edit_core_project, pinned_key, read_project
from activities.database.dump_tools import network_of
from activities.fleet.locks import lock_on
from hosts.exec.script import parse
from hosts.host import Host
from komodo.agent.survey import locked
from komodo.compose.reference import komodo_kind
from komodo.compose.reference import parse as parse_image
from komodo.core.containers import (
    Container,
    Labelled,
    candidates,
    compose_command,
    find_agent,
    find_core,
    find_database,
    info,
    labelled_project,
    parse_containers,
    refuse,
    stack_of_komodo,
    warn,
)
from komodo.core.database import Database
from komodo.core.image_digests import published_digests
from komodo.core.settings import CoreSettings
from komodo.files.edit_set import ProjectEdit, ProjectFiles
from komodo.files.owners import foreign_findings
from komodo.logs import cleaned_lines
from komodo.releases import FIRST_KM, version_of
from model.errors import DatabaseError, EditRefused
from model.facts import HELD, ComposeProject, DatabaseFacts, Finding
from model.fleet.spec import FleetSpec, slug

OLDEST_MONGODB = 5


class Ended(Exception):
    """The survey cannot continue; the findings contain the reasons."""


@dataclass(slots=True)
class CoreSurvey:
    """Facts found so far. Containers hold secrets in memory; they never leave this class."""

    fleet: FleetSpec
    host: Host
    findings: list[Finding] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    containers: tuple[Container, ...] = ()
    core: Container | None = None
    agent: Container | None = None
    project: ComposeProject | None = None
    settings: CoreSettings | None = None
    database: DatabaseFacts | None = None
    database_container: Container | None = None
    compose_texts: dict[str, str] = field(default_factory=dict)
    edits: ProjectEdit | None = None
    repositories: tuple[str, ...] = ()
    """Git work trees that hold the project."""
    docker: str = ""
    compose: str = ""
    state_place: str = ""
    free: int = 0
    docker_free: int = 0
    version: str = ""
    agent_version: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def end(self, finding: Finding) -> Ended:
        """Add a refusal that prevents further checks."""
        self.findings.append(finding)
        return Ended()


async def lock(survey: CoreSurvey) -> None:
    """Refuse if another fleet's upgrade has locked this host; take over a lock of this fleet, with a note."""
    held, use = await lock_on(survey.host)
    fleet, _, change = held.partition(" ")
    if fleet == slug(survey.fleet.name):
        text = f"the upgrade {change} of this fleet holds Core's host, {use}: this run takes its hosts over"
        hint = "was it terminated? If it runs on (on another machine, by another Temporal), stop it there first"
        survey.findings.append(warn(HELD, text, hint))
    elif fleet:
        text, hint = locked(fleet, change, use, survey.fleet.core.host.state_dir)
        survey.findings.append(refuse("host-locked", text, hint))


async def containers(survey: CoreSurvey) -> None:
    """Find docker, compose, and Core's container."""
    spec = survey.fleet.core
    done = await survey.host.run(script("core/survey_core.sh", state_dir=spec.host.state_dir))
    head, _, body = done.text.partition("-- containers --\n")
    output = parse(head)
    survey.state_place = _first(output, "state_place")
    survey.free = _number(output, "free")
    survey.docker_free = _number(output, "docker_free")
    for problem in output.get("problem", []):
        raise survey.end(refuse("docker", problem, "Core must run under docker on [core].host"))
    survey.docker = _first(output, "docker")
    survey.compose = _first(output, "compose") or _first(output, "compose_old")
    if not survey.compose:
        raise survey.end(
            refuse("no-compose", "neither `docker compose` nor `docker-compose` is there", "install docker's plugin")
        )
    survey.containers = parse_containers(body)
    core = find_core(survey.containers, spec)
    if isinstance(core, Finding):
        raise survey.end(core)
    survey.core = core
    survey.sources.append(
        f"container {core.name} ({core.image}), "
        + ("from [core].container" if spec.container else "the only one with Core's image")
    )
    if not core.running:
        survey.findings.append(
            refuse("core-stopped", f"Core's container {core.name} does not run", f"`docker start {core.name}` first")
        )
    survey.agent = find_agent(survey.containers, core)
    old = bool(output.get("compose_old"))
    await _project(survey, core, ("docker-compose",) if old else ("docker", "compose"))


async def _project(survey: CoreSurvey, core: Container, command: tuple[str, ...]) -> None:
    spec = survey.fleet.core
    labelled = labelled_project(core, spec)
    if isinstance(labelled, Finding):
        raise survey.end(labelled)
    stack = stack_of_komodo(labelled.directory, survey.containers)
    if stack:
        raise survey.end(
            refuse(
                "core-is-a-stack",
                f"Core's project is in {stack}: Komodo itself deploys it as a Stack and would overwrite the edits",
                "copy the project to a folder of its own (same project name), `up -d` there, delete the Stack",
            )
        )
    files = await _existing_files(survey, labelled)
    env_file = await _env_file(survey, labelled)
    survey.sources += labelled.sources
    survey.project = ComposeProject(
        name=labelled.name, directory=labelled.directory, files=files, env_file=env_file, command=command
    )


async def _existing_files(survey: CoreSurvey, labelled: Labelled) -> tuple[str, ...]:
    files = []
    for name in labelled.files:
        for path in candidates(name, labelled.folders):
            if await survey.host.read(path) is not None:
                files.append(path)
                break
        else:
            raise survey.end(
                refuse(
                    "compose-file-missing",
                    f"the compose file {name}, from which Core was started, is not there",
                    "restore it, or name the present files: [core] project_dir, compose_files, env_file",
                )
            )
    return tuple(files)


async def _env_file(survey: CoreSurvey, labelled: Labelled) -> str:
    """The --env-file of the project: from the fleet file, from the label, or (docker-compose 1.x sets no label) the
    candidate that proves right.
    """
    if len(labelled.env_files) > 1:
        raise survey.end(
            refuse(
                "several-env-files",
                f"Core was started with several --env-file: {', '.join(labelled.env_files)}",
                "merge them into one and `up -d` once, or name the one with the image's tag: [core] env_file",
            )
        )
    for name in labelled.env_files:
        for path in candidates(name, labelled.folders):
            if await survey.host.read(path) is not None:
                reported = "[core].env_file" if survey.fleet.core.env_file else "a label"
                survey.sources.append(f"env file {path}, from {reported}")
                return path
        raise survey.end(
            refuse("env-file-missing", f"the env file {name} is not there", "restore it, or correct [core].env_file")
        )
    return ""


async def prove_project(survey: CoreSurvey) -> None:
    """Check that our compose command resolves to the images that run. Without a label for the env file, candidates are
    tried.
    """
    project, core = survey.project, survey.core
    assert project is not None and core is not None  # noqa: S101, PT018 - set by `containers`
    tried = [project.env_file]
    if not project.env_file:
        files = ProjectFiles(directory=project.directory, compose=survey.compose_texts)
        tried += await asyncio.to_thread(files.env_files, core.service)
    wanted = {c.image for c in (core, survey.agent) if c}
    problem = ""
    for env_file in tried:
        candidate = ComposeProject(
            name=project.name,
            directory=project.directory,
            files=project.files,
            env_file=env_file,
            command=project.command,
        )
        output = await _ask_project(survey, candidate)
        images = set(output.get("image", []))
        if wanted <= images or (core.image in images and _agent_behind(core, images)):
            survey.project = candidate
            if env_file != project.env_file:
                survey.sources.append(f"env file {env_file}, from `env_file:` of the service {core.service} (proven)")
            _note_project(survey, output)
            return
        problem = (
            problem
            or "; ".join(cleaned_lines(output.get("config_error", [])))
            or (f"it resolves to {', '.join(sorted(images)) or 'nothing'}, but {', '.join(sorted(wanted))} runs")
        )
        _note_project(survey, output)
    shown = " ".join(compose_command(project))
    raise survey.end(
        refuse(
            "project-not-proven",
            f"`{shown} config` does not describe what runs: {problem}",
            "describe in the fleet file how Core is started: [core] project, project_dir, compose_files, env_file; "
            "or `up -d` once, if the files were edited since",
        )
    )


def _agent_behind(core: Container, images: set[str]) -> bool:
    """The files name Core's version for its agent too, but the agent runs another: an upgrade restored it alone."""
    tag = parse_image(core.image).tag
    return any(komodo_kind(i) == "periphery" and parse_image(i).tag == tag for i in images)


async def _ask_project(survey: CoreSurvey, project: ComposeProject) -> dict[str, list[str]]:
    assert survey.core is not None  # noqa: S101 - set by `containers`
    database = survey.database_container.name if survey.database_container else ""
    ask = script(
        "core/survey_project.sh",
        *compose_command(project),
        directory=project.directory,
        core=survey.core.name,
        database=database,
    )
    return dict(facts_in(await survey.host.run(ask)))


def _note_project(survey: CoreSurvey, output: dict[str, list[str]]) -> None:
    survey.version = survey.version or _first(output, "version")
    if survey.database and _first(output, "mongodump"):
        survey.database = replace(survey.database, has_mongodump=_first(output, "mongodump") == "yes")
    survey.repositories = tuple(output.get("git", ()))
    if survey.repositories and not any(f.code == "git" for f in survey.findings):
        survey.findings.append(
            warn(
                "git",
                f"Core's files are in a git work tree ({survey.repositories[0]}): a pull or a bot may revert the edits",
                "commit the edits after the upgrade, and check bots that change image tags",
            )
        )


async def settings(survey: CoreSurvey) -> None:
    """Find Core's settings and its database."""
    core = survey.core
    assert core is not None  # noqa: S101 - set by `containers`
    try:
        survey.settings = await read_settings(survey.host, core)
    except DatabaseError as error:
        survey.findings.append(refuse("database", error.what, error.hint))
        return
    login = survey.settings.database
    if login is None:
        survey.findings.append(refuse("database", survey.settings.database_problem, survey.settings.database_hint))
        return
    hit = find_database(survey.containers, core, login.host, login.port)
    if hit is None:
        survey.findings.append(
            refuse(
                "database-external",
                f"Core's database {login.host}:{login.port} is no container on Core's host",
                "this version dumps and restores only a database container on Core's host",
            )
        )
        return
    survey.database_container, reach = hit
    survey.database = DatabaseFacts(
        container=survey.database_container.name,
        image=survey.database_container.image,
        image_id=survey.database_container.image_id,
        address=f"{login.host}:{login.port}",
        reach=reach,
        name=login.name,
        ferretdb="ferretdb" in survey.database_container.image,
    )
    survey.sources.append(
        f"database {login.name} in container {survey.database_container.name}, from the environment of {core.name}"
    )
    tag = survey.database_container.image.rpartition("/")[2].partition(":")[2]
    if "@" not in survey.database_container.image and tag in ("", "latest"):
        survey.findings.append(
            warn(
                "database-unpinned",
                f"the database's image {survey.database_container.image} has no version: a pull may change its major",
                "pin the version that runs now; this upgrade never pulls or re-creates the database",
            )
        )


async def database(survey: CoreSurvey, opened: Database) -> None:
    """Find the database's version and size; refuse what cannot be dumped or is too old."""
    facts = survey.database
    assert facts is not None  # noqa: S101 - only called with one
    version = await opened.version()
    ferretdb = version.ferretdb or facts.ferretdb
    survey.database = replace(facts, version=version.text, ferretdb=ferretdb, bytes=await opened.size())
    if not version.ferretdb and version.major < OLDEST_MONGODB:
        survey.findings.append(
            refuse(
                "mongodb-old",
                f"MongoDB {version.text} is older than {OLDEST_MONGODB}",
                "upgrade MongoDB first, one major version at a time (its own upgrade notes)",
            )
        )
    counts = {c.name: c.documents for c in await opened.counts()}
    if not counts.get("Server") and not counts.get("User"):
        survey.findings.append(
            refuse(
                "database-empty",
                f"the database {facts.name} holds neither users nor servers: it is not the one that Core uses",
                "check KOMODO_DATABASE_DB_NAME and the project's name (another -p makes an empty volume)",
            )
        )


def dump_tool(survey: CoreSurvey) -> None:
    """Use km of Core's own image to dump a database container without mongodump. Refuse where there is neither."""
    if survey.database is None or survey.database.has_mongodump:
        return
    what = "FerretDB" if survey.database.ferretdb else survey.database.container
    version = version_of(survey.version)
    if version is not None and version < FIRST_KM:
        survey.findings.append(
            refuse(
                "no-mongodump",
                f"{what} has no mongodump in its container, and Core {survey.version} no `km`: nothing can back it up",
                "upgrade Core to 1.19.5 first (same compose files, tag 1.19.5): its image has km since 1.19.0",
            )
        )
        return
    try:
        network_of(survey.core, survey.database_container)
    except DatabaseError as error:
        survey.findings.append(refuse("no-mongodump", error.what, error.hint))
        return
    survey.sources.append(f"{what} has no mongodump in its container: dumps are made by km of Core's own image")


async def edits(survey: CoreSurvey, core_key: str) -> None:
    """Plan the edits of compose and env files. `core_key`: Core's key where it is v2 already."""
    project, core = survey.project, survey.core
    assert project is not None and core is not None  # noqa: S101, PT018 - set before
    services = [c.service for c in (core, survey.agent) if c and c.service]
    try:
        survey.edits = await asyncio.to_thread(
            edit_core_project,
            await read_project(survey.host, project, services, survey.compose_texts),
            target=survey.fleet.target,
            keys_mount=survey.fleet.core.keys_mount,
            pinned=bool(core_key) and core_key in pinned_key(survey.agent).split(","),
        )
    except EditRefused as error:
        pasted = f"\n{error.snippet}" if error.snippet else ""
        survey.findings.append(refuse("edit-refused", error.what, f"{error.hint or 'edit it by hand:'}{pasted}"))
        return
    survey.findings += [info("edit-note", note) for note in survey.edits.notes]
    if paths := [edit.path for edit in survey.edits.planned()]:
        done = await survey.host.run(script("fleet/foreign_files.sh", *paths))
        survey.findings += foreign_findings("core", facts_in(done).get("foreign", ()), paths)


async def images(survey: CoreSurvey) -> None:
    """Sizes and digests of the running images and of the target's images, those of the registry included."""
    wanted = [c.image_id for c in (survey.core, survey.agent) if c]
    targets = tuple(dict.fromkeys(survey.edits.images.values())) if survey.edits else ()
    wanted += targets
    done = await survey.host.run(script("core/inspect_images.sh", *dict.fromkeys(wanted)))
    for entry in json.loads(done.text or "[]"):
        digests = entry.get("RepoDigests") or [""]
        names = [str(entry.get("Id", "")), *(entry.get("RepoTags") or [])]
        for name in names:
            survey.digests[name] = str(digests[0])
            survey.sizes[name] = int(entry.get("Size") or 0)
    asked = await survey.host.run(script("core/published_digests.sh", *targets))
    survey.published = published_digests(facts_in(asked).get("digest", ()))


def _first(output: dict[str, list[str]], key: str) -> str:
    return output.get(key, [""])[0]


def _number(output: dict[str, list[str]], key: str) -> int:
    text = _first(output, key)
    return int(text) if text.isdigit() else 0
