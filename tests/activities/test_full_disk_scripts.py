"""A full disk at each write of each script of a server's host, one after the other: all or nothing, and the way back.

The n-th write and all after it fail and leave a part of themselves (sandbox/disks.py), the shell's own writes too.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hosts.failures import script_failed
from model.errors import DiskFull
from model.fleet import HostSpec
from sandbox.disks import BadDisk
from tests.activities.machine import KEYED, NEW, OLD, PLAIN, Machine, agent, back_up, build, restore, sha, switch

WEB = HostSpec(name="web-1", address="10.0.0.3")
GUIDE = "periphery.config.toml.bak_v1"


@dataclass
class Case:
    """A machine whose disk is full from its n-th write on."""

    machine: Machine
    number: int
    struck: list[str] = field(default_factory=list)

    @contextmanager
    def full(self) -> Iterator[None]:
        disk = BadDisk(self.machine.root / "bin", self.machine.root, at=self.number)
        disk.put_up()
        self.machine.before = disk.builtins
        yield
        self.machine.before = ""
        self.struck = disk.struck()
        disk.take_down()

    def beside(self) -> dict[str, bytes]:
        """All that lies in the agent's own folders."""
        machine = self.machine
        folders = (machine.binary.parent, machine.config.parent)
        return {p.name: p.read_bytes() for folder in folders for p in folder.iterdir()}

    def is_as_it_was(self, *more: str) -> None:
        before = {"periphery": agent(OLD).encode(), "periphery.config.toml": PLAIN.encode()}
        assert self.beside() == before | {name: PLAIN.encode() for name in more}, self.struck

    def is_whole(self) -> None:
        """Old or new, never a part, and nothing of ours beside."""
        found = self.beside()
        assert set(found) == {"periphery", "periphery.config.toml", GUIDE}, self.struck
        assert found["periphery"] in (agent(OLD).encode(), agent(NEW).encode()), self.struck
        assert found["periphery.config.toml"] in (PLAIN.encode(), KEYED.encode()), self.struck
        assert found[GUIDE] == PLAIN.encode(), self.struck
        assert self.machine.state("ActiveState") == "active", self.struck


def each_write(folder: Path, *, at_least: int) -> Iterator[Case]:
    """One machine for each write, until a script ends without having met the full disk."""
    for number in itertools.count(1):
        case = Case(build(folder / str(number)), number)
        yield case
        if not case.struck:
            break
    assert number > at_least, "these scripts write more than that: is the disk full at all?"


def told(done: subprocess.CompletedProcess[str], name: str, case: Case) -> None:
    """What the person reads: that the disk is full, where, and what to type."""
    error = script_failed(WEB, name, done.returncode, done.stderr, "/lock")
    assert isinstance(error, DiskFull), f"{case.struck}: {error!r}\n{done.stderr}"
    for wanted in ("web-1", "no space left", "df -h"):
        assert wanted in str(error), str(error)


def test_back_up(tmp_path: Path) -> None:
    for case in each_write(tmp_path, at_least=6):
        with case.full():
            done = back_up(case.machine)
        if case.struck:
            told(done, "back_up_server.sh", case)
            assert not (case.machine.folder / "manifest.json").exists(), case.struck
            case.is_as_it_was(*([GUIDE] if GUIDE in case.beside() else []))
        done = back_up(case.machine)
        assert done.returncode == 0, done.stderr
        case.is_as_it_was(GUIDE)
        assert not [p for p in case.machine.folder.rglob("*") if p.name.endswith((".new", ".part"))], case.struck


def test_switch(tmp_path: Path) -> None:
    for case in each_write(tmp_path, at_least=4):
        assert back_up(case.machine).returncode == 0
        with case.full():
            done = switch(case.machine)
            if case.struck or done.returncode:
                # What the tool does next, and the disk is as full as before.
                undone = restore(case.machine)
        if case.struck:
            told(done, "switch_agent.sh", case)
            case.is_whole()
            if undone.returncode:
                told(undone, "run_restore.sh", case)
            else:
                case.is_as_it_was(GUIDE)
        assert switch(case.machine).returncode == 0
        case.is_whole()
        assert restore(case.machine).returncode == 0
        case.is_as_it_was(GUIDE)


def test_restore(tmp_path: Path) -> None:
    for case in each_write(tmp_path, at_least=2):
        assert back_up(case.machine).returncode == 0
        assert switch(case.machine).returncode == 0
        with case.full():
            done = restore(case.machine)
        if case.struck and done.returncode:
            told(done, "run_restore.sh", case)
        case.is_whole()
        done = restore(case.machine)
        assert done.returncode == 0, done.stderr
        case.is_as_it_was(GUIDE)


def test_stage(tmp_path: Path) -> None:
    """The staged binary lies on another file system than the running one: it is copied beside it."""
    for case in each_write(tmp_path, at_least=3):
        machine = case.machine
        assert back_up(machine).returncode == 0
        published, staged = machine.root / "published", machine.folder / "staged/periphery"
        published.write_text(agent(NEW))
        ln = machine.root / "bin/ln"
        ln.write_text("#!/bin/sh\nexit 1\n")
        ln.chmod(0o755)
        words = (str(staged), sha(agent(NEW)), published.as_uri(), str(machine.binary), sha(agent(OLD)))
        with case.full():
            done = machine.run("stage_agent.sh", *words)
        if case.struck:
            told(done, "stage_agent.sh", case)
            laid = machine.binary.parent / ".periphery.komodo-upgrade"
            assert not laid.exists() or laid.read_text() == agent(NEW), case.struck
            laid.unlink(missing_ok=True)
            case.is_as_it_was(GUIDE)
        assert machine.run("stage_agent.sh", *words).returncode == 0
        assert (machine.binary.parent / ".periphery.komodo-upgrade").read_text() == agent(NEW)
