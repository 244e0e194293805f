"""A link under the name of a temporary file must never make root overwrite, chown or chmod what it leads to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.exec.script import Script, standalone
from tests.adversary.ground import OTHER, ROOT, copy_tools, give, open_ground, run, sha, tool, with_files
from tests.shells import SHELL, path, words_of

SECRET = "only root may write here\n"


class Place:
    """A folder of the other user's with a file to be replaced, and a victim that only root may touch."""

    def __init__(self, ground: Path) -> None:
        self.ground = ground
        self.theirs = ground / "home"
        self.theirs.mkdir()
        self.file = self.theirs / "periphery.config.toml"
        self.file.write_text("old\n")
        self.victim = ground / "victim"
        self.victim.write_text(SECRET)
        self.victim.chmod(0o600)
        self.new = ground / "new"
        self.new.write_text("new\n")
        self.new.chmod(0o600)
        give(self.theirs)

    def plant(self, *names: str) -> None:
        for name in names:
            (self.theirs / name).symlink_to(self.victim)
            give(self.theirs)

    def victim_is_untouched(self) -> None:
        found = self.victim.stat()
        assert (self.victim.read_text(), found.st_uid, found.st_mode & 0o777) == (SECRET, os.geteuid(), 0o600)


@pytest.fixture
def place() -> Iterator[Place]:
    with open_ground() as ground:
        yield Place(ground)


