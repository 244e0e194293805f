"""`docker compose` v2: config, up, stop and start, on the project's real files.

A service is re-created when its resolved configuration or its image changed, as Compose does it. What it prints goes
to standard error, as Compose's progress does.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sandbox.docker.compose_model import ComposeError, Project, Service, as_map, load
from sandbox.docker.engine import Container, Engine, Mount, Spec
from sandbox.docker.image_commands import pull_image
from sandbox.machine.call import Call, options

VERSION = "2.40.3"
OLD_VERSION = "1.29.2"
_LABEL = "com.docker.compose."


async def run(call: Call, engine: Engine, argv: list[str], *, old: bool = False) -> int:
    """`docker compose [-p P] [-f F]… [--env-file E] COMMAND …`. `old`: as docker-compose 1.29."""
    valued = "-p --project-name -f --file --env-file --project-directory --profile --ansi --progress --parallel"
    found, words = options(argv, valued, first=True)
    if not words:
        call.err("\nUsage:  docker compose [OPTIONS] COMMAND\n")
        return 1
    command, rest = words[0], words[1:]
    if command == "version":
        short = "--short" in rest
        version = OLD_VERSION if old else VERSION
        call.out(f"{version}\n" if short else f"Docker Compose version v{version}\n")
        return 0
    try:
        project = load(
            cwd=Path(call.cwd),
            files=found.get("-f", []) + found.get("--file", []),
            env_files=found.get("--env-file", []),
            name=(found.get("-p", []) + found.get("--project-name", []) + [""])[0],
            directory=(found.get("--project-directory") or [""])[0],
            env=call.env,
        )
    except ComposeError as error:
        call.err(f"{error}\n")
        return error.code
    for warning in project.warnings:
        call.err(f'time="2026-11-23T20:00:00Z" level=warning msg="{warning}"\n')
    flags, services = options(rest, "-t --timeout --pull --format --scale --wait-timeout")
    unknown = [s for s in services if s not in project.services]
    if unknown:
        call.err(f"no such service: {unknown[0]}\n")
        return 1
    if old and command == "config" and {"--images", "--format"} & flags.keys():
        call.err("Resolve and view the Compose file.\n\nUsage: config [options]\n")
        return 1
    project.old = old
    handler = _COMMANDS.get(command)
    if handler is None:
        call.err(f'unknown docker command: "compose {command}"\n')
        return 1
    code: int = await handler(call, engine, project, flags, services)
    return code


def containers(engine: Engine, project: Project, service: str = "") -> list[Container]:
    """The project's containers, by their labels."""
    return [
        c
        for c in engine.containers.values()
        if c.spec.labels.get(_LABEL + "project") == project.name
        and (not service or c.spec.labels.get(_LABEL + "service") == service)
    ]


async def _config(
    call: Call, _engine: Engine, project: Project, flags: dict[str, list[str]], services: list[str]
) -> int:
    chosen = [s for s in project.services.values() if not services or s.name in services]
    if "--quiet" in flags or "-q" in flags:
        return 0
    if "--images" in flags:
        call.out("".join(f"{s.image}\n" for s in chosen))
    elif "--services" in flags:
        call.out("".join(f"{s.name}\n" for s in chosen))
    elif "--hash" in flags:
        call.out("".join(f"{s.name} {s.hash}\n" for s in chosen))
    else:
        resolved = _resolved(project, chosen)
        if "--format" in flags:
            call.out(json.dumps(resolved, indent=2) + "\n")
        else:
            YAML(typ="safe", pure=True).dump(resolved, stream := io.StringIO())
            call.out(stream.getvalue())
    return 0


def _resolved(project: Project, chosen: list[Service]) -> dict[str, Any]:
    services = {}
    for service in chosen:
        raw = {k: v for k, v in service.raw.items() if k not in {"env_file", "environment"}}
        mounts = [
            {"type": m.kind, "source": m.name or str(m.source), "target": m.destination}
            for m in _mounts(project, service, None)
        ]
        services[service.name] = {
            **raw, "image": service.image, "environment": service.environment, "volumes": mounts,
        }  # fmt: skip
    return {"name": project.name, "services": services, "volumes": project.volumes}


async def _up(call: Call, engine: Engine, project: Project, flags: dict[str, list[str]], services: list[str]) -> int:
    world, host = engine.host.world, engine.host.name
    if world.faults.strike("up-does-nothing", host):
        call.err("Error response from daemon: driver failed programming external connectivity on endpoint: timeout\n")
        return 1
    if world.faults.strike("up-keeps-old", host):
        return await _start(call, engine, project, flags, services)
    order: list[str] = []
    for name in services or list(project.services):
        _collect(project, name, order, deep="--no-deps" not in flags)
    for name in order:
        complaint = await _ensure_image(call, engine, project.services[name], pull=(flags.get("--pull") or [""])[0])
        if complaint:
            call.err(f"Error response from daemon: {complaint}\n")
            return 1
    for name in order:
        force, start = "--force-recreate" in flags, "--no-start" not in flags
        await _converge(call, engine, project, project.services[name], force=force, start=start)
    return 0


def _collect(project: Project, name: str, order: list[str], *, deep: bool) -> None:
    if deep:
        for dependency in project.services[name].depends:
            _collect(project, dependency, order, deep=deep)
    if name not in order:
        order.append(name)


async def _ensure_image(call: Call, engine: Engine, service: Service, *, pull: str) -> str:
    if engine.store.find(service.image) is not None and pull != "always":
        return ""
    if pull == "never":
        return f"No such image: {service.image}"
    call.err(f" {service.name} Pulling \n")
    complaint = await pull_image(engine, service.image)
    call.err(f" {service.name} {'Error' if complaint else 'Pulled'} \n")
    return complaint


