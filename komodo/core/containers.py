"""Core's compose project, read from the output of `docker inspect`: its containers, project and files.

Labels: `com.docker.compose.*`, written by docker compose v2 and (no `environment_file`, file names as typed)
by docker-compose 1.x. Komodo's images: ghcr.io/moghtech/komodo-core and -periphery; up to v1.16
ghcr.io/mbecker20/komodo and periphery (v1.16.12:compose/); in v1.17.0-dev ghcr.io/moghtech/komodo and periphery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from model.facts import ComposeProject, Finding, ServiceFacts, Severity
from model.fleet.spec import CoreSpec

LABEL = "com.docker.compose."
_KINDS = {
    "komodo-core": "core",
    "komodo-periphery": "periphery",
    "mbecker20/komodo": "core",
    "mbecker20/periphery": "periphery",
    "moghtech/komodo": "core",
    "moghtech/periphery": "periphery",
}
CORE_PORT = 9120
IMAGE_PIN = "komodo-upgrade-keep-"
"""Prefix of the created, never started containers that hold images; they are no cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a container."""

    kind: str
    """bind | volume"""
    source: str
    """On the host."""
    destination: str
    name: str = ""
    """Of a named volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The needed part of one entry of `docker inspect`. The environment holds secrets and is left out of repr."""

    id: str
    name: str
    image: str
    image_id: str
    running: bool = False
    pid: int = 0
    """Of its first process, on the host; 0 while it is stopped."""
    restarts: int = 0
    started_at: str = ""
    exit_code: int = 0
    init: bool = False
    user: str = ""
    """`user:` as written: "1000:1000"; empty: root."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """Entrypoint and command."""
    network_mode: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """network -> names this container has there."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """network -> address; empty while it is stopped."""
    mounts: tuple[Mount, ...] = ()
    ports: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """container's TCP port -> (host address, host port) as configured, so also while it is stopped."""

    @property
    def kind(self) -> str:
        """core | periphery | "" by its image."""
        return image_kind(self.image)

    @property
    def service(self) -> str:
        """Of the compose project."""
        return self.labels.get(f"{LABEL}service", "")

    @property
    def project(self) -> str:
        """Of the compose project."""
        return self.labels.get(f"{LABEL}project", "")

    def setting(self, name: str) -> str:
        """An environment variable. Komodo reads names in any case (envy), so this does too."""
        wanted = name.lower()
        return next((v for k, v in self.env.items() if k.lower() == wanted), "")

    def host_path(self, inside: str) -> str:
        """Where a path of the container lies on the host; "" when no mount covers it."""
        best = ""
        found = ""
        for mount in self.mounts:
            where = mount.destination.rstrip("/") or "/"
            if (inside == where or inside.startswith(where + "/")) and len(where) > len(best):
                best, found = where, mount.source.rstrip("/") + inside[len(where) :]
        return found

    def mount_at(self, destination: str) -> Mount | None:
        """The mount at exactly this path."""
        return next((m for m in self.mounts if m.destination.rstrip("/") == destination), None)


def image_kind(image: str) -> str:
    """`core`, `periphery` or "": by the repository's name, in any registry (mirrors keep the name)."""
    name = image.split("@", 1)[0]
    head, _, tail = name.rpartition("/")
    path = "/".join(p for p in (head, tail.split(":", 1)[0]) if p)
    for known, kind in _KINDS.items():
        if path == known or path.endswith("/" + known):
            return kind
    return ""


def parse_containers(text: str) -> tuple[Container, ...]:
    """The output of `docker inspect ID…`, by name, without our own image pins. ValueError when it is no JSON list."""
    entries = json.loads(text or "[]")
    if not isinstance(entries, list):
        raise ValueError("docker inspect did not print a list")  # noqa: TRY004 - one error for one situation
    found = (_container(e) for e in entries if isinstance(e, dict))
    return tuple(sorted((c for c in found if not c.name.startswith(IMAGE_PIN)), key=lambda c: c.name))


def without_environment(text: str) -> str:
    """`docker inspect`'s JSON for the run's folder: the values of every environment variable replaced."""
    entries = json.loads(text or "[]")
    for entry in entries:
        config = entry.get("Config") or {}
        config["Env"] = [f"{v.partition('=')[0]}=***" for v in config.get("Env") or []]
        for part in ("Cmd", "Entrypoint"):
            config[part] = [_URI_LOGIN.sub(r"\1***@", str(w)) for w in config.get(part) or []] or None
        entry["Args"] = [_URI_LOGIN.sub(r"\1***@", str(w)) for w in entry.get("Args") or []]
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"


_URI_LOGIN = re.compile(r"([a-z][a-z0-9+.\-]*://)[^\s/@]*@")


# --- which container ------------------------------------------------------------------------------------------------


