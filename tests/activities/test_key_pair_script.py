"""Key pairs inside of containers, moved out and back by the scripts, which are killed anywhere and run again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from activities.core.backup import restore_script
from hosts.exec.script import Script
from tests.shells import SHELL, path, words_of

KEY, PUBLIC = "-----BEGIN PRIVATE KEY-----\nours\n-----END PRIVATE KEY-----\n", "the public part\n"
DOCKER = r"""
state={state}
case "$1 $2" in
  "inspect -f") case $3 in *Mounts*) [ -d "$state/inside" ] || exit 1; cat "$state/mounts" ;; esac ;;
  "inspect "*) echo '"Running": false' ;;
  "cp "*:/config/*)
    file=$state/inside/config/keys/${{2##*/}}
    if [ ! -e "$file" ]; then
      echo "Error response from daemon: Could not find the file ${{2#*:}} in container core" >&2
      exit 1
    fi
    cp -Rp "$file" "$3"
    ;;
  "cp "*) cp -Rp "$2" "$state/inside/" ;;
  "compose "*)
    if [ -s "$state/mounts" ]; then # the files changed: another container
      rm -rf "$state/inside"
      mkdir -p "$state/inside/config"
      : >"$state/mounts"
    fi
    case $* in
      *--no-start*) ;;
      *)
        mkdir -p "$state/inside/config/keys"
        [ -e "$state/inside/config/keys/core.key" ] || echo another >"$state/inside/config/keys/core.key"
        : >"$state/started"
        ;;
    esac
    ;;
esac
"""


class Machine:
    """A run folder, and a stand-in of docker with one container, Core's."""

    def __init__(self, root: Path) -> None:
        self.state, self.run, self.keys, self.bin = (root / name for name in ("state", "run", "keys", "bin"))
        for folder in (self.state / "inside/config/keys", self.run, self.bin):
            folder.mkdir(parents=True)
        (self.state / "mounts").touch()
        (self.state / "inside/config/keys/core.key").write_text(KEY)
        (self.state / "inside/config/keys/core.pub").write_text(PUBLIC)
        self.program("docker", DOCKER.format(state=self.state))

    def program(self, name: str, text: str) -> Path:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    def sh(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": path(self.bin), "LC_ALL": "C"}
        return subprocess.run(
            [SHELL, *words], input="{}", capture_output=True, text=True, env=env, timeout=60, check=False
        )

    def write(self) -> subprocess.CompletedProcess[str]:
        values = {"folder": str(self.run), "keys": str(self.keys), "pair": "no", "inside": "core"}
        record = str(self.run / "record")
        return self.sh(*words_of(Script.load("komodo.sh", "core/write_core_files.sh", record=record, **values)))

    def upgraded(self) -> None:
        """Core runs from the mounted folder."""
        (self.state / "mounts").write_text("/backups\n/config/keys\n")
        (self.run / "core-v2-started").touch()
        (self.run / "restore.sh").write_text(restore_script())
        (self.run / "restore.list").write_text(
            "version\t2.0.0\ncompose\tdocker compose\nproject\tkomodo\n"
            f"directory\t{self.run}\ncore_service\tcore\ncore_container\tcore\ncore_image\tk:1\n"
            "core_image_id\tsha256:abc\ncore_pair\tinside\n"
        )

    def start_old(self) -> subprocess.CompletedProcess[str]:
        return self.sh(str(self.run / "restore.sh"), "start")

    def kill(self, command: str, when: int, *, after: bool) -> None:
        """The `when`-th call of a command kills the script, before or after the command took effect."""
        real = f"{self.bin}/.docker" if command == "docker" else f"/usr/bin/{command}"
        if command == "docker":
            (self.bin / "docker").rename(real)
        counter, effect = self.state / "counter", f'{real} "$@"' if after else ":"
        self.program(
            command,
            f"n=$(($(cat {counter} 2>/dev/null || echo 0) + 1)); echo $n >{counter}\n"
            f'if [ "$n" = {when} ]; then {effect}; kill -9 $PPID; exit 137; fi\nexec {real} "$@"',
        )

    def heal(self, command: str) -> None:
        (self.bin / command).unlink()
        if command == "docker":
            (self.bin / ".docker").rename(self.bin / "docker")

    def pair(self, folder: Path) -> tuple[str, str]:
        return (folder / "core.key").read_text(), (folder / "core.pub").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


KILLS = {"docker": 8, "mv": 5, "mkdir": 2, "rm": 2}


@pytest.mark.parametrize(("command", "when"), [(c, n) for c, most in KILLS.items() for n in range(1, most + 1)])
def test_killed_anywhere_the_next_call_finishes(machine: Machine, command: str, when: int) -> None:
    after = bool(when % 2)
    machine.kill(command, when, after=after)
    machine.write()
    machine.heal(command)
    done = machine.write()
    assert done.returncode == 0, done.stderr
    assert machine.pair(machine.keys) == machine.pair(machine.run / "keys-inside") == (KEY, PUBLIC)
    assert sorted(p.name for p in machine.keys.iterdir()) == ["core.key", "core.pub"]
    assert sorted(p.name for p in (machine.run / "keys-inside").iterdir()) == ["core.key", "core.pub"]

    machine.upgraded()
    (machine.state / "counter").unlink(missing_ok=True)
    machine.kill(command, when, after=after)
    machine.start_old()
    machine.heal(command)
    back = machine.start_old()
    assert back.returncode == 0, back.stderr
    assert machine.pair(machine.state / "inside/config/keys") == (KEY, PUBLIC)
    assert (machine.state / "started").exists()
    assert KEY not in done.stdout + done.stderr + back.stdout + back.stderr


def test_a_key_that_is_in_the_folder_already_stays(machine: Machine) -> None:
    machine.keys.mkdir()
    (machine.keys / "core.key").write_text("of another Core")
    done = machine.write()
    assert done.returncode == 72
    assert "is not the key of core: another program has written it; it was left as it is" in done.stderr
    assert (machine.keys / "core.key").read_text() == "of another Core"


@pytest.mark.parametrize("what", ["a link", "empty"])
def test_what_is_no_key_file_is_refused(machine: Machine, what: str) -> None:
    inside = machine.state / "inside/config/keys/core.key"
    inside.unlink()
    if what == "a link":
        inside.symlink_to("/etc/hostname")
    else:
        inside.touch()
    done = machine.write()
    assert done.returncode == 1
    assert {"a link": "is not a plain file", "empty": "is empty"}[what] in done.stderr
    assert not list(machine.keys.iterdir())


def test_a_core_whose_key_is_elsewhere_has_none_to_move(machine: Machine) -> None:
    for file in (machine.state / "inside/config/keys").iterdir():
        file.unlink()
    done = machine.write()
    assert done.returncode == 0, done.stderr
    assert not list((machine.run / "keys-inside").iterdir())
    assert not list(machine.keys.iterdir())


def test_a_removed_container_leaves_what_was_saved(machine: Machine) -> None:
    machine.write()
    for file in machine.keys.iterdir():
        file.unlink()
    (machine.state / "inside").rename(machine.state / "gone")
    done = machine.write()
    assert done.returncode == 0, done.stderr
    assert machine.pair(machine.keys) == (KEY, PUBLIC)
