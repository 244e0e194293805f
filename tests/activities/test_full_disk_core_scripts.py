"""A full disk at each write of each script of Core's host: all or nothing, and repeating the step works."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hosts.errors import script_failed
from hosts.exec.script import Script, standalone
from model.errors import DiskFull
from model.fleet.spec import HostSpec
from sandbox.machine.disks import BadDisk
from tests.activities.test_core_scripts import Stage
from tests.shells import words_of

CORE = HostSpec(name="core", address="10.0.0.2")
COMPOSE, ENV = "services:\n  core:\n    image: busybox\n  periphery:\n    image: busybox\n", "A=1\n"
NEW_COMPOSE, NEW_ENV = COMPOSE.replace("busybox", "nginx:1.29", 1), ENV + "B=2\n"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class CoreHost:
    """A host with a run folder and Komodo's folder; its disk is full from the n-th write on."""

    root: Path
    number: int
    stage: Stage = field(init=False)
    before: str = ""
    struck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.stage = Stage(self.root)
        for mark in ("core-v2-started", "restore.sh", "compose.yaml"):
            (self.stage.run / mark).unlink()
        self.stage.database()
        self.stage.container("new-core", "nginx:1.29")  # pulled when it was staged
        self.opt.mkdir()
        self.compose.write_text(COMPOSE)
        self.env.write_text(ENV)
        self.compose.chmod(0o640)

    @property
    def opt(self) -> Path:
        return self.stage.host.root / "opt"

    @property
    def compose(self) -> Path:
        return self.opt / "compose.yaml"

    @property
    def env(self) -> Path:
        return self.opt / "compose.env"

    def script(self, name: str, *args: object, data: str = "", **params: object) -> subprocess.CompletedProcess[bytes]:
        values = {key: str(value) for key, value in params.items()}
        script = Script.load("komodo.sh", name, *map(str, args), **values)
        text = f"KU_STAMP=20261123T221500Z\n{self.before}{script.text}"
        return self.stage.sh(*words_of(replace(script, text=text)), stdin=data.encode())

    def restore(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.stage.sh("-c", f'{self.before}. "$0"', str(self.stage.run / "restore.sh"), *words)

    def on_full_disk(self, step: Step) -> subprocess.CompletedProcess[bytes]:
        host = self.stage.host
        host.disk = disk = BadDisk(host.root / "bin", host.root, at=self.number)
        disk.install()
        self.before = disk.builtins
        done = step(self)
        self.before = ""
        self.struck = disk.struck()
        host.empty_disk()
        return done

    def live(self) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.opt.rglob("*") if p.is_file()}


Step = Callable[[CoreHost], subprocess.CompletedProcess[bytes]]


def back_up(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    script, listed = standalone("komodo.sh", "core/restore_core.sh"), "version\t1.19.5\n"
    saved = [("compose.yaml", COMPOSE), ("compose.env", ENV)]
    listed += "".join(f"saved\t{sha(text)}\t{name}\t{host.opt / name}\n" for name, text in saved)
    listed += f"directory\t{host.opt}\nproject\tkomodo\ncore_service\tcore\ncore_container\tcore\n"
    parts = [("restore.sh", script), ("restore.list", listed), ("manifest.json", "{}\n")]
    args: list[object] = []
    for name, text in parts:
        args += ["part", len(text.encode()), name]
    for name, text in saved:
        args += ["file", host.opt / name, sha(text), name, "yes"]
    return host.script(
        "core/back_up_core.sh", *args, folder=host.stage.run, suffix=".bak_v1", data="".join(t for _, t in parts)
    )


def dump(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script(
        "database/dump_database.sh",
        folder=host.stage.run,
        label="final",
        container="db",
        uri="mongodb://127.0.0.1:27017/",
        database="komodo",
        login="open",
    )


def stage(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    args: list[object] = []
    for name, text in (("compose.yaml", NEW_COMPOSE), ("compose.env", NEW_ENV)):
        args += ["part", len(text), name, sha(text)]
    args += ["compose", "docker", "compose", "-p", "komodo"]
    return host.script(
        "core/stage_core.sh", *args, folder=host.stage.run, directory=host.opt, data=NEW_COMPOSE + NEW_ENV
    )


def write(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    args = ["compose.yaml", host.compose, sha(COMPOSE), sha(NEW_COMPOSE), "compose.env", host.env, sha(ENV)]
    folder = host.stage.run
    return host.script(
        "core/write_core_files.sh",
        *args,
        sha(NEW_ENV),
        folder=folder,
        keys=host.opt / "keys",
        pair="no",
        record=folder / "dump.json",
        data="{}\n",
    )


def stop(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script(
        "core/stop_core.sh", "docker", "compose", folder=host.stage.run, directory=host.opt, service="core"
    )


def start(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script(
        "core/start_core.sh",
        "docker",
        "compose",
        folder=host.stage.run,
        directory=host.opt,
        service="core",
        database="db",
    )


def switch_agent(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    now, keyed = host.compose.read_text(), NEW_COMPOSE + "# key\n"
    return host.script(
        "core/switch_core_agent.sh",
        "docker",
        "compose",
        folder=host.stage.run,
        directory=host.opt,
        service="periphery",
        dest=host.compose,
        base=sha(now),
        result=sha(keyed),
        bytes=len(keyed),
        data=keyed,
    )


def save_key(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    (host.stage.host.root / "key").write_text("private\n")
    return host.script("core/read_core_key.sh", folder=host.stage.run, key=host.stage.host.root / "key")


def note(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("fleet/write_note.sh", path=host.stage.run / "dump.json", data='{"note": 1}\n')


def report(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.script("fleet/save_report.sh", folder=host.stage.run, markdown_bytes=4, json_bytes=3, data="# r\n{}\n")


def restored(host: CoreHost) -> subprocess.CompletedProcess[bytes]:
    return host.restore("files")


STEPS: dict[str, tuple[tuple[Step, ...], Step, int]] = {
    "back up": ((), back_up, 8),
    "dump": ((back_up,), dump, 1),
    "stage": ((back_up,), stage, 4),
    "stop": ((back_up,), stop, 1),
    "write": ((back_up, stage), write, 4),
    "start": ((back_up, stage, write), start, 0),
    "agent": ((back_up, stage, write), switch_agent, 3),
    "key": ((back_up,), save_key, 1),
    "note": ((back_up,), note, 1),
    "report": ((back_up,), report, 3),
    "restore": ((back_up, stage, write), restored, 4),
}
"""The steps before, the step, and the least number of its writes."""
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
            assert restored(host).returncode == 0
            assert {n: host.live()[n] for n in ("compose.yaml", "compose.env")} == {
                "compose.yaml": COMPOSE,
                "compose.env": ENV,
            }
            assert host.compose.stat().st_mode & 0o777 == 0o640
    assert number > at_least, "the step writes more often than that: is the disk full at all?"
    assert done.returncode == 0, done.stderr
