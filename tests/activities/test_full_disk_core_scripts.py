"""The same for Core's host: each script meets a disk that is full from its n-th write on."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hosts.failures import script_failed
from hosts.script import Script, packaged
from model.errors import DiskFull
from model.fleet import HostSpec
from sandbox.disks import BadDisk
from tests.activities.test_core_scripts import Stage
from tests.shells import SHELL, path

CORE = HostSpec(name="core", address="10.0.0.2")
COMPOSE, ENV = "services:\n  core:\n    image: k:1\n", "A=1\n"
NEW_COMPOSE, NEW_ENV = COMPOSE.replace("k:1", "k:2"), ENV + "B=2\n"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class CoreHost:
    """A run folder, Komodo's folder, a docker that says yes; a disk that is full from the n-th write on."""

    root: Path
    number: int
    stage: Stage = field(init=False)
    before: str = ""
    struck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.stage = Stage(self.root)
        for mark in ("core-v2-started", "restore.sh"):
            (self.stage.run / mark).unlink()
        (self.stage.run / "dumps/final.archive.gz").unlink()
        self.opt.mkdir()
        self.compose.write_text(COMPOSE)
        self.env.write_text(ENV)
        self.compose.chmod(0o640)

    @property
    def opt(self) -> Path:
        return self.root / "opt"

    @property
    def compose(self) -> Path:
        return self.opt / "compose.yaml"

    @property
    def env(self) -> Path:
        return self.opt / "compose.env"

    def script(self, name: str, *args: object, data: str = "") -> subprocess.CompletedProcess[bytes]:
        text = f"set -eu\numask 077\nKU_STAMP=20261123T221500Z\n{self.before}{Script.load('komodo.sh', name).text}"
        return self._sh("-c", text, name, *map(str, args), data=data)

    def restore(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self._sh("-c", f'{self.before}. "$0"', str(self.stage.run / "restore.sh"), *words)

    def _sh(self, *words: str, data: str = "") -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "PATH": path(self.stage.fake), "FAKE": str(self.stage.fake)}
        return subprocess.run([SHELL, *words], input=data.encode(), capture_output=True, env=env)

    def on_full_disk(self, step: Step) -> subprocess.CompletedProcess[bytes]:
        disk = BadDisk(self.stage.fake, self.root, at=self.number)
        disk.put_up()
        self.before = disk.builtins
        done = step(self)
        self.before = ""
        self.struck = disk.struck()
        disk.take_down()
        return done

    def live(self) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.opt.rglob("*") if p.is_file()}


Step = Callable[[CoreHost], subprocess.CompletedProcess[bytes]]


