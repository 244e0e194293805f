"""The servers' sh files alone: real dash, real files, stand-ins for systemctl and journalctl that keep their state."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hosts.script import Script, packaged, parse

OLD, NEW = "1.19.5", "2.3.2"
KEYED = 'core_public_keys = ["MCow"]\npasskeys = ["secret-1"]\n'
PLAIN = 'passkeys = ["secret-1"]\n'

SYSTEMCTL = r"""#!/bin/sh
d={state}
echo "$*" >>"$d/calls"
case $1 in
  show)
    for p in ActiveState InvocationID NRestarts SubState MainPID; do echo "$p=$(cat "$d/$p" 2>/dev/null)"; done ;;
  is-active) cat "$d/ActiveState" ;;
  stop) echo inactive >"$d/ActiveState" ;;
  start)
    if [ "$(cat "$d/ActiveState")" = active ]; then exit 0; fi
    n=$(($(cat "$d/count") + 1)); echo $n >"$d/count"; echo "run$n" >"$d/InvocationID"; echo active >"$d/ActiveState"
    v=$({binary} --version | sed 's/^periphery //')
    j=$d/journal.run$n
    case $v in 2*) printf '\033[2mx\033[0m INFO PeripheryStartup: ' >"$j" ;; *) : >"$j" ;; esac
    echo "Komodo Periphery version: v$v" >>"$j"
    echo "PeripheryConfig {{ $(head -n 1 {config}) }}" >>"$j"
    echo "Server starting on https://[::]:8120" >>"$j"
    if [ -f "$d/crash" ] && [ "$v" = "$(cat "$d/crash")" ]; then echo failed >"$d/ActiveState"; : >"$j"; fi ;;