def find_core(containers: Sequence[Container], spec: CoreSpec) -> Container | Finding:
    """Core's container: the one the fleet file names, else the only one that runs Komodo Core's image."""
    if spec.container:
        named = [c for c in containers if c.name == spec.container or c.id.startswith(spec.container)]
        if named:
            return named[0]
        return refuse(
            "core-not-found",
            f"there is no container {spec.container!r} on Core's host",
            "correct [core].container; `docker ps -a` lists the containers",
        )
    cores = [c for c in containers if c.kind == "core"]
    if len(cores) > 1 and sum(c.running for c in cores) == 1:
        cores = [c for c in cores if c.running]
    if len(cores) == 1:
        return cores[0]
    if cores:
        names = ", ".join(c.name for c in cores)
        return refuse(
            "several-cores",
            f"several containers run Komodo Core: {names}",
            'name the one to upgrade in the fleet file: [core] container = "…"',
        )
    return refuse(
        "core-not-found",
        "no container runs Komodo Core's image (ghcr.io/moghtech/komodo-core, ghcr.io/mbecker20/komodo)",
        'an image of your own is found by [core] container = "…"; is [core].host the right machine?',
    )


def find_agent(containers: Iterable[Container], core: Container) -> Container | None:
    """The `periphery` container of Core's own project (the official files have one)."""
    if not core.project:
        return None
    agents = [c for c in containers if c.project == core.project and c.kind == "periphery"]
    running = [c for c in agents if c.running]
    return (running or agents or [None])[0]  # type: ignore[list-item]


def find_database(
    containers: Iterable[Container], core: Container, host: str, port: int
) -> tuple[Container, str] | None:
    """The container that Core reaches as `host:port`, and its address as seen from the host itself."""
    for other in containers:
        if other.id == core.id:
            continue
        for network in core.networks:
            names = other.networks.get(network, ())
            address = other.addresses.get(network, "")
            if host and (host in names or host == address):
                return other, f"{address}:{port}" if address else ""
    if core.network_mode == "host" or host in ("host.docker.internal", "172.17.0.1"):
        for other in containers:
            for bindings in other.ports.values():
                for bound, published in bindings:
                    if published == str(port) and other.kind == "":
                        return other, f"{loopback(bound)}:{published}"
    return None


# --- the compose project --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The project of the labels. File names may be relative; they are tried in `folders`, in order."""

    name: str
    directory: str
    files: tuple[str, ...]
    env_files: tuple[str, ...]
    folders: tuple[str, ...]
    sources: tuple[str, ...]


def labelled_project(core: Container, spec: CoreSpec) -> Labelled | Finding:
    """Project, folder, compose files and env file by label, each overridden by the fleet file."""
    label = {k.removeprefix(LABEL): v for k, v in core.labels.items() if k.startswith(LABEL)}
    name = spec.project or label.get("project", "")
    files = spec.compose_files or _split(label.get("project.config_files", ""))
    directory = spec.project_dir or label.get("project.working_dir", "")
    if not directory and files and PurePosixPath(files[0]).is_absolute():
        directory = str(PurePosixPath(files[0]).parent)
    if not name or not files or not directory:
        return refuse(
            "not-compose",
            f"container {core.name} has no docker compose labels: it was started by docker run or a panel",
            "move it into a compose file first, or set all of project, project_dir and compose_files in [core]",
        )
    env_files = (spec.env_file,) if spec.env_file else _split(label.get("project.environment_file", ""))
    return Labelled(
        name=name,
        directory=directory,
        files=files,
        env_files=env_files,
        folders=(directory, str(PurePosixPath(directory).parent)),
        sources=(
            f"project {name}, from " + ("[core].project" if spec.project else f"a label of {core.name}"),
            f"directory {directory}, from " + ("[core].project_dir" if spec.project_dir else f"a label of {core.name}"),
            f"compose files {', '.join(files)}, from "
            + ("[core].compose_files" if spec.compose_files else f"a label of {core.name}"),
        ),
    )


def candidates(path: str, folders: Sequence[str]) -> tuple[str, ...]:
    """Absolute paths a file name of a label may mean, likeliest first.

    docker-compose 1.x writes the name as typed, relative to the folder the command was run in, which no label holds:
    the project's directory, or (the official command) the one above it.
    """
    if PurePosixPath(path).is_absolute():
        return (str(PurePosixPath(path)),)
    clean = path.removeprefix("./")
    found = [str(PurePosixPath(folder) / clean) for folder in folders]
    found.append(str(PurePosixPath(folders[0]) / PurePosixPath(clean).name))
    return tuple(dict.fromkeys(found))


def compose_command(project: ComposeProject, *, files: Sequence[str] = (), env_file: str = "") -> tuple[str, ...]:
    """The words before the sub-command. With `files` and `env_file`: the same project from staged copies."""
    words = [*project.command, "-p", project.name]
    for path in files or project.files:
        words += ["-f", path]
    if env_file or project.env_file:
        words += ["--env-file", env_file or project.env_file]
    if files or str(PurePosixPath(project.files[0]).parent) != project.directory:
        words += ["--project-directory", project.directory]
    return tuple(words)


