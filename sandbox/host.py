"""One simulated machine: a folder, an address, a user who may sudo, units, perhaps Docker, and what was run on it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import quick
from sandbox.disks import FULL, BadDisk
from sandbox.journal import Journal
from sandbox.standin import Become, Call, client_script
from sandbox.systemd import Systemd
from sandbox.world import Recorded, World, now

if TYPE_CHECKING:
    from sandbox.engine import Engine

FOLDERS = ("bin", "etc/komodo", "etc/systemd/system", "home/ops", "root", "tmp", "usr/local/bin", "var/lib", "var/log")


@dataclass(slots=True)
class SandboxHost:
    """A machine of the fleet, as tests see it."""

    world: World
    name: str
    root: Path
    address: str
    user: str = "ops"
    sudo: str = "passwordless"
    """passwordless | password | denied"""
    sudo_password: str = ""
    port: int = 0
    """Of its SSH server, once started."""
    docker: Engine | None = None
    journal: Journal = field(init=False)
    systemd: Systemd = field(init=False)
    commands: list[Recorded] = field(default_factory=list)
    shells: list[Recorded] = field(default_factory=list)
    """Command lines that SSH sessions were opened with."""
    sudo_seen: set[int] = field(default_factory=set)
    """Parents (shells) for which sudo has checked a password."""
    booted: float = 0.0
    disk: BadDisk | None = None
    """While a fault is on."""

    def __post_init__(self) -> None:
        self.root = self.root.absolute()
        self.journal = Journal(self.root / "var/log/journal")
        self.systemd = Systemd(self)
        self.booted = now().timestamp() - 86_400 * 41

    def build(self, socket_path: str) -> None:
        """Make the folders and the stand-ins."""
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        client = self.root / "bin/.standin"
        client.write_text(client_script(socket_path, self.name))
        client.chmod(0o755)
        for name in set(self.world.handlers) - (set() if self.docker else {"docker"}):
            link = self.root / "bin" / name
            if not link.is_symlink():
                link.symlink_to(".standin")
        quick.write(self)

    def path(self, inside: str) -> Path:
        """Where a path of this machine really lies. Paths that are below its folder already stay as they are."""
        plain = Path(inside)
        if plain.is_relative_to(self.root):
            return plain
        return self.root / inside.lstrip("/")

    def environment(self, *, root: bool) -> dict[str, str]:
        """What a fresh login shell (or sudo) has."""
        home = self.root / ("root" if root else f"home/{self.user}")
        name = "root" if root else self.user
        return {
            "PATH": f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "USER": name,
            "LOGNAME": name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root / "tmp"),
            "KU_SANDBOX": self.world.id,
            "KU_SANDBOX_ROOT": str(self.root),
            "KU_SANDBOX_UID": "0" if root else "1000",
        }

    async def dispatch(self, call: Call) -> int | Become:
        """Run one stand-in's command and record it."""
        for watcher in list(self.world.watchers):
            watcher(self.name, (call.name, *call.argv))
        slow = self.world.faults.on("slow", self.name)
        if slow and slow.options.get("command", "") in ("", call.name):
            await asyncio.sleep(float(slow.options.get("seconds", 1)))
        if self.world.faults.on("hang", self.name):
            await asyncio.Event().wait()
        handler = self.world.handlers[call.name]
        at = now()
        code: int | Become = 1
        try:
            code = await handler(call)
        finally:
            if call.name not in UNRECORDED:
                entry = Recorded(
                    host=self.name,
                    argv=(call.name, *call.argv),
                    at=at,
                    code=code if isinstance(code, int) else 0,
                    mutating=mutates(call.name, call.argv),
                    took=round((now() - at).total_seconds(), 4),
                )
                self.commands.append(entry)
                self.world.record(entry)
        return code

    def break_disk(self, reason: str, below: str, at: int) -> None:
        """From the `at`-th write below a path on, none works there any more (everywhere, when it is empty)."""
        self.mend_disk()
        self.disk = BadDisk(self.root / "bin", self.path(below) if below else self.root, reason, at)
        self.disk.put_up()

    def mend_disk(self) -> None:
        """It takes writes again."""
        if self.disk is not None:
            self.disk.take_down()
            self.disk = None

    def refuses(self, path: Path | str) -> str:
        """Why a stand-in's own write there fails now, in the words of its system; empty when it works."""
        struck = self.disk is not None and self.disk.strikes(_absolute(path))
        return self.disk.reason.lower() if struck and self.disk else ""

    def has_no_room(self, path: Path | str) -> bool:
        """What `df` says of it."""
        disk = self.disk
        full = disk is not None and disk.reason == FULL and disk.is_bad()
        return full and disk is not None and _absolute(path).is_relative_to(disk.below)


def _absolute(path: Path | str) -> Path:
    """Without a look at the disk: there may be no such file yet."""
    return Path(os.path.abspath(path))  # noqa: PTH100


UNRECORDED = frozenset({"sudo", "id", "df", "chown"})
_DOCKER = frozenset({"pull", "create", "run", "rm", "rmi", "start", "stop", "restart", "kill", "cp", "tag", "exec"})
_COMPOSE = frozenset({"up", "down", "stop", "start", "restart", "pull", "create", "rm", "run", "exec"})
_SYSTEMCTL = frozenset({"start", "stop", "restart", "try-restart", "enable", "disable", "daemon-reload", "kill"})


def mutates(name: str, argv: list[str]) -> bool:
    """Whether a command changes something (mongodump inside `docker exec` counts: it is dear)."""
    plain = [a for a in argv if not a.startswith("-")]
    if argv[-1:] == ["--version"]:
        return False
    if name == "systemctl":
        return bool(_SYSTEMCTL.intersection(plain[:1]))
    if name == "docker" and plain[:1] == ["compose"]:
        return bool(_COMPOSE.intersection(plain)) and "config" not in plain
    if name == "docker":
        return bool(_DOCKER.intersection(plain[:1]))
    return name in {"curl", "wget", "systemd-run"}