def back_up(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    script, listed = packaged("komodo.sh", "restore_core.sh"), "version\t1.19.5\n"
    saved = [("compose.yaml", COMPOSE), ("compose.env", ENV)]
    listed += "".join(f"saved\t{sha(text)}\t{name}\t{host.opt / name}\n" for name, text in saved)
    listed += f"directory\t{host.opt}\nproject\tkomodo\ncore_service\tcore\ncore_container\tcore\n"
    parts = [("restore.sh", script), ("restore.list", listed), ("manifest.json", "{}\n")]
    args: list[object] = []
    for name, text in parts:
        args += ["part", len(text.encode()), name]
    for name, text in saved:
        args += ["file", host.opt / name, sha(text), name, "yes"]
    return host.script("back_up_core.sh", host.stage.run, ".bak_v1", *args, data="".join(t for _, t in parts))


def dump(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    (host.stage.fake / "said").write_text("done dumping komodo.Server (3 documents)\n")
    return host.script("dump_database.sh", host.stage.run, "final", "db", "mongodb://u@h/", "komodo", "open")


def stage(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    args: list[object] = []
    for name, text in (("compose.yaml", NEW_COMPOSE), ("compose.env", NEW_ENV)):
        args += ["part", len(text), name, sha(text)]
    words = ("docker", "compose", "-p", "komodo")
    return host.script("stage_core.sh", host.stage.run, host.opt, *args, "--", *words, data=NEW_COMPOSE + NEW_ENV)


def write(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    args = ["compose.yaml", host.compose, sha(COMPOSE), sha(NEW_COMPOSE), "compose.env", host.env, sha(ENV)]
    words = (host.stage.run, host.opt / "keys", "no", host.stage.run / "dump.json")
    return host.script("write_core_files.sh", *words, *args, sha(NEW_ENV), data="{}\n")


def stop(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("stop_core.sh", host.stage.run, host.opt, "core", "docker", "compose")


def start(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("start_core.sh", host.stage.run, host.opt, "core", "db", "docker", "compose")


def switch_agent(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    now, keyed = host.compose.read_text(), NEW_COMPOSE + "# key\n"
    args = (host.compose, sha(now), sha(keyed), len(keyed), "docker", "compose")
    return host.script("switch_core_agent.sh", host.stage.run, host.opt, "periphery", *args, data=keyed)


def save_key(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    (host.root / "key").write_text("private\n")
    return host.script("read_core_key.sh", host.stage.run, host.root / "key")


def note(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("keep_note.sh", host.stage.run / "dump.json", data='{"note": 1}\n')


def report(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("save_report.sh", host.stage.run, 4, 3, data="# r\n{}\n")


def put_back(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.restore("files")


STEPS: dict[str, tuple[tuple[Step, ...], Step, int]] = {
    "back up": ((), back_up, 8),
    "dump": ((back_up,), dump, 2),
    "stage": ((back_up,), stage, 4),
    "stop": ((back_up,), stop, 1),
    "write": ((back_up, stage), write, 4),
    "start": ((back_up, stage, write), start, 0),
    "agent": ((back_up, stage, write), switch_agent, 3),
    "key": ((back_up,), save_key, 1),
    "note": ((back_up,), note, 1),
    "report": ((back_up,), report, 3),
    "put back": ((back_up, stage, write), put_back, 4),
}
"""What goes before, the step, and how many writes it has at least."""
WHOLE = {
    "compose.yaml": {COMPOSE, NEW_COMPOSE, NEW_COMPOSE + "# key\n"},
    "compose.env": {ENV, NEW_ENV},
    "compose.yaml.bak_v1": {COMPOSE},
    "compose.env.bak_v1": {ENV},
}


@pytest.mark.parametrize("name", STEPS)
def test_each_write(tmp_path: Path, name: str) -> None:
    before, step, at_least = STEPS[name]
    for number in itertools.count(1):
        host = CoreHost(tmp_path / str(number), number)
        for one in before:
            assert one(host).returncode == 0
        done = host.on_full_disk(step)
        if not host.struck:
            break
        error = script_failed(CORE, name, done.returncode, done.stderr.decode(), "/lock")
        assert isinstance(error, DiskFull), f"{host.struck[:3]}: {error!r}\n{done.stderr!r}"
        for wanted in ("core: ", "no space left", "df -h"):
            assert wanted in str(error)
        for file, text in host.live().items():
            assert text in WHOLE.get(file, ()), f"{host.struck}: {file} holds {text!r}"
        again = step(host)
        assert again.returncode == 0, f"{host.struck}: {again.stderr!r}"
        left = [p for p in host.root.rglob("*") if ".part" in p.name or ".komodo-upgrade." in p.name]
        assert not left, host.struck[:3]
        if write in before:
            assert put_back(host).returncode == 0
            assert {n: host.live()[n] for n in ("compose.yaml", "compose.env")} == {
                "compose.yaml": COMPOSE,
                "compose.env": ENV,
            }
            assert host.compose.stat().st_mode & 0o777 == 0o640
    assert number > at_least, "it writes more than that: is the disk full at all?"
    assert done.returncode == 0, done.stderr