esac
"""
JOURNALCTL = r"""#!/bin/sh
for w; do case $w in _SYSTEMD_INVOCATION_ID=*) cat "{state}/journal.${{w#*=}}" 2>/dev/null;; esac; done
exit 0
"""


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def agent(version: str) -> str:
    return f"#!/bin/sh\necho periphery {version}\n"


@dataclass
class Machine:
    root: Path

    @property
    def binary(self) -> Path:
        return self.root / "usr local/bin/periphery"

    @property
    def config(self) -> Path:
        return self.root / "etc/komodo/periphery.config.toml"

    @property
    def folder(self) -> Path:
        return self.root / "state/fleet/20261123T221500Z"

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.root}/bin:/usr/bin:/bin", "LC_ALL": "C", "KU_STAMP": "20261123T221500Z"}

    def run(self, name: str, *args: str, data: str = "", kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a script as hosts do; with kill_at, ends it hard at that external command (counted by a stand-in)."""
        text = Script.load("komodo.sh", name).text
        return subprocess.run(
            ["dash", "-c", 'set -eu\numask 077\neval "$KU_TEXT"', name, *args],
            input=data,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment(), "KU_TEXT": text, "KILL_AT": str(kill_at)},
            check=False,
        )

    def state(self, name: str) -> str:
        path = self.root / "systemd" / name
        return path.read_text().strip() if path.exists() else ""

    def set(self, name: str, value: str) -> None:
        (self.root / "systemd" / name).write_text(value + "\n")

    def calls(self, verb: str) -> int:
        return sum(line.startswith(verb) for line in self.state("calls").splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for folder in ("bin", "systemd", "state", "etc/komodo", "usr local/bin"):
        (tmp_path / folder).mkdir(parents=True)
    quoted = f"'{made.binary}'"
    texts = {
        "systemctl": SYSTEMCTL.format(state=tmp_path / "systemd", binary=quoted, config=made.config),
        "journalctl": JOURNALCTL.format(state=tmp_path / "systemd"),
    }
    for name, text in texts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    made.binary.write_text(agent(OLD))
    made.binary.chmod(0o755)
    made.config.write_text(PLAIN)
    made.config.chmod(0o640)
    for name, value in {"count": "0", "ActiveState": "inactive", "NRestarts": "0"}.items():
        made.set(name, value)
    subprocess.run(["systemctl", "start", "x"], env=made.environment(), check=True)
    return made


RESTORE_LIST = "restore.list"


def back_up(machine: Machine, data: str | None = None) -> subprocess.CompletedProcess[str]:
    files = [
        ("binary", sha(agent(OLD)), "0755", "periphery", "-", machine.binary),
        ("config", sha(PLAIN), "0640", "periphery.config.toml", "bak_v1", machine.config),
    ]
    owner = f"{os.getuid()}:{os.getgid()}"
    saves = "".join(f"save\t{s}\t{name}\t{guide}\t{path}\n" for _, s, _, name, guide, path in files)
    listed = ["format\t1", "unit\tperiphery.service", f"version\t{OLD}", "wait\t5"]
    listed += [f"file\t{kind}\t{s}\t{mode}\t{owner}\t{name}\t{path}" for kind, s, mode, name, _, path in files]
    script = packaged("komodo.sh", "restore_server.sh").splitlines()
    texts = [
        ("0600", listed, RESTORE_LIST),
        ("0700", script, "restore.sh"),
        ("0600", ['{"format": 1}'], "manifest.json"),
    ]
    blocks = "".join(f"text\t{mode}\t{len(lines)}\t{name}\n" + "\n".join(lines) + "\n" for mode, lines, name in texts)
    return machine.run("back_up_server.sh", str(machine.folder), "20261123T221500Z", data=data or saves + blocks)


def switch(machine: Machine, attempt: int = 1, config: str = KEYED) -> subprocess.CompletedProcess[str]:
    staged = machine.folder / "staged/periphery"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_text(agent(NEW))
    return machine.run(
        "switch_agent.sh",
        str(machine.folder / f"switch-{attempt}"),
        "periphery.service",
        str(machine.binary),
        sha(agent(OLD)),
        str(staged),
        sha(agent(NEW)),
        NEW,
        "5",
        str(machine.config),
        sha(PLAIN),
        sha(KEYED),
        data=config,
    )


def restore(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dash", str(machine.folder / "restore.sh"), *args],
        capture_output=True,
        text=True,
        env={"PATH": machine.environment()["PATH"]},
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_back_up_keeps_files_with_mode_and_the_guides_names(machine: Machine) -> None:
    done = back_up(machine)
    assert done.returncode == 0, done.stderr
    assert (machine.folder / "files/periphery").read_text() == agent(OLD)
    saved = machine.folder / "files/periphery.config.toml"
    assert (saved.read_text(), saved.stat().st_mode & 0o777) == (PLAIN, 0o640)
    assert Path(f"{machine.config}.bak_v1").read_text() == PLAIN
    assert (machine.folder / "restore.sh").read_text() == packaged("komodo.sh", "restore_server.sh")
    assert machine.folder.stat().st_mode & 0o077 == 0
    again = back_up(machine)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert len(list(machine.config.parent.iterdir())) == 2


def test_an_older_backup_of_somebody_else_is_kept(machine: Machine) -> None:
    Path(f"{machine.config}.bak_v1").write_text("older\n")
    done = back_up(machine)
    assert parse(done.stdout)["guide"] == [f"periphery.config.toml\t{machine.config}.bak_v1.20261123T221500Z"]
    assert Path(f"{machine.config}.bak_v1").read_text() == "older\n"


def test_a_backup_of_a_changed_file_is_refused(machine: Machine) -> None:
    machine.config.write_text("changed\n")
    done = back_up(machine)
    assert done.returncode == 72
    assert not (machine.folder / "manifest.json").exists()


def test_a_cut_input_is_not_taken_for_a_backup(machine: Machine) -> None:
    done = back_up(machine, data="text\t0600\t3\tmanifest.json\n{\n")
    assert done.returncode == 74
    assert not (machine.folder / "manifest.json").exists()


def test_switch_puts_config_and_binary_in_place_and_waits_for_the_journal(machine: Machine) -> None:
    back_up(machine)
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["settled"] == ["yes"]
    assert said["invocation"] == ["run2"]
    assert float(said["silent"][0]) < 30
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(NEW), KEYED)
    assert (machine.binary.stat().st_mode & 0o777, machine.config.stat().st_mode & 0o777) == (0o755, 0o640)
    assert "core_public_keys" in machine.state("journal.run2")
    assert "secret-1" not in done.stdout + done.stderr
    left = [p.name for p in (*machine.binary.parent.iterdir(), *machine.config.parent.iterdir())]
    assert sorted(left) == ["periphery", "periphery.config.toml", "periphery.config.toml.bak_v1"]
    assert not list(machine.folder.glob("*.text"))


def test_switch_again_changes_nothing_more(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    starts = machine.calls("start")
    again = switch(machine)
    assert again.returncode == 0, again.stderr
    assert parse(again.stdout)["invocation"] == ["run2"]
    assert machine.calls("start") == starts


KILLS = {"cp": 2, "chmod": 2, "sync": 3, "mv": 6, "systemctl": 9, "rm": 3}


@pytest.mark.parametrize(("command", "when"), [(c, n) for c, most in KILLS.items() for n in range(1, most + 1)])
def test_switch_killed_anywhere_is_finished_by_the_next_call(machine: Machine, command: str, when: int) -> None:
    """The n-th call of a command kills the script, once before and once after the command took effect."""
    back_up(machine)
    real = machine.root / "bin" / command
    inner = f"{machine.root}/bin/real-{command}" if real.exists() else f"/usr/bin/{command}"
    if real.exists():
        real.rename(inner)
    counter = machine.root / "counter"
    after = "" if when % 2 else f'{inner} "$@"'
    real.write_text(
        f"#!/bin/sh\nn=$(($(cat {counter} 2>/dev/null || echo 0) + 1)); echo $n >{counter}\n"
        f'if [ "$n" = {when} ]; then {after or ":"}; kill -9 $PPID; exit 137; fi\nexec {inner} "$@"\n'
    )
    real.chmod(0o755)
    switch(machine)
    real.unlink()
    if Path(inner).parent == machine.root / "bin":
        Path(inner).rename(real)
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)["settled"] == ["yes"]
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(NEW), KEYED)
    assert machine.state("ActiveState") == "active"
    assert f"version: v{NEW}" in machine.state(f"journal.{machine.state('InvocationID')}")
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(OLD), PLAIN)


