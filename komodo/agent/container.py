"""An agent in a container of a Compose project: what was read, converted to the facts of the plan. Pure."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from komodo import releases
from komodo.agent import aliases, findings, outbound
from komodo.agent.facts import open_today
from komodo.agent.survey import Output, Survey, one
from komodo.core.containers import Container, service_facts
from komodo.core.image_digests import with_target_digest
from komodo.files.edit_set import ProjectEdit
from komodo.files.owners import foreign_findings
from komodo.files.periphery_toml import inspect
from komodo.public_key import understood
from model.facts import ComposeProject, ContainerFacts, Finding, Install, PlannedEdit, ServerFacts, Severity

KEYS_VARIABLES = ("PERIPHERY_CORE_PUBLIC_KEYS", "PERIPHERY_CORE_PUBLIC_KEY")
CONFIG_VARIABLES = ("PERIPHERY_CONFIG_PATHS", "PERIPHERY_CONFIG_PATH")
OLDEST_API = (1, 40)
"""Of Docker's API: the least that the newest Docker clients speak (moby/client, MinAPIVersion); Docker 19.03."""
SMOOTH_API = (1, 44)
"""Docker 25.0. With older ones Compose v5 failed to connect containers to networks (moghtech/komodo#1305)."""
SMOOTH_ENGINE = 28
"""On older ones, actions of stacks failed at times (moghtech/komodo#1249)."""
IMAGE_BYTES = 1024**3
"""Disk space for the unpacked image of v2's agent, with a reserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSurvey:
    """Everything that was read about one agent in a container."""

    base: Survey
    """Its machine and config files. `unit` has the container's name."""
    container: Container
    engine: Output = field(default_factory=dict)
    """Output of survey_container.sh."""
    project: ComposeProject | None = None
    compose: Output = field(default_factory=dict)
    """Output of survey_project.sh."""
    edit: ProjectEdit | None = None
    services: tuple[str, ...] = ()
    refusals: tuple[Finding, ...] = ()
    """Why the project could not be read or edited."""
    repo_digest: str = ""
    """Of the image that runs."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Image → the digest that its registry has."""


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """The config files that an agent in a container reads."""

    on_host: tuple[str, ...] = ()
    inside_only: tuple[str, ...] = ()
    """Paths that no mount covers: the file is in the image, or there is none."""


def config_paths(container: Container) -> ConfigPaths:
    """From its command line, else from its environment.

    v1's image has no default; v2's image sets PERIPHERY_CONFIG_PATHS=/config (v2.3.2:bin/periphery/aio.Dockerfile).
    """
    words = [word for text in container.command for word in _words(text)]
    paths: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("--config-path", "-c"):
            paths.append(value if equals else next(rest, ""))
    if not paths:
        named = next((value for name in CONFIG_VARIABLES if (value := container.setting(name))), "")
        paths = [path for path in named.split(",") if path]
    found = [(path, container.host_path(posixpath.normpath(path))) for path in paths if path.startswith("/")]
    return ConfigPaths(tuple(host for _, host in found if host), tuple(path for path, host in found if not host))


def _words(text: str) -> list[str]:
    """`sh -c "periphery --config-path …"` has its words in one argument."""
    try:
        return shlex.split(text) if " " in text else [text]
    except ValueError:
        return text.split()


def settings_of_container(container: Container) -> dict[str, str]:
    """PERIPHERY_ settings; values that may be secret are "(set)"."""
    found = {}
    for name, value in container.env.items():
        if (upper := name.upper()).startswith("PERIPHERY_"):
            found[upper] = value if upper in _SHOWN or not value else "(set)"
    return found


_SHOWN = {
    *KEYS_VARIABLES, *CONFIG_VARIABLES, "PERIPHERY_CORE_ADDRESS", "PERIPHERY_CORE_ADDRESSES", "PERIPHERY_PORT",
    "PERIPHERY_SERVER_ENABLED", "PERIPHERY_SSL_ENABLED", "PERIPHERY_LOGGING_LEVEL", "PERIPHERY_LOGGING_STDIO",
    "PERIPHERY_ROOT_DIRECTORY",
}  # fmt: skip


