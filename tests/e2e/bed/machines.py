"""The containers of the test bed: machines with systemd, the registry, the download site."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.bed.settings import (
    BRIDGE,
    CORE,
    JUMP,
    NETWORK,
    PLACE,
    PREFIX,
    REGISTRY,
    REGISTRY_NAMES,
    SUBNET,
    WEB,
    WEB_NAMES,
    Machine,
    flavoured,
)
from tests.e2e.bed.shell import docker, inside, run, wait_for

_NAMES = [w for ip, names in ((REGISTRY, REGISTRY_NAMES), (WEB, WEB_NAMES)) for n in names
          for w in ("--add-host", f"{n}:{ip}")]  # fmt: skip
_TMP = ["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"]
_CGROUP = Path("/sys/fs/cgroup")
CORE_NAME, CORE_VOLUME = f"{PREFIX}core", f"{PREFIX}core-docker"


def _hybrid() -> bool:
    return not (_CGROUP / "cgroup.controllers").exists()


def _server_flags() -> list[str]:
    """The flags that systemd needs; hybrid mode adds no capability."""
    if _hybrid():
        mounts = [w for n in ("systemd", "unified") for w in ("-v", f"{_CGROUP}/{n}:{_CGROUP}/{n}:rw")]
        return ["--cgroupns=host", *mounts]
    return ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--cgroupns=private"]


def _engine_flags() -> list[str]:
    """Flags for a machine that runs an engine; not --privileged, because a VM may lack its capabilities."""
    caps = [w for c in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_NICE") for w in ("--cap-add", c)]
    free = [w for o in ("seccomp", "apparmor", "systempaths") for w in ("--security-opt", f"{o}=unconfined")]
    return [*caps, *free, "--cgroupns=host", "-v", f"{_CGROUP}:{_CGROUP}:rw", "-v", f"{CORE_VOLUME}:/var/lib/docker"]


def network_up() -> None:
    """Create the internal network; its machines reach no other network."""
    if run("docker", "network", "inspect", NETWORK, check=False).returncode:
        docker("network", "create", "--internal", "--subnet", f"{SUBNET}.0/24", "--gateway", f"{SUBNET}.1",
               "-o", f"com.docker.network.bridge.name={BRIDGE}", NETWORK)  # fmt: skip


def services_up() -> None:
    """Start the registry and the download site."""
    docker("rm", "-f", f"{PREFIX}registry", f"{PREFIX}web", check=False)
    for knob in ("fail", "kib_per_second", "wrong"):
        (flavoured("www") / knob).unlink(missing_ok=True)
    common = ["run", "--pull", "never", "-d", "--network", NETWORK]
    docker(*common, "--name", f"{PREFIX}registry", "--ip", REGISTRY, "-v", f"{flavoured('registry')}:/var/lib/registry",
           "kue-host:1", "docker-registry", "serve", "/etc/kue/registry.yml")  # fmt: skip
    docker(*common, "--name", f"{PREFIX}web", "--ip", WEB, "-v", f"{flavoured('www')}:/www:ro", "kue-host:1",
           "python3", "/etc/kue/web.py")  # fmt: skip


def start_machine(name: str, address: str, image: str, flags: list[str], *extra: str) -> None:
    """Start a container with systemd that returns after a reboot from inside."""
    docker("run", "--pull", "never", "-d", "--name", PREFIX + name, "--hostname", name, "--network", NETWORK,
           "--ip", address, "--restart", "always", *_TMP, *_NAMES, *flags, *extra, image)  # fmt: skip


def start_servers(servers: tuple[Machine, ...], extra: dict[str, list[str]] | None = None) -> None:
    """Start all servers, two at a time, because more at once take longer."""

    def one(server: Machine) -> None:
        more = (extra or {}).get(server.name, [])
        start_machine(server.name, server.address, f"kue-server-{server.name}:{PLACE}", _server_flags(), *more)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, servers))


def start_core(image: str) -> None:
    """Start Core's machine; its engine stores everything in a volume."""
    start_machine("core", CORE, image, _engine_flags())


def start_jump() -> None:
    """Start the jump host."""
    start_machine("jump", JUMP, f"kue-server-jump:{PLACE}", _server_flags())


def booted(container: str) -> bool:
    """Whether systemd has finished its start, with or without failed units."""
    return inside(container, "systemctl", "is-system-running", check=False) in ("running", "degraded")


def wait_booted(container: str, seconds: float = 90) -> None:
    """Wait until the container has booted."""
    wait_for(f"{container} to boot", lambda: booted(container), seconds=seconds)


def remove_machines() -> None:
    """Remove every machine and its volumes; services, network and images stay."""
    _remove(lambda n: n not in (f"{PREFIX}registry", f"{PREFIX}web"))


def remove_all() -> None:
    """Remove every container, volume and network of the test bed."""
    _remove(lambda _: True)
    docker("network", "rm", NETWORK, check=False)


def _remove(doomed: object) -> None:
    assert callable(doomed)
    names = [n for n in docker("ps", "-a", "--format", "{{.Names}}").split() if n.startswith(PREFIX) and doomed(n)]
    if names:
        docker("rm", "-f", *names)
    volumes = [v for v in docker("volume", "ls", "-q").split() if v.startswith(PREFIX)]
    if volumes:
        docker("volume", "rm", *volumes)


def left_over() -> list[str]:
    """What still exists of the test bed, except images and caches."""
    found = docker("ps", "-a", "--format", "{{.Names}}").split() + docker("volume", "ls", "-q").split()
    found += docker("network", "ls", "--format", "{{.Name}}").split()
    return sorted(n for n in found if n.startswith(PREFIX))
