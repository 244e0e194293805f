"""Looking at Core's host, step by step; each step adds facts, sources and findings, and may end the look."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from activities.core_access import facts_in, read_settings, script
from activities.core_edits import (
    CoreEdits,
    compute,
    decode,
    env_file_paths,
    interpolation_file,
    pinned_key,
)
from activities.dump_tools import network_of
from activities.locks import lock_on
from hosts.host import Host
from hosts.script import parse
from komodo.agent_survey import locked
from komodo.core_settings import (
    CoreSettings,
)
from komodo.database import Database
from komodo.image import komodo_kind
from komodo.image import parse as parse_image
from komodo.logs import cleaned_lines
from komodo.project import (
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
from komodo.releases import FIRST_KM, version_of
from model.errors import DatabaseError, EditRefused
from model.facts import HELD, ComposeProject, DatabaseFacts, Finding
from model.fleet import FleetSpec, slug

OLDEST_MONGODB = 5


class Ended(Exception):
    """The look cannot go on; the findings say why."""


@dataclass(slots=True)
class Look:
    """What was found so far. Containers hold secrets in memory; nothing of that leaves this room."""

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
    edits: CoreEdits | None = None
    docker: str = ""
    compose: str = ""
    state_place: str = ""
    free: int = 0
    docker_free: int = 0
    version: str = ""
    agent_version: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def end(self, finding: Finding) -> Ended:
        """Add a refusal after which nothing more can be found out."""
        self.findings.append(finding)
        return Ended()


async def lock(look: Look) -> None:
    """Another fleet's upgrade on this host refuses this one; another one of this fleet is taken over, and told."""
    held, use = await lock_on(look.host)
    fleet, _, change = held.partition(" ")
    if fleet == slug(look.fleet.name):
        text = f"the upgrade {change} of this fleet holds Core's host, {use}: this run takes its hosts over"
        cure = "was it terminated? If it runs on (on another machine, by another Temporal), stop it there first"
        look.findings.append(warn(HELD, text, cure))
    elif fleet:
        text, cure = locked(fleet, change, use, look.fleet.core.host.state_dir)
        look.findings.append(refuse("host-locked", text, cure))


async def containers(look: Look) -> None:
    """Docker, compose, and which container is Core's."""
    spec = look.fleet.core
    done = await look.host.run(script("survey_core.sh"), spec.host.state_dir)
    head, _, body = done.text.partition("-- containers --\n")
    said = parse(head)
    look.state_place = _first(said, "state_place")
    look.free = _number(said, "free")
    look.docker_free = _number(said, "docker_free")
    for problem in said.get("problem", []):
        raise look.end(refuse("docker", problem, "Core must run under docker on [core].host"))
    look.docker = _first(said, "docker")
    look.compose = _first(said, "compose") or _first(said, "compose_old")
    if not look.compose:
        raise look.end(
            refuse("no-compose", "neither `docker compose` nor `docker-compose` is there", "install docker's plugin")
        )
    look.containers = parse_containers(body)
    core = find_core(look.containers, spec)
    if isinstance(core, Finding):
        raise look.end(core)
    look.core = core
    look.sources.append(
        f"container {core.name} ({core.image}), "
        + ("from [core].container" if spec.container else "the only one with Core's image")
    )
    if not core.running:
        look.findings.append(
            refuse("core-stopped", f"Core's container {core.name} does not run", f"`docker start {core.name}` first")
        )
    look.agent = find_agent(look.containers, core)
    old = bool(said.get("compose_old"))
    await _project(look, core, ("docker-compose",) if old else ("docker", "compose"))


async def _project(look: Look, core: Container, command: tuple[str, ...]) -> None:
    spec = look.fleet.core
    labelled = labelled_project(core, spec)
    if isinstance(labelled, Finding):
        raise look.end(labelled)
    stack = stack_of_komodo(labelled.directory, look.containers)
    if stack:
        raise look.end(
            refuse(
                "core-is-a-stack",
                f"Core's project lies in {stack}: Komodo itself deploys it as a Stack and would overwrite the edits",
                "copy the project to a folder of its own (same project name), `up -d` there, delete the Stack",
            )
        )
    files = await _existing_files(look, labelled)
    env_file = await _env_file(look, labelled)
    look.sources += labelled.sources
    look.project = ComposeProject(
        name=labelled.name, directory=labelled.directory, files=files, env_file=env_file, command=command
    )


async def _existing_files(look: Look, labelled: Labelled) -> tuple[str, ...]:
    files = []
    for name in labelled.files:
        for path in candidates(name, labelled.folders):
            if await look.host.read(path) is not None:
                files.append(path)
                break
        else:
            raise look.end(
                refuse(
                    "compose-file-missing",
                    f"the compose file {name}, from which Core was started, is not there",
                    "put it back, or name the present ones: [core] project_dir, compose_files, env_file",
                )
            )
    return tuple(files)


