"""`python -m bench.machines FOLDER --hosts N`: N machines to upgrade, each an OpenSSH server on 127.0.1.x and a folder.

Real: sshd (one process a host; one host key for all), sessions, shells, coreutils, curl, the download site.
Stand-ins (bench/standins): systemctl, journalctl, systemd-run, and an agent that only knows its version. Everybody is
root and shares the machine, as `Sudo.NONE` in a fleet file. Prints a JSON line when all listen; a line on standard
input resets the hosts, its end stops them. This process adopts whatever the hosts leave behind, so that the CPU time of
its tree is the hosts'.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh

from sandbox import releases
from sandbox.web import Request, Response, WebServer

PR_SET_CHILD_SUBREAPER = 36
OLD, TARGET = "1.19.5", "2.3.2"
PORT = int(os.environ.get("KU_BENCH_PORT", "2222"))
SSHD = "/usr/sbin/sshd"
KEY = "MCowBQYDK2VuAyEAhixFldecUM47tVbkdqhhYn6H1pCbHFsT+Zgz0B2XdgY="
"""Core's public key, which every agent has to pin."""
CONFIG = """\
## Komodo Periphery

## port of the agent's server
port = 8120

## everything the agent keeps
root_directory = "/etc/komodo"
stats_polling_rate = "5-sec"

## who may call: Core's passkey
allowed_ips = []
passkeys = ["an-old-passkey"]

ssl_enabled = true
logging.level = "info"
"""
UNIT = """\
[Unit]
Description=Agent to connect with Komodo Core
[Service]
ExecStart=/bin/sh -lc "{root}/usr/local/bin/periphery --config-path {root}/etc/komodo/periphery.config.toml"
[Install]
WantedBy=default.target
"""
_SSHD = """\
ListenAddress {address}:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/client_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100
Subsystem sftp internal-sftp
SetEnv PATH={root}/bin:/usr/bin:/bin HOME={root}/root LC_ALL=C.UTF-8
"""


def names(count: int) -> list[str]:
    """h001, h002, …"""
    return [f"h{number:03}" for number in range(1, count + 1)]


def address(name: str) -> str:
    """127.0.1.1 and so on."""
    number = int(name[1:])
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def arch() -> str:
    """The architecture as `uname -m` prints it."""
    return platform.machine()


def digest(version: str) -> str:
    """sha256 of an agent."""
    return hashlib.sha256(releases.binary(version, arch())).hexdigest()


