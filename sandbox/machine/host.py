"""One simulated machine: a folder, an address, a user who may use sudo, units, and a record of what ran on it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.machine.disks import FULL, BadDisk
from sandbox.machine.journal import Journal
from sandbox.machine.systemd import Systemd
from sandbox.world import Recorded, World


@dataclass(slots=True)
class SandboxHost:
    """A machine of the fleet, as tests see it. `world` is what it shares with the others."""

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
    journal: Journal = field(init=False)
    systemd: Systemd = field(init=False)
    commands: list[Recorded] = field(default_factory=list)
    shells: list[Recorded] = field(default_factory=list)
    """Command lines that SSH sessions were opened with."""
    sudo_seen: set[int] = field(default_factory=set)
    """Parents (shells) for which sudo has checked a password."""
    disk: BadDisk | None = None
    """While a fault is on."""

    def __post_init__(self) -> None:
        self.root = self.root.absolute()
        self.journal = Journal(self.root / "var/log/journal")
        units = self.root / "etc/systemd/system"
        self.systemd = Systemd(self.world, self.name, self.address, units, self.journal, self.path)

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

    def break_disk(self, reason: str, below: str, at: int) -> None:
        """From the `at`-th write below a path on, none works there any more (everywhere, when it is empty)."""
        self.empty_disk()
        self.disk = BadDisk(self.root / "bin", self.path(below) if below else self.root, reason, at)
        self.disk.install()

    def empty_disk(self) -> None:
        """Writes work again."""
        if self.disk is not None:
            self.disk.remove()
            self.disk = None

    def refuses(self, path: Path | str) -> str:
        """Why a stand-in's own write there fails now, in the words of its system; empty when it works."""
        struck = self.disk is not None and self.disk.strikes(_absolute(path))
        return self.disk.reason.lower() if struck and self.disk else ""

    def is_full_for(self, path: Path | str) -> bool:
        """Whether `df` reports no free space there."""
        disk = self.disk
        full = disk is not None and disk.reason == FULL and disk.is_bad()
        return full and disk is not None and _absolute(path).is_relative_to(disk.below)


def _absolute(path: Path | str) -> Path:
    """Without reading the disk: there may be no such file yet."""
    return Path(os.path.abspath(path))  # noqa: PTH100