async def _env_file(look: Look, labelled: Labelled) -> str:
    """The --env-file of the project: told, labelled, or (docker-compose 1.x has no label) the one that proves right."""
    if len(labelled.env_files) > 1:
        raise look.end(
            refuse(
                "several-env-files",
                f"Core was started with several --env-file: {', '.join(labelled.env_files)}",
                "merge them into one and `up -d` once, or name the one with the image's tag: [core] env_file",
            )
        )
    for name in labelled.env_files:
        for path in candidates(name, labelled.folders):
            if await look.host.read(path) is not None:
                told = "[core].env_file" if look.fleet.core.env_file else "a label"
                look.sources.append(f"env file {path}, from {told}")
                return path
        raise look.end(
            refuse("env-file-missing", f"the env file {name} is not there", "put it back, or correct [core].env_file")
        )
    return ""


async def prove_project(look: Look) -> None:
    """Our compose command resolves to the images that run; without a label for the env file, candidates are tried."""
    project, core = look.project, look.core
    assert project is not None and core is not None  # noqa: S101, PT018 - set by `containers`
    tried = [project.env_file]
    if not project.env_file:
        tried += env_file_paths(look.compose_texts, project, core.service)
    wanted = {c.image for c in (core, look.agent) if c}
    problem = ""
    for env_file in tried:
        candidate = ComposeProject(
            name=project.name,
            directory=project.directory,
            files=project.files,
            env_file=env_file,
            command=project.command,
        )
        said = await _ask_project(look, candidate)
        images = set(said.get("image", []))
        if wanted <= images or (core.image in images and _agent_behind(core, images)):
            look.project = candidate
            if env_file != project.env_file:
                look.sources.append(f"env file {env_file}, from `env_file:` of the service {core.service} (proven)")
            _note_project(look, said)
            return
        problem = (
            problem
            or "; ".join(cleaned_lines(said.get("config_error", [])))
            or (f"it resolves to {', '.join(sorted(images)) or 'nothing'}, but {', '.join(sorted(wanted))} runs")
        )
        _note_project(look, said)
    shown = " ".join(compose_command(project))
    raise look.end(
        refuse(
            "project-not-proven",
            f"`{shown} config` does not describe what runs: {problem}",
            "tell the fleet file how Core is started: [core] project, project_dir, compose_files, env_file; "
            "or `up -d` once, if the files were edited since",
        )
    )


def _agent_behind(core: Container, images: set[str]) -> bool:
    """The files name Core's version for its agent too, which runs in another: an upgrade had put it back alone."""
    tag = parse_image(core.image).tag
    return any(komodo_kind(i) == "periphery" and parse_image(i).tag == tag for i in images)


async def _ask_project(look: Look, project: ComposeProject) -> dict[str, list[str]]:
    assert look.core is not None  # noqa: S101 - set by `containers`
    database = look.database_container.name if look.database_container else ""
    done = await look.host.run(
        script("look_at_project.sh"), project.directory, look.core.name, database, *compose_command(project)
    )
    return dict(facts_in(done))


def _note_project(look: Look, said: dict[str, list[str]]) -> None:
    look.version = look.version or _first(said, "version")
    if look.database and _first(said, "mongodump"):
        look.database = DatabaseFacts(**{**_fields(look.database), "has_mongodump": _first(said, "mongodump") == "yes"})
    git = _first(said, "git")
    if git and not any(f.code == "git" for f in look.findings):
        look.findings.append(
            warn(
                "git",
                f"Core's files lie in a git work tree ({git}): a pull or a bot may take the edits back",
                "commit the edits after the upgrade, and look at bots that change image tags",
            )
        )


def _fields(facts: DatabaseFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__dataclass_fields__}


async def settings(look: Look) -> None:
    """Core's settings, and where its database is."""
    core = look.core
    assert core is not None  # noqa: S101 - set by `containers`
    try:
        look.settings = await read_settings(look.host, core)
    except DatabaseError as error:
        look.findings.append(refuse("database", error.what, error.cure))
        return
    login = look.settings.database
    if login is None:
        look.findings.append(refuse("database", look.settings.database_problem, look.settings.database_cure))
        return
    hit = find_database(look.containers, core, login.host, login.port)
    if hit is None:
        look.findings.append(
            refuse(
                "database-external",
                f"Core's database {login.host}:{login.port} is no container on Core's host",
                "this version dumps and restores a database container beside Core only",
            )
        )
        return
    look.database_container, reach = hit
    look.database = DatabaseFacts(
        container=look.database_container.name,
        address=f"{login.host}:{login.port}",
        reach=reach,
        name=login.name,
        ferretdb="ferretdb" in look.database_container.image,
    )
    look.sources.append(
        f"database {login.name} in container {look.database_container.name}, from the environment of {core.name}"
    )
    tag = look.database_container.image.rpartition("/")[2].partition(":")[2]
    if "@" not in look.database_container.image and tag in ("", "latest"):
        look.findings.append(
            warn(
                "database-unpinned",
                f"the database's image {look.database_container.image} has no version: a pull may change its major",
                "pin the version that runs now; this upgrade never pulls or re-creates the database",
            )
        )