@pytest.mark.parametrize(("what", "code"), [("config", 72), ("binary", 72), ("text", 74)])
def test_switch_refuses_what_was_not_planned(machine: Machine, what: str, code: int) -> None:
    back_up(machine)
    if what == "config":
        machine.config.write_text("by somebody else\n")
    elif what == "binary":
        machine.binary.write_text(agent("1.18.0"))
    before = (machine.binary.read_text(), machine.config.read_text())
    done = switch(machine, config=KEYED[:5] if what == "text" else KEYED)
    assert done.returncode == code, done.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == before
    assert machine.state("InvocationID") == "run1"
    left = {p.name for p in (*machine.binary.parent.iterdir(), *machine.config.parent.iterdir())}
    assert left == {"periphery", "periphery.config.toml", "periphery.config.toml.bak_v1"}


def test_an_agent_that_fails_is_reported_not_hidden(machine: Machine) -> None:
    back_up(machine)
    machine.set("crash", NEW)
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)["settled"] == ["failed"]
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert f"version: v{OLD}" in back.stdout


def test_restore_by_hand_with_a_dry_run_before(machine: Machine) -> None:
    back_up(machine)
    nothing = restore(machine)
    assert nothing.returncode == 0, nothing.stderr
    assert "nothing to put back" in nothing.stdout
    assert machine.state("InvocationID") == "run1"
    switch(machine)
    machine.config.chmod(0o600)
    dry = restore(machine, "--dry-run")
    assert f"would put back config {machine.config}" in dry.stdout
    assert "would stop and start" in dry.stdout
    assert machine.config.read_text() == KEYED
    done = restore(machine)
    assert done.returncode == 0, done.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(OLD), PLAIN)
    assert machine.config.stat().st_mode & 0o777 == 0o640
    run = machine.state("InvocationID")
    assert restore(machine).returncode == 0
    assert machine.state("InvocationID") == run


