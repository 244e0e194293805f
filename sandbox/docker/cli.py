"""The stand-in for the docker client: the commands an operator's scripts use, with Docker's words and exit codes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from sandbox.docker import compose_cli, container_exec, copy, go_template, image_commands
from sandbox.docker.engine import Container, Engine, Spec
from sandbox.docker.image_commands import pull_image
from sandbox.docker.output import missing, print_values, status
from sandbox.machine.call import Call, options
from sandbox.mongo import km
from sandbox.world import now

Command = Callable[[Call, Engine, list[str]], Awaitable[int]]


async def run(engine: Engine, call: Call) -> int:
    """`docker COMMAND …`."""
    words = list(call.argv)
    while words and words[0].startswith("-"):
        if words.pop(0) in {"-H", "--host", "-c", "--context", "--config", "-l"} and words:
            words.pop(0)
    if not call.root:
        call.err(
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock:"
            ' Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.51/info": dial unix /var/run/docker.sock: connect:'
            " permission denied\n"
        )
        return 1
    if words[:1] == ["compose"] and engine.old_compose:
        call.err("docker: 'compose' is not a docker command.\nSee 'docker --help'\n")
        return 1
    name = " ".join(words[:2])
    if name in _COMMANDS:
        return await _COMMANDS[name](call, engine, words[2:])
    if words[:1] and words[0] in _COMMANDS:
        return await _COMMANDS[words[0]](call, engine, words[1:])
    call.err(
        f"docker: unknown command: docker {words[0] if words else ''}\n\nRun 'docker --help' for more information\n"
    )
    return 1


async def old_compose(engine: Engine, call: Call) -> int:
    """`docker-compose` 1.29."""
    return await compose_cli.run(call, engine, list(call.argv), old=True)


async def _ps(call: Call, engine: Engine, argv: list[str]) -> int:
    found, _ = options(argv, "--format -f --filter -n --last")
    everything = "-a" in found or "--all" in found
    listed = sorted(engine.containers.values(), key=lambda c: c.created, reverse=True)
    listed = [c for c in listed if everything or c.status == "running"]
    for condition in found.get("-f", []) + found.get("--filter", []):
        key, _, value = condition.partition("=")
        listed = [c for c in listed if _matches(engine, c, key, value)]
    whole = "--no-trunc" in found
    if "-q" in found or "--quiet" in found:
        call.out("".join(f"{c.id if whole else c.id[:12]}\n" for c in listed))
        return 0
    template = (found.get("--format") or ["{{.ID}}   {{.Image}}   {{.Status}}   {{.Names}}"])[0]
    template = "{{json .}}" if template == "json" else template
    call.out("".join(go_template.render(template, _row(c, whole=whole)) + "\n" for c in listed))
    return 0


def _matches(engine: Engine, container: Container, key: str, value: str) -> bool:
    labels = engine.inspect(container)["Config"]["Labels"]
    if key == "label":
        name, equals, wanted = value.partition("=")
        return name in labels and (not equals or labels[name] == wanted)
    if key == "name":
        return re.search(value.lstrip("^/"), container.name) is not None
    if key == "status":
        return container.status == value
    if key == "id":
        return container.id.startswith(value)
    if key == "ancestor":
        return engine.store.find(value) is container.image
    return True


def _row(container: Container, *, whole: bool) -> dict[str, str]:
    return {
        "ID": container.id if whole else container.id[:12],
        "Image": container.spec.image,
        "Status": status(container),
        "State": container.status,
        "Names": container.name,
        "Labels": ",".join(f"{k}={v}" for k, v in container.spec.labels.items()),
    }


async def _inspect(call: Call, engine: Engine, argv: list[str]) -> int:
    found, names = options(argv, "-f --format --type")
    kind = (found.get("--type") or [""])[0]
    values, code = [], 0
    for name in names:
        container = engine.find(name) if kind in ("", "container") else None
        image = engine.store.find(name) if container is None and kind in ("", "image") else None
        if container is not None:
            values.append(engine.inspect(container))
        elif image is not None:
            values.append(image.inspect())
        else:
            what = {"container": "container", "image": "image"}.get(kind, "object")
            call.err(f"Error: No such {what}: {name}\n")
            code = 1
    return print_values(call, found, values, code)


async def _create(call: Call, engine: Engine, argv: list[str]) -> int:
    valued = "--name --label -l --entrypoint -e --env -v --volume --network --restart --pull -p --publish --user"
    found, words = options(argv, valued, first=True)
    if not words:
        call.err("docker: 'docker create' requires at least 1 argument\n")
        return 1
    name = (found.get("--name") or [""])[0] or f"sandbox_{len(engine.containers)}"
    if engine.store.find(words[0]) is None:
        call.err(f"Unable to find image '{words[0]}' locally\n")
        complaint = await pull_image(engine, words[0])
        if complaint or (found.get("--pull") or [""])[0] == "never":
            call.err(f"docker: Error response from daemon: {complaint or 'No such image: ' + words[0]}\n")
            return 125
    existing = engine.find(name)
    if existing is not None and existing.name == name:
        call.err(
            f'Error response from daemon: Conflict. The container name "/{name}" is already in use by container'
            f' "{existing.id}". You have to remove (or rename) that container to be able to reuse that name.\n'
        )
        return 1
    labels = dict((label + "=").split("=")[:2] for label in found.get("--label", []) + found.get("-l", []))
    container = engine.create(Spec(name=name, image=words[0], labels=labels, cmd=words[1:] or None))
    call.out(f"{container.id}\n")
    return 0


async def _run(call: Call, engine: Engine, argv: list[str]) -> int:
    """`docker run --rm --entrypoint CMD IMAGE ARG…`: one program in the foreground, then the container is gone."""
    found, words = options(argv, km.VALUED + " --log-driver -v --volume", first=True)
    entrypoint = (found.get("--entrypoint") or [""])[0]
    if entrypoint == "km" and words[1:2] == ["database"]:
        return await km.run(call, engine, argv)
    if not words or not entrypoint or "--rm" not in found:
        call.err("docker: the simulated docker runs one-off programs only: run --rm --entrypoint CMD IMAGE ARG…\n")
        return 125
    if engine.store.find(words[0]) is None:
        call.err(f"Unable to find image '{words[0]}' locally\n")
        complaint = await pull_image(engine, words[0])
        if complaint:
            call.err(f"docker: Error response from daemon: {complaint}\n")
            return 125
    program = [entrypoint, *words[1:]]
    container = engine.create(Spec(name=f"one-off-{len(call.host.commands)}", image=words[0], cmd=program))
    try:
        return await container_exec.program(call, engine, container, program, interactive="-i" in found)
    finally:
        await engine.remove(container)


async def _remove(call: Call, engine: Engine, argv: list[str]) -> int:
    found, names = options(argv, "")
    force, code = "-f" in found or "--force" in found, 0
    for name in names:
        container = engine.find(name)
        if container is None:
            if not force:
                code = missing(call, name)
        elif container.status in {"running", "restarting"} and not force:
            call.err(
                f'Error response from daemon: cannot remove container "/{container.name}": container is running:'
                " stop the container before removing or force remove\n"
            )
            code = 1
        else:
            await engine.remove(container)
            call.out(f"{name}\n")
    return code


def _life(verb: str) -> Command:
    async def change(call: Call, engine: Engine, argv: list[str]) -> int:
        _, names = options(argv, "-t --time --timeout -s --signal")
        code = 0
        for name in names:
            container = engine.find(name)
            if container is None:
                code = missing(call, name)
                continue
            await (engine.stop(container) if verb == "stop" else engine.start(container))
            call.out(f"{name}\n")
        return code

    return change


async def _logs(call: Call, engine: Engine, argv: list[str]) -> int:
    found, names = options(argv, "--since --until --tail -n")
    container = engine.find(names[0]) if names else None
    if container is None:
        return missing(call, names[0] if names else "")
    since = _moment((found.get("--since") or [""])[0])
    lines = [entry for entry in container.logs if since is None or entry[0] >= since]
    tail = (found.get("--tail", []) + found.get("-n", []) + ["all"])[0]
    if tail.isdigit():
        lines = lines[-int(tail) :] if int(tail) else []
    stamped = "-t" in found or "--timestamps" in found
    for at, stream, text in lines:
        prefix = at.strftime("%Y-%m-%dT%H:%M:%S.%f123Z ") if stamped else ""
        (call.err if stream == "stderr" else call.out)(f"{prefix}{text}\n")
    return 0


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return datetime.fromtimestamp(float(text), UTC)
    span = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if span:
        hours, minutes, seconds = (int(n or 0) for n in span.groups())
        return now() - timedelta(hours=hours, minutes=minutes, seconds=seconds)
    plain = re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00"))
    at = datetime.fromisoformat(plain)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _version(call: Call, engine: Engine, argv: list[str]) -> int:
    found, _ = options(argv, "-f --format")
    value = {"Client": {"Version": engine.version, "APIVersion": engine.api},
             "Server": {"Version": engine.version, "APIVersion": engine.api, "Os": "linux"}}  # fmt: skip
    template = (found.get("-f", []) + found.get("--format", []) + [""])[0]
    if template == "json":
        template = "{{json .}}"
    call.out(go_template.render(template, value) + "\n" if template else f"Server:\n Version: {engine.version}\n")
    return 0


_COMMANDS: dict[str, Command] = {
    "ps": _ps,
    "inspect": _inspect,
    "image inspect": image_commands.inspect,
    "pull": image_commands.pull,
    "buildx imagetools": image_commands.image_tools,
    "create": _create,
    "run": _run,
    "rm": _remove,
    "start": _life("start"),
    "stop": _life("stop"),
    "logs": _logs,
    "version": _version,
    "tag": image_commands.tag,
    "rmi": image_commands.remove,
    "cp": copy.copy,
    "exec": container_exec.run,
    "compose": compose_cli.run,
}
