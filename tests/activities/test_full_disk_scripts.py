"""A full disk at each write of each script of a server's host: all or nothing, and the restore works.

The n-th write and all later ones fail and leave a part of their data (sandbox/machine/disks.py), also the shell's own.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hosts.errors import script_failed
from model.errors import DiskFull
from model.fleet.spec import HostSpec
from sandbox.machine.disks import FULL
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
        host = self.machine.host
        host.break_disk(FULL, "", self.number)
        assert host.disk is not None
        self.machine.before = host.disk.builtins
        yield
        self.machine.before = ""
        self.struck = host.disk.struck()
        host.empty_disk()

    def files(self) -> dict[str, bytes]:
        """All files in the agent's own folders."""
        machine = self.machine
        folders = (machine.binary.parent, machine.config.parent)
        return {p.name: p.read_bytes() for folder in folders for p in folder.iterdir()}

    def is_as_it_was(self, *more: str) -> None:
        before = {"periphery": agent(OLD).encode(), "periphery.config.toml": PLAIN.encode()}
        assert self.files() == before | {name: PLAIN.encode() for name in more}, self.struck

    def is_whole(self) -> None:
        """Old or new, never a part, and no file of ours next to them."""
        found = self.files()
        assert set(found) == {"periphery", "periphery.config.toml", GUIDE}, self.struck
        assert found["periphery"] in (agent(OLD).encode(), agent(NEW).encode()), self.struck
        assert found["periphery.config.toml"] in (PLAIN.encode(), KEYED.encode()), self.struck
        assert found[GUIDE] == PLAIN.encode(), self.struck
        assert self.machine.service.active == "active", self.struck


def each_write(folder: Path, *, at_least: int) -> Iterator[Case]:
    """One machine for each write, until a script ends without a failed write."""
    for number in itertools.count(1):
        case = Case(build(folder / str(number)), number)
        yield case
        if not case.struck:
            break
    assert number > at_least, "these scripts write more than that: is the disk full at all?"


def reported(done: subprocess.CompletedProcess[str], name: str, case: Case) -> None:
    """The error names the host, says that the disk is full, and what to type."""
    error = script_failed(WEB, name, done.returncode, done.stderr, "/lock")
    assert isinstance(error, DiskFull), f"{case.struck}: {error!r}\n{done.stderr}"
    for wanted in ("web-1", "no space left", "df -h"):
        assert wanted in str(error), str(error)


def test_back_up(tmp_path: Path) -> None:
    for case in each_write(tmp_path, at_least=6):
        with case.full():
            done = back_up(case.machine)
        if case.struck:
            reported(done, "back_up_server.sh", case)
            assert not (case.machine.folder / "manifest.json").exists(), case.struck
            case.is_as_it_was(*([GUIDE] if GUIDE in case.files() else []))
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
            reported(done, "switch_agent.sh", case)
            case.is_whole()
            if undone.returncode:
                reported(undone, "run_server_restore.sh", case)
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
            reported(done, "run_server_restore.sh", case)
        case.is_whole()
        done = restore(case.machine)
        assert done.returncode == 0, done.stderr
        case.is_as_it_was(GUIDE)


def test_stage(tmp_path: Path) -> None:
    """The staged binary is on another file system than the running one, so it is copied next to it."""
    for case in each_write(tmp_path, at_least=3):
        machine = case.machine
        assert back_up(machine).returncode == 0
        published, staged = machine.root / "published", machine.folder / "staged/periphery"
        published.write_text(agent(NEW))
        machine.replace("ln", "exit 1")
        run = partial(
            machine.run,
            "stage_agent.sh",
            file=str(staged),
            expected=sha(agent(NEW)),
            url=published.as_uri(),
            binary=str(machine.binary),
            old=sha(agent(OLD)),
        )
        with case.full():
            done = run()
        if case.struck:
            reported(done, "stage_agent.sh", case)
            laid = machine.binary.parent / ".periphery.komodo-upgrade"
            assert not laid.exists() or laid.read_text() == agent(NEW), case.struck
            laid.unlink(missing_ok=True)
            case.is_as_it_was(GUIDE)
        assert run().returncode == 0
        assert (machine.binary.parent / ".periphery.komodo-upgrade").read_text() == agent(NEW)
