"""Prerequisites on the machine itself: root, packages, a Docker engine, mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.e2e.bed.settings import Missing, cache
from tests.e2e.bed.shell import CommandError, fetch, run, wait_for

PACKAGES = {"dockerd": "docker.io", "mmdebstrap": "mmdebstrap", "openssl": "openssl", "ssh": "openssh-client"}
"""Program -> the Debian package that contains it."""


def prepare() -> None:
    """Install what is missing. Raises Missing if that is impossible."""
    if os.geteuid() != 0:
        raise Missing("the bed needs root: it starts containers with systemd in them")
    lacking = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if lacking:
        if shutil.which("apt-get") is None:
            raise Missing(f"no apt-get here to install {', '.join(lacking)} with")
        fetch("apt-get", "update", timeout=600)
        install = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends")
        fetch(*install, *lacking, "iptables", timeout=1200)
    try:
        _mounts()
    except (CommandError, OSError) as error:
        raise Missing(f"this machine does not let its cgroups be prepared: {error}") from error
    _engine()


def _mounts() -> None:
    # 128 inotify instances (the default) are too few for more than about 20 machines with systemd.
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(instances.read_text()) < 8192:
        instances.write_text("8192")
    v2_only = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if v2_only:
        return
    # Hybrid mode: with v1's hierarchies alone systemd is not notified when a unit's last process ends,
    # and stopping an agent (its main process is a shell) can take 90 s.
    for name, kind, options in (("systemd", "cgroup", "none,name=systemd"), ("unified", "cgroup2", "")):
        place = Path("/sys/fs/cgroup") / name
        if not os.path.ismount(place):
            place.mkdir(exist_ok=True)
            run("mount", "-t", kind, *(("-o", options) if options else ()), kind, place)


def _answers() -> bool:
    return run("docker", "version", "--format", "{{.Server.Version}}", check=False).returncode == 0


def _engine() -> None:
    if _answers():
        return
    for name in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
        file = Path(name)  # an engine that was killed leaves its pid file, and the next one refuses to start
        if file.exists() and not Path(f"/proc/{file.read_text().strip()}").exists():
            file.unlink()
    cache().mkdir(parents=True, exist_ok=True)
    log = (cache() / "dockerd.log").open("ab")
    process = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (cache() / "dockerd.pid").write_text(str(process.pid))
    try:
        wait_for("the Docker engine", _answers, seconds=60)
    except TimeoutError as error:
        raise Missing(f"no Docker engine can be started here; see {cache() / 'dockerd.log'}") from error


def stop_own_engine() -> None:
    """Stop the engine that `prepare` started, if nothing runs in it."""
    file = cache() / "dockerd.pid"
    if not file.exists():
        return
    process = Path(f"/proc/{file.read_text().strip()}")
    if (process / "comm").exists() and (process / "comm").read_text().strip() == "dockerd":
        if run("docker", "ps", "-q", check=False).stdout.strip():
            return
        os.kill(int(process.name), 15)
    file.unlink()