class Machines:
    """The hosts' folders and what they share. `root(name)` is a host's own "/"."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.names = folder, names(count)
        self.downloads: list[str] = []
        """Names of hosts, one entry per download."""

    def root(self, name: str) -> Path:
        """Where a host's files are."""
        return self.folder / "hosts" / name

    def build(self) -> None:
        """Keys, known_hosts, sshd's configuration files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for key in ("host_key", "client_key"):
            if not (self.folder / key).exists():
                made = asyncssh.generate_private_key("ssh-ed25519")
                made.write_private_key(str(self.folder / key))
                made.write_public_key(str(self.folder / f"{key}.pub"))
                (self.folder / key).chmod(0o600)
        public = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text("".join(f"[{address(name)}]:{PORT} {public}\n" for name in self.names))
        for name in self.names:
            self.root(name).mkdir(parents=True, exist_ok=True)
            text = _SSHD.format(address=address(name), port=PORT, folder=self.folder, root=self.root(name))
            (self.folder / f"{name}.conf").write_text(text)

    def reset(self) -> None:
        """Reset every host to its state before an upgrade: v1 runs."""
        self.downloads.clear()
        for name in self.names:
            root = self.root(name)
            shutil.rmtree(root)
            for sub in ("bin", "etc/komodo", "etc/systemd/system", "usr/local/bin", "root", "run", "var/lib", "tmp"):
                (root / sub).mkdir(parents=True)
            for tool in (Path(__file__).parent / "standins").iterdir():
                shutil.copy(tool, root / "bin")
            (root / "usr/local/bin/periphery").write_bytes(releases.binary(OLD, arch()))
            (root / "usr/local/bin/periphery").chmod(0o755)
            (root / "etc/komodo/periphery.config.toml").write_text(CONFIG)
            (root / "etc/komodo/periphery.config.toml").chmod(0o640)
            (root / "etc/systemd/system/periphery.service").write_text(UNIT.format(root=root))
            subprocess.run([root / "bin/systemctl", "start", "periphery"], check=True)  # noqa: S603
            (root / "commands").unlink()

    def seen(self) -> dict[str, dict[str, Any]]:
        """The state of every host, read from its files in the same way for every tool."""
        return {name: self._seen(name) for name in self.names}

    def _seen(self, name: str) -> dict[str, Any]:
        root = self.root(name)
        commands = (root / "commands").read_text().split() if (root / "commands").exists() else []
        state = (root / "run/state").read_text()
        journal = (root / "run/journal").read_text()
        run = state.split("INVOCATION=")[1].strip()
        agent = root / "usr/local/bin/periphery"
        version = releases.marker_version(agent.read_bytes()[:200]) if agent.exists() else "(none)"
        last = "".join(line for line in journal.splitlines(keepends=True) if line.startswith(run))
        kept = {hashlib.sha256(p.read_bytes()).hexdigest() for p in _files(root / "var/lib")} | {
            hashlib.sha256(p.read_bytes()).hexdigest() for p in _files(root / "etc/komodo")
        }
        config = (root / "etc/komodo/periphery.config.toml").read_text()
        return {
            "active": "ACTIVE=active" in state,
            "version": version,
            "runs": TARGET if f"version: v{TARGET}" in last else OLD,
            "key": f'"{KEY}"' in config,
            "comments": "## who may call" in config,
            "proven": "Logged in to" in last,
            "backup": {digest(OLD), hashlib.sha256(CONFIG.encode()).hexdigest()} <= kept,
            "stops": commands.count("stop") + commands.count("restart"),
            "starts": commands.count("start") + commands.count("restart"),
            "downloads": self.downloads.count(name),
            "left": sorted(_left_behind(root)),
        }

    async def answer(self, request: Request) -> Response:
        """The download site: /NAME/periphery-VERSION-ARCH, so that it knows who asks."""
        name, _, file = request.path.strip("/").partition("/")
        if file != f"periphery-{TARGET}-{arch()}":
            return Response(404, b"Not Found", "text/plain")
        self.downloads.append(name)
        return Response(200, releases.binary(TARGET, arch()), "application/octet-stream")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _left_behind(root: Path) -> Iterator[str]:
    """What a finished upgrade no longer needs, by kind."""
    for path in root.rglob("*"):
        short = str(path.relative_to(root))
        if path.name == "lock" and path.is_dir():
            yield "lock"
        elif path.is_file() and (path.name.endswith((".part", ".new")) or ".komodo-upgrade" in path.name):
            yield "part of a file"
        elif path.is_file() and "/staged/" in short:
            yield "staged binary"
        elif path.is_dir() and path.parent.name == "tmp" and path.name.startswith("ansible-tmp"):
            yield "ansible-tmp folder"


async def _serve(folder: Path, count: int) -> None:
    machines = Machines(folder, count)
    await asyncio.to_thread(machines.build)
    await asyncio.to_thread(machines.reset)
    site = WebServer(machines.answer)
    port = await site.start("127.0.0.1", 0)
    Path("/run/sshd").mkdir(exist_ok=True)  # noqa: ASYNC240
    daemons = [
        await asyncio.create_subprocess_exec(SSHD, "-D", "-f", str(folder / f"{name}.conf")) for name in machines.names
    ]
    for name in machines.names:
        await _listens(address(name))
    _say({"site": f"http://127.0.0.1:{port}"})
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "reset":
            await asyncio.to_thread(machines.reset)
        _say(await asyncio.to_thread(machines.seen))
    for daemon in daemons:
        daemon.terminate()
    await asyncio.gather(*(daemon.wait() for daemon in daemons))
    await site.stop()


async def _listens(host: str) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(host, PORT)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit(f"sshd does not listen on {host}:{PORT}")


def _say(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def adopting(work: int) -> None:
    """Reap all processes below this one until its child `work` has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.wait()[0] != work:
            continue


def main() -> None:
    """The reaper; the machines are its child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hosts", type=int, required=True)
    options = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = os.fork()
    if work == 0:
        asyncio.run(_serve(options.folder.resolve(), options.hosts))
        sys.stdout.flush()
        os._exit(0)
    adopting(work)


if __name__ == "__main__":
    main()