async def _converge(
    call: Call, engine: Engine, project: Project, service: Service, *, force: bool, start: bool
) -> None:
    existing = containers(engine, project, service.name)
    image = engine.store.find(service.image)
    assert image is not None
    if existing:
        container = existing[0]
        same = container.spec.labels[_LABEL + "config-hash"] == service.hash and container.image is image
        if same and not force:
            if container.status == "running":
                call.err(f" Container {container.name}  Running\n")
            elif start:
                call.err(f" Container {container.name}  Starting\n")
                await engine.start(container)
                call.err(f" Container {container.name}  Started\n")
            return
        call.err(f" Container {container.name}  Recreate\n")
        await engine.remove(container)
        new = engine.create(_spec(engine, project, service, replaces=container.name))
        call.err(f" Container {new.name}  Recreated\n")
    else:
        _announce_volumes(call, engine, project, service)
        new = engine.create(_spec(engine, project, service))
        call.err(f" Container {new.name}  Creating\n Container {new.name}  Created\n")
    if not start:
        return
    call.err(f" Container {new.name}  Starting\n")
    await engine.start(new)
    call.err(f" Container {new.name}  Started\n")


def _announce_volumes(call: Call, engine: Engine, project: Project, service: Service) -> None:
    for mount in _mounts(project, service, None):
        if mount.kind == "volume" and not (engine.folder / "volumes" / mount.name).exists():
            call.err(f' Volume "{mount.name}"  Creating\n Volume "{mount.name}"  Created\n')


def _mounts(project: Project, service: Service, engine: Engine | None) -> list[Mount]:
    mounts = []
    for entry in service.raw.get("volumes") or []:
        if isinstance(entry, dict):
            kind, source = str(entry.get("type", "volume")), str(entry.get("source", ""))
            target, read_only = str(entry["target"]), bool(entry.get("read_only", False))
        else:
            parts = str(entry).split(":")
            source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
            read_only = "ro" in parts[2:]
            kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
        if kind == "bind":
            mounts.append(Mount("bind", (project.directory / source).resolve(), target, read_only=read_only))
            continue
        if source and source not in project.volumes:
            raise ComposeError(f'service "{service.name}" refers to undefined volume {source}: invalid compose project')
        settings = project.volumes.get(source) or {}
        name = str(settings.get("name") or f"{project.name}_{source}")
        if settings.get("external") and not settings.get("name"):
            name = source
        path = engine.volume(name) if engine else Path("/nowhere") / name
        mounts.append(Mount("volume", path, target, name, read_only))
    return mounts


def _ports(service: Service) -> list[tuple[str, int, int]]:
    found = []
    for entry in service.raw.get("ports") or []:
        if isinstance(entry, dict):
            published = int(entry.get("published") or 0)
            found.append((str(entry.get("host_ip", "")), published, int(entry["target"])))
            continue
        *front, inner = str(entry).removesuffix("/tcp").split(":")
        outer = int(front[-1]) if front else 0
        found.append((":".join(front[:-1]), outer, int(inner)))
    return found


def _spec(engine: Engine, project: Project, service: Service, replaces: str = "") -> Spec:
    image = engine.store.find(service.image)
    labels = {k: v or "" for k, v in as_map(service.raw.get("labels")).items()}
    labels |= {
        _LABEL + "config-hash": service.hash,
        _LABEL + "container-number": "1",
        _LABEL + "depends_on": ",".join(f"{d}:service_started:false" for d in service.depends),
        _LABEL + "image": image.id if image else "",
        _LABEL + "oneoff": "False",
        _LABEL + "project": project.name,
        _LABEL + "project.config_files": ",".join(project.typed if project.old else map(str, project.files)),
        _LABEL + "project.working_dir": str(project.directory),
        _LABEL + "service": service.name,
        _LABEL + "version": OLD_VERSION if project.old else VERSION,
    }
    if project.env_files and not project.old:
        labels[_LABEL + "project.environment_file"] = ",".join(str(f) for f in project.env_files)
    if replaces:
        labels[_LABEL + "replace"] = replaces
    init = service.raw.get("init")
    command = service.raw.get("command")
    default_name = ("_" if project.old else "-").join((project.name, service.name, "1"))
    return Spec(
        name=str(service.raw.get("container_name") or default_name),
        image=service.image,
        env=[f"{k}={v}" for k, v in service.environment.items()],
        labels=labels,
        mounts=_mounts(project, service, engine),
        ports=_ports(service),
        network=f"{project.name}_default",
        aliases=(service.name,),
        restart=str(service.raw.get("restart") or "no"),
        init=bool(init) if init is not None else None,
        cmd=command.split() if isinstance(command, str) else command,
    )


async def _stop(call: Call, engine: Engine, project: Project, _flags: dict[str, list[str]], services: list[str]) -> int:
    for container in containers(engine, project):
        if (not services or container.spec.labels[_LABEL + "service"] in services) and container.status != "exited":
            call.err(f" Container {container.name}  Stopping\n")
            await engine.stop(container)
            call.err(f" Container {container.name}  Stopped\n")
    return 0


async def _start(
    call: Call, engine: Engine, project: Project, _flags: dict[str, list[str]], services: list[str]
) -> int:
    for name in services or list(project.services):
        found = containers(engine, project, name)
        if not found:
            call.err(f'service "{name}" has no container to start\n')
            return 1
        call.err(f" Container {found[0].name}  Starting\n")
        await engine.start(found[0])
        call.err(f" Container {found[0].name}  Started\n")
    return 0


_COMMANDS: dict[str, Any] = {"config": _config, "up": _up, "stop": _stop, "start": _start}