def stack_of_komodo(directory: str, containers: Iterable[Container]) -> str:
    """The folder of Komodo's own stacks or repos that the project lies in; "" when it lies elsewhere.

    Periphery keeps them in `<root_directory>/stacks` and `/repos` (v1.19.5:config/periphery.config.toml).
    """
    roots = {"/etc/komodo/stacks", "/etc/komodo/repos"}
    for container in containers:
        if container.kind == "periphery":
            root = container.setting("PERIPHERY_ROOT_DIRECTORY") or "/etc/komodo"
            roots |= {
                container.setting("PERIPHERY_STACK_DIR") or f"{root}/stacks",
                container.setting("PERIPHERY_REPO_DIR") or f"{root}/repos",
            }
    inside = [r for r in sorted(roots) if directory == r or directory.startswith(r.rstrip("/") + "/")]
    return inside[0] if inside else ""


def service_facts(
    container: Container, *, version: str = "", target_image: str = "", repo_digest: str = ""
) -> ServiceFacts:
    """One Komodo service, as it goes into the plan."""
    return ServiceFacts(
        service=container.service,
        container=container.name,
        image=container.image,
        image_id=container.image_id,
        version=version,
        target_image=target_image,
        repo_digest=repo_digest,
    )


def published(core: Container, port: int) -> str:
    """host:port where Core answers on its own host; "" when its port is not published there (or on a random one)."""
    if core.network_mode == "host":
        return f"127.0.0.1:{port}"
    for bound, outside in core.ports.get(port, ()):
        if outside and outside != "0":
            return f"{loopback(bound)}:{outside}"
    return ""


def address_of(container: Container, port: int) -> str:
    """address:port of a running container on its first network; "" when it has none."""
    address = next((a for a in container.addresses.values() if a), "")
    return f"{address}:{port}" if address else ""


def loopback(bound: str) -> str:
    """Where a port bound to this address is reached from its own host."""
    return "127.0.0.1" if bound in ("", "0.0.0.0", "::", "::0") else bound  # noqa: S104 - compared, not bound


def refuse(code: str, text: str, hint: str = "") -> Finding:
    """A finding about Core that forbids the upgrade."""
    return Finding(code=code, severity=Severity.REFUSE, subject="core", text=text, hint=hint)


def warn(code: str, text: str, hint: str = "") -> Finding:
    """A finding about Core that an approver must know."""
    return Finding(code=code, severity=Severity.WARN, subject="core", text=text, hint=hint)


def info(code: str, text: str, hint: str = "") -> Finding:
    """A warning about Core."""
    return Finding(code=code, severity=Severity.INFO, subject="core", text=text, hint=hint)


# --- parsing --------------------------------------------------------------------------------------------------------


def _container(entry: Mapping[str, Any]) -> Container:
    config = entry.get("Config") or {}
    host = entry.get("HostConfig") or {}
    state = entry.get("State") or {}
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    name = str(entry.get("Name", "")).lstrip("/")
    labels = {str(k): str(v) for k, v in (config.get("Labels") or {}).items()}
    return Container(
        id=str(entry.get("Id", "")),
        name=name,
        image=str(config.get("Image", "")),
        image_id=str(entry.get("Image", "")),
        running=bool(state.get("Running")) and not state.get("Restarting"),  # docker sets both in a crash loop
        pid=int(state.get("Pid") or 0),
        restarts=int(entry.get("RestartCount") or 0),
        started_at=str(state.get("StartedAt", "")),
        exit_code=int(state.get("ExitCode") or 0),
        init=bool(host.get("Init")),
        user=str(config.get("User") or ""),
        command=tuple(str(w) for part in ("Entrypoint", "Cmd") for w in config.get(part) or ()),
        network_mode=str(host.get("NetworkMode", "")),
        env=dict(_variable(v) for v in config.get("Env") or []),
        labels=labels,
        networks={
            network: tuple(
                dict.fromkeys(
                    [
                        name,
                        *(n.get("Aliases") or []),
                        *(n.get("DNSNames") or []),
                        *([labels[f"{LABEL}service"]] if f"{LABEL}service" in labels else []),
                    ]
                )
            )
            for network, n in networks.items()
        },
        addresses={network: str(n.get("IPAddress") or "") for network, n in networks.items()},
        mounts=tuple(
            Mount(
                kind=str(m.get("Type", "bind")),
                source=str(m.get("Source", "")),
                destination=str(m.get("Destination", "")),
                name=str(m.get("Name", "")),
            )
            for m in entry.get("Mounts") or []
        ),
        ports=_ports(host.get("PortBindings") or {}),
    )


def _ports(bindings: Mapping[str, Any]) -> dict[int, tuple[tuple[str, str], ...]]:
    found: dict[int, tuple[tuple[str, str], ...]] = {}
    for inside, outside in bindings.items():
        number, _, protocol = inside.partition("/")
        if protocol in ("", "tcp") and number.isdigit():
            found[int(number)] = tuple((str(b.get("HostIp", "")), str(b.get("HostPort", ""))) for b in outside or [])
    return found


def _variable(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _split(text: str) -> tuple[str, ...]:
    return tuple(p.strip() for p in text.split(",") if p.strip())
