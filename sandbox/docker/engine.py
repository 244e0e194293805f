"""A Docker engine of one host: images, volumes, networks, containers that run simulated programs.

Containers get loopback addresses of their own, so that what listens in them can be reached through a forward.
Simplified: no layers (a container's own files lie in a folder), no health checks, no CPU or memory limits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sandbox.docker.images import Image, ImageStore
from sandbox.machine.host import SandboxHost
from sandbox.world import now

NEVER = "0001-01-01T00:00:00Z"


class Program(Protocol):
    """What runs in a container. `start` returns an exit code when it ends at once."""

    async def start(self) -> int | None:
        """Begin."""

    async def stop(self) -> None:
        """SIGTERM."""


@dataclass(slots=True)
class Mount:
    """One bind or volume."""

    kind: str
    source: Path
    destination: str
    name: str = ""
    read_only: bool = False

    def inspect(self) -> dict[str, Any]:
        """As under `Mounts`."""
        writable = not self.read_only
        if self.kind == "volume":
            return {"Type": "volume", "Name": self.name, "Source": str(self.source), "Destination": self.destination,
                    "Driver": "local", "Mode": "z", "RW": writable, "Propagation": ""}  # fmt: skip
        return {"Type": "bind", "Source": str(self.source), "Destination": self.destination,
                "Mode": "rw" if writable else "ro", "RW": writable, "Propagation": "rprivate"}  # fmt: skip


@dataclass(slots=True)
class Spec:
    """What a container is created from."""

    name: str
    image: str
    env: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    ports: list[tuple[str, int, int]] = field(default_factory=list)
    """(host IP or "", host port, container port)"""
    network: str = "bridge"
    aliases: tuple[str, ...] = ()
    restart: str = "no"
    init: bool | None = None
    cmd: list[str] | None = None


@dataclass(slots=True)
class Container:
    """One container."""

    id: str
    spec: Spec
    image: Image
    env: list[str]
    created: datetime
    address: str
    rootfs: Path
    status: str = "created"
    exit_code: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    restarts: int = 0
    logs: list[tuple[datetime, str, str]] = field(default_factory=list)
    program: Program | None = None
    wanted: bool = False
    """It was started and not stopped since."""

    @property
    def name(self) -> str:
        """Without Docker's leading slash."""
        return self.spec.name

    @property
    def environment(self) -> dict[str, str]:
        """As its program sees it."""
        return dict(e.split("=", 1) for e in self.env if "=" in e)

    def say(self, line: str, stream: str) -> None:
        """Write to the container's log."""
        self.logs.extend((now(), stream, part) for part in line.split("\n"))

    def locate(self, inside: str) -> Path:
        """Where a path inside really lies."""
        best: Mount | None = None
        for mount in self.spec.mounts:
            if Path(inside).is_relative_to(mount.destination) and (
                best is None or len(mount.destination) > len(best.destination)
            ):
                best = mount
        if best is None:
            return self.rootfs / inside.lstrip("/")
        return best.source / Path(inside).relative_to(best.destination)