def pins(survey: Survey, inspected: outbound.Inspected) -> tuple[str, ...]:
    """Keys of Core, and files with one, that the agent accepts: of its environment where that names some."""
    named = next((survey.settings[name] for name in KEYS_VARIABLES if name in survey.settings), None)
    if named is None:
        return outbound.pins(survey, inspected)
    return tuple(understood(entry) or entry for entry in named.split(",") if entry)


def container_facts(survey: ContainerSurvey) -> ServerFacts:
    """The facts that the plan is made from."""
    base, container = survey.base, survey.container
    inspected = {c.path: inspect(c.text) for c in base.configs if c.text is not None}
    version = releases.printed_version(one(survey.engine, "version")) or base.log.version
    edits = survey.edit.planned(survey.compose.get("git", ())) if survey.edit else ()
    pinned = pins(base, inspected)
    is_open = open_today(base, inspected)
    found = [*_findings(survey, version, edits), *outbound.findings(base, inspected)]
    for config in base.configs:
        if config.path in inspected:
            found += findings.config_findings(base, config, inspected[config.path])
    found += aliases.findings(base.server.name, findings.contents_of(base.configs), base.settings)
    found += findings.misspelt_findings(base)
    found += findings.logging_findings(base)
    if is_open:
        found += findings.open_agent(base, found)
    refused = any(f.severity is Severity.REFUSE for f in found)
    current = version == base.target and container.running and bool(pinned) and not refused
    return ServerFacts(
        name=base.server.name,
        install=Install.CONTAINER,
        reachable=True,
        current=current and not [e for e in edits if not e.with_key],
        version=version,
        running_version=version if container.running else "",
        arch=releases.arch_of(one(base.machine, "machine")),
        os_name=one(base.machine, "os"),
        free_bytes=int(one(survey.engine, "docker_free") or 0),
        clock_ahead=base.clock_ahead,
        config_paths=tuple(c.path for c in base.configs),
        container=_container(survey, version),
        edits=edits,
        pinned_keys=pinned,
        file_keys=tuple(key for entry in pinned if (key := base.key_files.get(entry))),
        outbound=bool(outbound.addresses(base, inspected)),
        open_today=is_open,
        state_place=one(base.files, "state_place"),
        sources=_sources(survey),
        findings=tuple(found),
    )


def _container(survey: ContainerSurvey, version: str) -> ContainerFacts | None:
    if survey.project is None:
        return None
    container = survey.container
    target = survey.edit.images.get(container.service, "") if survey.edit else ""
    service = service_facts(container, version=version, target_image=target, repo_digest=survey.repo_digest)
    service = with_target_digest(service, survey.published)
    return ContainerFacts(project=survey.project, service=service, services=survey.services, in_core_project=False)


def _sources(survey: ContainerSurvey) -> tuple[str, ...]:
    container, project = survey.container, survey.project
    lines = [f"container {container.name} ({container.image})"]
    if project is not None:
        lines.append(f"project {project.name} in {project.directory}, from the container's labels")
        lines += [f"compose file {path}" for path in project.files]
    lines += [f"config file {config.path}, mounted in {container.name}" for config in survey.base.configs]
    return tuple(lines)


# --- findings ---------------------------------------------------------------------------------------------------------


def _findings(survey: ContainerSurvey, version: str, edits: Sequence[PlannedEdit]) -> Iterator[Finding]:
    base = survey.base
    yield from findings.machine_findings(base)
    yield from survey.refusals
    yield from _state(survey)
    yield from _version(survey, version)
    yield from _engine(survey, version)
    yield from foreign_findings(base.server.name, base.files.get("foreign", ()), [e.path for e in edits])
    for folder in survey.compose.get("git", ()):
        yield _say(
            survey,
            "git",
            Severity.WARN,
            f"the agent's files lie in a git work tree ({folder}): a pull or a bot may take the edits back",
            "commit the edits after the upgrade, and check bots that change image tags",
        )