def run_known(place: Place, script: Script, *planted: str, data: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a script whose process number the attacker has guessed: links with it are there before the script begins."""
    name, text, words = script.name, script.text, script.words
    waiting = Script(name, f"echo $$ >&2\nread -r go <{place.ground / 'go'}\n{text}", words)
    os.mkfifo(place.ground / "go")
    process = subprocess.Popen(
        [SHELL, *words_of(waiting)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": path(), "LC_ALL": "C"},
    )
    assert process.stderr
    number = process.stderr.readline().decode().strip()
    place.plant(*(name.replace("PID", number) for name in planted))
    (place.ground / "go").write_text("go\n")
    out, err = process.communicate(data.encode(), timeout=60)
    return subprocess.CompletedProcess((), process.returncode, out.decode(), err.decode())


def test_replace_file_with_a_guessed_process_number(place: Place) -> None:
    script = with_files('replace_file "$1" "$2" "$3" "$4"', str(place.new), str(place.file), sha("old\n"), sha("new\n"))
    names = (".periphery.config.toml.komodo-upgrade.PID", "periphery.config.toml.komodo-upgrade.PID")
    done = run_known(place, script, *names)
    assert done.returncode == 0, done.stderr
    assert place.file.read_text() == "new\n"
    assert place.file.stat().st_uid == OTHER
    place.victim_is_untouched()


def test_the_guides_copy_with_a_guessed_process_number(place: Place) -> None:
    script = with_files('as_owner "$1" copy_of "$1" "$1.bak_v1" "$2"', str(place.file), sha("old\n"))
    done = run_known(place, script, "periphery.config.toml.bak_v1.komodo-upgrade.PID")
    assert done.returncode == 0, done.stderr
    assert (place.theirs / "periphery.config.toml.bak_v1").read_text() == "old\n"
    place.victim_is_untouched()


def test_a_copy_that_is_a_link_is_never_written_through(place: Place) -> None:
    place.plant("periphery.config.toml.bak_v1")
    done = run(with_files('as_owner "$1" copy_of "$1" "$1.bak_v1" "$2"', str(place.file), sha("old\n")))
    assert (done.returncode == 0) == (place.theirs / "periphery.config.toml.bak_v1.20261123T221500Z").exists()
    place.victim_is_untouched()


def test_core_keys_with_a_guessed_process_number(place: Place) -> None:
    keys, folder = place.theirs / "keys", place.ground / "run"
    keys.mkdir(mode=0o700)
    (folder / "staged").mkdir(parents=True)
    for name in ("core.key", "core.pub"):
        (folder / "staged" / name).write_text(f"{name}\n")
    give(place.theirs)
    script = Script.load("komodo.sh", "core/write_core_files.sh", folder=str(folder), keys=str(keys), pair="yes")
    done = run_known(place, script, "keys/.core.key.komodo-upgrade.PID", "keys/.core.pub.komodo-upgrade.PID")
    assert done.returncode == 0, done.stderr
    assert (keys / "core.key").read_text() == "core.key\n"
    assert ((keys / "core.key").stat().st_uid, (keys / "core.key").stat().st_mode & 0o777) == (OTHER, 0o600)
    place.victim_is_untouched()


def test_restore_sh_of_a_server(place: Place) -> None:
    """Root's restore.sh wrote through `.NAME.komodo-restore`, and gave the victim to the other user."""
    folder = place.ground / "state/fleet/20261123T221500Z"
    (folder / "files").mkdir(parents=True)
    (folder / "files/config").write_text("saved\n")
    (folder / "restore.sh").write_text(standalone("komodo.sh", "server/restore_server.sh"))
    saved = sha("saved\n")
    listed = f"file\tconfig\t{saved}\t0640\t{OTHER}:{OTHER}\tconfig\t{place.file}"
    (folder / "restore.list").write_text(f"format\t1\nunit\tp.service\nversion\t-\nwait\t1\n{listed}\n")
    place.plant(".periphery.config.toml.komodo-restore", ".periphery.config.toml.komodo-upgrade.x")
    tools = tool(place.ground / "bin", "systemctl", "case $1 in is-active) echo active ;; esac")
    tool(tools, "journalctl", "echo starting on x")
    done = subprocess.run(
        [SHELL, str(folder / "restore.sh")], env={"PATH": path(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    place.victim_is_untouched()
    assert place.file.read_text() == "saved\n"
    assert (place.file.stat().st_uid, place.file.stat().st_mode & 0o777) == (OTHER, 0o640)
    assert not (place.theirs / ".periphery.config.toml.komodo-upgrade.x").is_symlink()


@pytest.mark.parametrize("guess", ["compose.yaml.restore.PID", ".compose.yaml.komodo-upgrade.PID"])
def test_restore_sh_of_core(place: Place, guess: str) -> None:
    folder, compose = place.ground / "run", place.theirs / "compose.yaml"
    (folder / "files").mkdir(parents=True)
    (folder / "files/compose.yaml").write_text("saved\n")
    compose.write_text("new\n")
    give(place.theirs)
    (folder / "restore.sh").write_text(standalone("komodo.sh", "core/restore_core.sh"))
    saved = sha("saved\n")
    (folder / "restore.list").write_text(f"saved\t{saved}\tcompose.yaml\t{compose}\n")
    # In the shell whose number is known.
    text = (folder / "restore.sh").read_text().replace('"$0"', f'"{folder}/restore.sh"')
    done = run_known(place, Script("restore.sh", text, ("files",)), guess)
    assert done.returncode == 0, done.stderr
    assert compose.read_text() == "saved\n"
    place.victim_is_untouched()


def test_the_staged_binary(place: Place) -> None:
    """The link is planted when the old name is gone and the new one not yet there."""
    staged = place.ground / "run/staged/periphery"
    staged.parent.mkdir(parents=True)
    staged.write_text("#!/bin/sh\necho periphery 2.3.2\n")
    binary = place.theirs / "periphery"
    binary.write_text("#!/bin/sh\necho periphery 1.19.5\n")
    binary.chmod(0o755)
    give(place.theirs)
    second = place.theirs / ".periphery.komodo-upgrade"
    # As if another process of the attacker's had won.
    tools = tool(place.ground / "bin", "ln", f"/bin/ln -s '{place.victim}' '{second}' 2>/dev/null\nexit 1")
    place.plant(".periphery.komodo-upgrade")
    expected = sha(staged.read_text())
    script = Script.load("komodo.sh", "server/stage_agent.sh", file=str(staged), expected=expected, binary=str(binary))
    done = run(script, PATH=path(tools))
    place.victim_is_untouched()
    assert done.returncode == 0, done.stderr
    assert (second.is_symlink(), second.read_text()) == (False, staged.read_text())
    assert second.stat().st_uid == OTHER


def test_a_folder_in_the_place_of_a_file_is_not_filled(place: Place) -> None:
    """`mv` would put the file into a folder, or into one that a link leads to."""
    inside = place.ground / "inside"
    inside.mkdir()
    (place.theirs / "target").symlink_to(inside)
    done = run(with_files('rename_file "$1" "$2"', str(place.new), str(place.theirs / "target")))
    assert done.returncode == 72
    assert not list(inside.iterdir())
    assert place.new.exists()


if ROOT:

    @pytest.mark.parametrize("missing", [(), ("setpriv",), ("setpriv", "runuser"), ("setpriv", "runuser", "sudo")])
    def test_each_program_that_can_change_the_user(place: Place, missing: tuple[str, ...]) -> None:
        tools = copy_tools(place.ground / "tools", *missing)
        words = (str(place.new), str(place.file), sha("old\n"), sha("new\n"))
        done = run(with_files('replace_file "$1" "$2" "$3" "$4"', *words), PATH=tools)
        assert done.returncode == 0, done.stderr
        assert (place.file.read_text(), place.file.stat().st_uid) == ("new\n", OTHER)

    def test_a_user_without_a_name(place: Place) -> None:
        """Only setpriv and sudo take a number."""
        give(place.theirs, 4242)
        words = (str(place.new), str(place.file), sha("old\n"), sha("new\n"))
        done = run(with_files('replace_file "$1" "$2" "$3" "$4"', *words))
        assert place.file.stat().st_uid == 4242
        assert (done.returncode, place.file.read_text()) in {(0, "new\n"), (71, "old\n")}
        place.victim_is_untouched()

    def test_without_any_it_refuses(place: Place) -> None:
        tools = copy_tools(place.ground / "tools", "setpriv", "runuser", "su", "sudo")
        words = (str(place.new), str(place.file), sha("old\n"), sha("new\n"))
        done = run(with_files('replace_file "$1" "$2" "$3" "$4"', *words), PATH=tools)
        assert (done.returncode, place.file.read_text()) == (71, "old\n")
        assert "to work as that user" in done.stderr