async def database(look: Look, opened: Database) -> None:
    """Version and size; refuses what cannot be dumped or is too old."""
    facts = look.database
    assert facts is not None  # noqa: S101 - only called with one
    version = await opened.version()
    ferretdb = version.ferretdb or facts.ferretdb
    look.database = DatabaseFacts(
        **{**_fields(facts), "version": version.text, "ferretdb": ferretdb, "bytes": await opened.size()}
    )
    if not version.ferretdb and version.major < OLDEST_MONGODB:
        look.findings.append(
            refuse(
                "mongodb-old",
                f"MongoDB {version.text} is older than {OLDEST_MONGODB}",
                "upgrade MongoDB first, one major version at a time (its own upgrade notes)",
            )
        )
    counts = {c.name: c.documents for c in await opened.counts()}
    if not counts.get("Server") and not counts.get("User"):
        look.findings.append(
            refuse(
                "database-empty",
                f"the database {facts.name} holds neither users nor servers: it is not the one Core works with",
                "look at KOMODO_DATABASE_DB_NAME and at the project's name (another -p makes an empty volume)",
            )
        )


def dump_tool(look: Look) -> None:
    """A database container without mongodump is dumped by km of Core's own image. Refuses where there is none."""
    if look.database is None or look.database.has_mongodump:
        return
    what = "FerretDB" if look.database.ferretdb else look.database.container
    version = version_of(look.version)
    if version is not None and version < FIRST_KM:
        look.findings.append(
            refuse(
                "no-mongodump",
                f"{what} has no mongodump in its container, and Core {look.version} no `km`: nothing can back it up",
                "upgrade Core to 1.19.5 first (same compose files, tag 1.19.5): its image has km since 1.19.0",
            )
        )
        return
    try:
        network_of(look.core, look.database_container)
    except DatabaseError as error:
        look.findings.append(refuse("no-mongodump", error.what, error.cure))
        return
    look.sources.append(f"{what} has no mongodump in its container: dumps are made by km of Core's own image")


async def edits(look: Look, core_key: str) -> None:
    """The edits of compose and env files, as planned. `core_key`: Core's key where it is v2 already."""
    project, core = look.project, look.core
    assert project is not None and core is not None  # noqa: S101, PT018 - set before
    envs: dict[str, str] = {}
    services = [c.service for c in (core, look.agent) if c and c.service]
    wanted = tuple(dict.fromkeys(p for s in services for p in env_file_paths(look.compose_texts, project, s)))
    try:
        for path in dict.fromkeys((interpolation_file(project), *wanted)):
            if (file := await look.host.read(path)) is not None:
                envs[path] = decode(file)
        look.edits = compute(
            project,
            look.compose_texts,
            envs,
            target=look.fleet.target,
            keys_mount=look.fleet.core.keys_mount,
            service_env_files=wanted,
            pinned=bool(core_key) and core_key in pinned_key(look.agent).split(","),
        )
    except EditRefused as error:
        pasted = f"\n{error.snippet}" if error.snippet else ""
        look.findings.append(refuse("edit-refused", error.what, f"{error.cure or 'edit it by hand:'}{pasted}"))
        return
    look.findings += [info("edit-note", note) for note in look.edits.notes]


async def images(look: Look) -> None:
    """Digests and sizes of the images that run and of those that will, where they are here already."""
    wanted = [c.image_id for c in (look.core, look.agent) if c]
    wanted += list(look.edits.images.values()) if look.edits else []
    done = await look.host.run(script("images.sh"), *dict.fromkeys(wanted))
    for entry in json.loads(done.text or "[]"):
        digests = entry.get("RepoDigests") or [""]
        names = [str(entry.get("Id", "")), *(entry.get("RepoTags") or [])]
        for name in names:
            look.digests[name] = str(digests[0])
            look.sizes[name] = int(entry.get("Size") or 0)


def _first(said: dict[str, list[str]], key: str) -> str:
    return said.get(key, [""])[0]


def _number(said: dict[str, list[str]], key: str) -> int:
    text = _first(said, key)
    return int(text) if text.isdigit() else 0