def rfc3339(at: datetime | None) -> str:
    """Docker's time: nanoseconds, Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z" if at else NEVER


class Engine:
    """Docker on one host."""

    version = "28.5.1"
    api = "1.51"
    old_compose = False
    """It has docker-compose 1.29 instead of the plugin."""

    def __init__(
        self, host: SandboxHost, run: Callable[[Engine, Container], Program | None], *, first: int = 100
    ) -> None:
        """`first`: last number of its first container's address; the hosts of a fleet share a network."""
        self.host = host
        self.store = ImageStore()
        self.containers: dict[str, Container] = {}
        self.folder = host.root / "var/lib/docker"
        self._run = run
        self._octet = first
        self._free: list[int] = []

    # --- lookups ------------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> Container | None:
        """By name or (short) id."""
        for container in self.containers.values():
            if container.name == reference.lstrip("/"):
                return container
        found = [c for c in self.containers.values() if reference and c.id.startswith(reference)]
        return found[0] if len(found) == 1 else None

    def resolve(self, name: str, network: str) -> Container | None:
        """A running container by the name others of its network use."""
        for container in self.containers.values():
            names = (container.name, *container.spec.aliases)
            if name in names and container.spec.network == network and container.status == "running":
                return container
        return None

    def volume(self, name: str) -> Path:
        """Where a named volume lies; made when it is missing."""
        path = self.folder / "volumes" / name / "_data"
        path.mkdir(parents=True, exist_ok=True)
        return path

    # --- life ---------------------------------------------------------------------------------------------------------

    def create(self, spec: Spec) -> Container:
        """A new container from an image that is here. Raises KeyError without the image."""
        image = self.store.find(spec.image)
        if image is None:
            raise KeyError(spec.image)
        identity = secrets.token_hex(32)
        pairs = (e.partition("=") for e in [*image.config()["Env"], *spec.env])
        base = {key: value for key, _, value in pairs}
        octet = self._free.pop() if self._free else self._octet
        self._octet += octet == self._octet
        container = Container(
            id=identity,
            spec=spec,
            image=image,
            env=[f"{k}={v}" for k, v in base.items()],
            created=now(),
            address=f"{self.host.world.net}.{octet}",
            rootfs=self.folder / "containers" / identity / "rootfs",
        )
        for mount in spec.mounts:
            if mount.kind == "bind" and not mount.source.exists() and mount.source.is_relative_to(self.host.root):
                mount.source.mkdir(parents=True)  # as Docker does for a bind without a source
        (container.rootfs / "tmp").mkdir(parents=True)
        self.containers[identity] = container
        self._save(container)
        return container

    async def start(self, container: Container) -> None:
        """Run its program."""
        if container.status == "running":
            return
        container.wanted = True
        container.restarts = 0
        await self._launch(container)

    async def _launch(self, container: Container) -> None:
        container.status, container.started, container.exit_code = "running", now(), 0
        container.program = self._run(self, container)
        self._save(container)
        code = await container.program.start() if container.program else None
        if code is not None:
            self.exited(container, code)
            return
        # Set last, as a busy Docker does: the first log lines are older than this time.
        container.started = now()
        self._save(container)

    def exited(self, container: Container, code: int) -> None:
        """A program ended by itself."""
        container.status, container.exit_code, container.finished = "exited", code, now()
        container.program = None
        self._save(container)
        if container.wanted and container.spec.restart in {"unless-stopped", "always", "on-failure"}:
            container.status = "restarting"
            self.host.world.spawn(self._again(container))

    async def _again(self, container: Container) -> None:
        await asyncio.sleep(self.host.world.scaled(min(0.1 * 2 ** min(container.restarts, 8), 60)))
        if container.wanted and container.id in self.containers and container.status == "restarting":
            container.restarts += 1
            await self._launch(container)

    async def stop(self, container: Container) -> None:
        """SIGTERM and wait."""
        container.wanted = False
        if container.status == "running":
            program, container.program = container.program, None
            if program is not None:
                await program.stop()
            container.exit_code = 0
            container.finished = now()
        if container.status in {"running", "restarting"}:
            container.status = "exited"
        self._save(container)

    async def remove(self, container: Container) -> None:
        """`docker rm -f`."""
        await self.stop(container)
        self.containers.pop(container.id, None)
        self._free.append(int(container.address.rpartition(".")[2]))
        shutil.rmtree(container.rootfs.parent, ignore_errors=True)

    async def stop_all(self) -> None:
        """At the end of the sandbox."""
        for container in list(self.containers.values()):
            container.wanted = False
            if container.program is not None:
                await container.program.stop()

    # --- JSON ---------------------------------------------------------------------------------------------------------

    def _save(self, container: Container) -> None:
        if container.id in self.containers:
            file = container.rootfs.parent / "config.v2.json"
            new = file.with_name(file.name + ".new")
            new.write_text(json.dumps(self.inspect(container), indent=1, default=str))
            new.replace(file)  # tests read it: whole or not at all

    def networks(self, container: Container) -> dict[str, Any]:
        """As under `NetworkSettings.Networks`."""
        network = container.spec.network
        running = container.status == "running"
        return {
            network: {
                "IPAMConfig": None,
                "Links": None,
                "Aliases": list(dict.fromkeys((container.name, *container.spec.aliases))),
                "MacAddress": "02:42:ac:12:00:02" if running else "",
                "DriverOpts": None,
                "GwPriority": 0,
                "NetworkID": hashlib.sha256(network.encode()).hexdigest(),
                "EndpointID": hashlib.sha256(container.id.encode()).hexdigest() if running else "",
                "Gateway": self.host.address if running else "",
                "IPAddress": container.address if running else "",
                "IPPrefixLen": 16 if running else 0,
                "IPv6Gateway": "",
                "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0,
                "DNSNames": [container.name, *container.spec.aliases, container.id[:12]],
            }
        }

    def inspect(self, container: Container) -> dict[str, Any]:
        """As `docker inspect` shows it."""
        spec, image = container.spec, container.image
        running = container.status == "running"
        config = image.config()
        published = {f"{inner}/tcp": [{"HostIp": ip, "HostPort": str(outer)}] for ip, outer, inner in spec.ports}
        listening = {
            port: [{**b, "HostIp": b["HostIp"] or "0.0.0.0"} for b in bindings] for port, bindings in published.items()
        }
        exposed = {**config["ExposedPorts"], **{port: {} for port in published}}
        binds = [f"{m.name or m.source}:{m.destination}:{'ro' if m.read_only else 'rw'}" for m in spec.mounts]
        command = spec.cmd or config["Cmd"]
        entry = config["Entrypoint"] or []
        argv = [*entry, *command]
        return {
            "Id": container.id,
            "Created": rfc3339(container.created),
            "Path": argv[0],
            "Args": argv[1:],
            "State": {
                "Status": container.status,
                "Running": container.status in {"running", "restarting"},
                "Paused": False,
                "Restarting": container.status == "restarting",
                "OOMKilled": False,
                "Dead": False,
                "Pid": 5_000_000 + int(container.id[:4], 16) if running else 0,
                "ExitCode": container.exit_code,
                "Error": "",
                "StartedAt": rfc3339(container.started),
                "FinishedAt": rfc3339(container.finished),
            },
            "Image": image.id,
            "ResolvConfPath": f"{container.rootfs.parent}/resolv.conf",
            "LogPath": f"{container.rootfs.parent}/{container.id}-json.log",
            "Name": f"/{container.name}",
            "RestartCount": container.restarts,
            "Driver": "overlay2",
            "Platform": "linux",
            "HostConfig": {
                "Binds": binds or None,
                "LogConfig": {"Type": "json-file", "Config": {}},
                "NetworkMode": spec.network,
                "PortBindings": published,
                "RestartPolicy": {"Name": spec.restart, "MaximumRetryCount": 0},
                "AutoRemove": False,
                "Init": spec.init,
                "Privileged": False,
                "ReadonlyRootfs": False,
                "Mounts": None,
            },
            "Mounts": [m.inspect() for m in spec.mounts],
            "Config": {
                "Hostname": container.id[:12],
                "Domainname": "",
                "User": "",
                "AttachStdin": False,
                "AttachStdout": True,
                "AttachStderr": True,
                "ExposedPorts": exposed,
                "Tty": False,
                "OpenStdin": False,
                "StdinOnce": False,
                "Env": list(container.env),
                "Cmd": command,
                "Image": spec.image,
                "Volumes": None,
                "WorkingDir": config["WorkingDir"],
                "Entrypoint": config["Entrypoint"],
                "Labels": {**config["Labels"], **spec.labels},
            },
            "NetworkSettings": {
                "Bridge": "",
                "SandboxID": hashlib.sha256(container.id.encode()).hexdigest() if running else "",
                "Ports": ({**dict.fromkeys(exposed), **listening} if running else {}),
                "Networks": self.networks(container),
            },
        }  # fmt: skip