def test_restore_starts_an_agent_that_somebody_only_half_put_back(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    machine.binary.write_text(agent(OLD))
    machine.config.write_text(PLAIN)
    done = restore(machine)
    assert done.returncode == 0, done.stderr
    assert f"version: v{OLD}" in machine.state(f"journal.{machine.state('InvocationID')}")


def test_restore_brings_back_a_deleted_binary(machine: Machine) -> None:
    back_up(machine)
    machine.binary.unlink()
    assert restore(machine).returncode == 0
    assert machine.binary.read_text() == agent(OLD)
    assert machine.binary.stat().st_mode & 0o777 == 0o755


def test_restore_with_a_damaged_copy_touches_nothing(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    (machine.folder / "files/periphery").write_text("damaged")
    for args in ((), ("--dry-run",)):
        done = restore(machine, *args)
        assert done.returncode == 1
        assert "nothing was touched" in done.stderr
    assert machine.config.read_text() == KEYED
    assert parse(machine.run("check_saved.sh", str(machine.folder)).stdout)["broken"]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("<html>Sign in</html>" + " " * 200, 77, "no program"),
        ("Not Found", 77, "Not Found"),
        ('#!/bin/sh\necho "libssl.so.3: cannot open shared object file" >&2; exit 127\n', 78, "libssl.so.3"),
    ],
)
def test_what_is_staged_is_looked_at_before_it_is_run(machine: Machine, content: str, code: int, says: str) -> None:
    staged = machine.folder / "staged/periphery"
    staged.parent.mkdir(parents=True)
    staged.write_text(content)
    done = machine.run("stage_agent.sh", str(staged), "", "")
    assert done.returncode == code
    assert says in done.stderr


def test_a_staged_binary_is_proven(machine: Machine) -> None:
    source = machine.root / "published"
    source.write_text(agent(NEW))
    staged = machine.folder / "staged/periphery"
    done = machine.run("stage_agent.sh", str(staged), sha(agent(NEW)), source.as_uri())
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["sha256"] == [sha(agent(NEW))]
    assert said["version"] == [f"periphery {NEW} "]
    wrong = machine.run("stage_agent.sh", str(staged), "0" * 64, source.as_uri())
    assert (wrong.returncode, staged.exists()) == (77, False)


@pytest.mark.parametrize("script", ["survey_server.sh", "agent_journal.sh"])
def test_surveys_say_what_systemd_says(machine: Machine, script: str) -> None:
    done = machine.run(script, "periphery.service")
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert "ActiveState=active" in said["show"]


def test_survey_of_files(machine: Machine) -> None:
    done = machine.run(
        "survey_files.sh",
        str(machine.root / "none/yet"),
        "bak_v1",
        str(machine.binary),
        str(machine.config),
        "/nowhere",
    )
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["missing"] == ["/nowhere"]
    assert said["file"] == [f"{machine.config}\t{machine.config}\t{sha(PLAIN)}\t"]
    assert said["binary_version"] == [f"periphery {OLD} "]
    assert int(said["free_state"][0]) > 0
    folder = machine.run("survey_files.sh", "/", "bak_v1", "", str(machine.config.parent))
    assert parse(folder.stdout)["file"] == [f"{machine.config.parent}\t{machine.config}\t{sha(PLAIN)}\t"]