def _say(survey: ContainerSurvey, code: str, severity: Severity, text: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=severity, subject=survey.base.server.name, text=text, hint=hint)


def _refuse(survey: ContainerSurvey, code: str, text: str, hint: str) -> Finding:
    return _say(survey, code, Severity.REFUSE, text, hint)


def _state(survey: ContainerSurvey) -> Iterator[Finding]:
    container, name = survey.container, survey.base.server.name
    if not container.running:
        yield _refuse(
            survey,
            "agent-not-running",
            f"the agent's container {container.name} does not run",
            f'`docker start {container.name}`, or name "{name}" in leave_behind: a rollback could not be verified',
        )
    free = int(one(survey.engine, "docker_free") or 0)
    if free and free < IMAGE_BYTES:
        yield _refuse(
            survey,
            "no-space",
            f"{free // 2**20} MiB are free for Docker's images, {IMAGE_BYTES // 2**20} are needed",
            "`docker image prune` on that host, then run check again",
        )


def _version(survey: ContainerSurvey, version: str) -> Iterator[Finding]:
    numbers, target = releases.version_of(version), survey.base.target
    if numbers is None:
        yield _refuse(
            survey,
            "version-unknown",
            f"the version of the agent in {survey.container.name} is unknown: `periphery --version` fails in it, and "
            "its log does not reach back to its start",
            f"`docker restart {survey.container.name}`, then run check again",
        )
    elif numbers > (releases.version_of(target) or releases.FIRST_V2):
        yield _refuse(
            survey,
            "newer-than-target",
            f"its agent is {version}, newer than the target {target}",
            f'set target = "{version}" or newer',
        )
    elif numbers < releases.OLDEST_AGENT:
        oldest = ".".join(map(str, releases.OLDEST_AGENT))
        yield _say(
            survey,
            "very-old-agent",
            Severity.WARN,
            f"its agent is {version}; versions before {oldest} were never tried",
        )


def _engine(survey: ContainerSurvey, version: str) -> Iterator[Finding]:
    """The agent's image has its own Docker CLI and Compose, which speak to the host's engine.

    Staging proves the CLI of the new image on the host; here is what is known before it is pulled.
    """
    engine, _, api = one(survey.engine, "engine").partition(" ")
    numbers = _numbers(api)
    older_agent = (releases.version_of(version) or releases.FIRST_V2) < releases.FIRST_V2
    systemd = "or install the agent under systemd, where it uses the host's own docker and compose"
    if numbers and numbers < OLDEST_API:
        least = ".".join(map(str, OLDEST_API))
        yield _say(
            survey,
            "engine-too-old",
            Severity.REFUSE if older_agent else Severity.WARN,
            f"Docker Engine {engine} speaks API {api}, but the Docker CLI in v2's image needs {least} (Docker 19.03): "
            "Komodo could do nothing with Docker on this host",
            f"upgrade Docker; {systemd}",
        )
    elif numbers and numbers < SMOOTH_API:
        yield _say(
            survey,
            "engine-old",
            Severity.WARN,
            f"Docker Engine {engine} (API {api}) is much older than the Docker CLI and Compose v5 in v2's image: "
            "stacks with networks failed to deploy on such hosts (moghtech/komodo#1305)",
            f"upgrade Docker to 25.0 or newer; {systemd}",
        )
    elif _numbers(engine) and _numbers(engine) < (SMOOTH_ENGINE,):
        yield _say(
            survey,
            "engine-old",
            Severity.WARN,
            f"Docker Engine {engine} is older than the Docker CLI in v2's image: actions of stacks failed at times on "
            "such hosts (moghtech/komodo#1249)",
            f"upgrade Docker to {SMOOTH_ENGINE} or newer",
        )


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit()) if parts[0].isdigit() else ()
