"""The scripts that switch an agent, on their own under dash, also when they are killed anywhere and run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.exec.script import parse
from tests.activities.machine import (
    KEYED,
    NEW,
    OLD,
    PLAIN,
    SETUP,
    Machine,
    agent,
    back_up,
    build,
    by_script,
    restore,
    sha,
    stage,
    switch,
)
from tests.shells import TOOLS


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return build(tmp_path)


def test_switch_puts_config_and_binary_in_place_and_waits_for_the_journal(machine: Machine) -> None:
    back_up(machine)
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["settled"] == ["yes"]
    assert said["invocation"] == [machine.service.invocation]
    assert float(said["downtime"][0]) < 30
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(NEW), KEYED)
    assert (machine.binary.stat().st_mode & 0o777, machine.config.stat().st_mode & 0o777) == (0o755, 0o640)
    assert "core_public_keys" in machine.log
    key = machine.root / "agent/keys/core.pub"
    assert key.read_text() == "-----BEGIN PUBLIC KEY-----\nthe key\n-----END PUBLIC KEY-----\n"
    assert (key.stat().st_mode & 0o777, [p.name for p in key.parent.iterdir()]) == (0o600, ["core.pub"])
    assert "secret-1" not in done.stdout + done.stderr
    left = [p.name for p in (*machine.binary.parent.iterdir(), *machine.config.parent.iterdir())]
    assert sorted(left) == ["periphery", "periphery.config.toml", "periphery.config.toml.bak_v1"]
    assert not list(machine.folder.glob("*.text"))


def test_switch_again_changes_nothing_more(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    starts, run = machine.calls("systemctl", "start"), machine.service.invocation
    again = switch(machine)
    assert again.returncode == 0, again.stderr
    assert parse(again.stdout)["invocation"] == [run]
    assert machine.calls("systemctl", "start") == starts


KILLS = {"ln": 2, "chmod": 2, "sync": 3, "mv": 4, "systemctl": 6, "rm": 2}
SEALED_KILLS = {"cp": 2, "mv": 4, "systemctl": 5}


@pytest.mark.parametrize(
    ("sealed", "command", "when"),
    [(False, c, n) for c, most in KILLS.items() for n in range(1, most + 1)]
    + [(True, c, n) for c, most in SEALED_KILLS.items() for n in range(1, most + 1)],
)
def test_switch_killed_anywhere_is_finished_by_the_next_call(
    machine: Machine, sealed: bool, command: str, when: int
) -> None:
    """The n-th call of a command kills the script, once before and once after the command took effect."""
    back_up(machine)
    if sealed:
        assert stage(machine).returncode == 0
    inner = Path("/usr/bin") / command
    if command == "systemctl":
        inner = machine.root / "bin/.slow/systemctl"
        inner.symlink_to("../.standin")
    counter = machine.root / "counter"
    after = ":" if when % 2 else f'{inner} "$@"'
    killer = machine.replace(
        command,
        f"n=$(($(cat {counter} 2>/dev/null || echo 0) + 1)); echo $n >{counter}\n"
        f'if [ "$n" = {when} ]; then {after}; kill -9 $PPID; exit 137; fi\nexec {inner} "$@"',
    )
    switch(machine)
    killer.unlink()
    if command == "systemctl":
        killer.symlink_to(".standin")
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)["settled"] == ["yes"]
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(NEW), KEYED)
    assert machine.service.active == "active"
    assert f"version: v{NEW}" in machine.log
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(OLD), PLAIN)


def test_a_staged_binary_is_only_renamed(machine: Machine) -> None:
    """No digest of a binary, no copy, nothing to be flushed but the config: the disk may be busy."""
    back_up(machine)
    done = stage(machine)
    assert done.returncode == 0, done.stderr
    linked = machine.binary.parent / ".periphery.komodo-upgrade"
    assert linked.samefile(machine.folder / "staged/periphery")
    assert machine.binary.read_text() == agent(OLD)
    counter = machine.root / "digests"
    machine.replace("sha256sum", f'echo x >>{counter}\nexec /usr/bin/sha256sum "$@"')
    switched = switch(machine)
    assert switched.returncode == 0, switched.stderr
    assert parse(switched.stdout)["settled"] == ["yes"]
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(NEW), KEYED)
    assert machine.binary.stat().st_mode & 0o777 == 0o755
    if not TOOLS:  # busybox runs a sha256sum of its own
        assert counter.read_text().count("x") == 3, "of the config: before, then with the new text, and after"
    assert not linked.exists()


@pytest.mark.parametrize("how", ["written over", "exchanged", "the copy", "mode"])
def test_a_change_after_the_staging_is_noticed(machine: Machine, how: str) -> None:
    back_up(machine)
    run = machine.service.invocation
    stage(machine)
    linked = machine.binary.parent / ".periphery.komodo-upgrade"
    if how == "written over":
        machine.binary.write_text(agent("1.19.6"))
    elif how == "exchanged":
        other = machine.root / "other"
        other.write_text(agent("1.19.6"))
        other.chmod(0o755)
        other.rename(machine.binary)
    elif how == "the copy":
        linked.write_text(agent("9.9.9"))
    else:
        machine.binary.chmod(0o700)
    done = switch(machine)
    if how == "mode":
        assert done.returncode == 0, done.stderr
        assert machine.binary.stat().st_mode & 0o777 == 0o700, "as it was when it was switched"
        return
    assert done.returncode == 72, done.stderr
    assert machine.binary.read_text() == agent(OLD if how == "the copy" else "1.19.6")
    assert not linked.exists()
    assert machine.service.invocation == run


def test_the_release_of_a_server_removes_an_unused_staged_binary(machine: Machine) -> None:
    back_up(machine)
    stage(machine)
    done = machine.run("release_server.sh", folder=str(machine.folder))
    assert done.returncode == 0, done.stderr
    assert [p.name for p in machine.binary.parent.iterdir()] == ["periphery"]


@pytest.mark.parametrize(("what", "code"), [("config", 72), ("binary", 72), ("text", 74)])
def test_switch_refuses_what_was_not_planned(machine: Machine, what: str, code: int) -> None:
    back_up(machine)
    run = machine.service.invocation
    if what == "config":
        machine.config.write_text("changed by hand\n")
    elif what == "binary":
        machine.binary.write_text(agent("1.18.0"))
    before = (machine.binary.read_text(), machine.config.read_text())
    done = switch(machine, config=KEYED[:5] if what == "text" else KEYED)
    assert done.returncode == code, done.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == before
    assert machine.service.invocation == run
    left = {p.name for p in (*machine.binary.parent.iterdir(), *machine.config.parent.iterdir())}
    assert left == {"periphery", "periphery.config.toml", "periphery.config.toml.bak_v1"}


def test_an_agent_that_fails_is_reported_not_hidden(machine: Machine) -> None:
    back_up(machine)
    machine.host.world.faults.set("old-libc", machine.host.name, {})
    done = switch(machine)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)["settled"] == ["failed"]
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert f"version: v{OLD}" in back.stdout


def test_the_official_script_finds_the_config_in_place_and_is_checked(machine: Machine) -> None:
    back_up(machine)
    done = by_script(machine, SETUP)
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert (said["settled"], said["invocation"]) == (["yes"], [machine.service.invocation])
    assert said["sha256"] == [sha(agent(NEW))]
    assert oct(machine.binary.stat().st_mode & 0o777) == "0o755", "whoever User= names has to be able to run it"
    assert "core_public_keys" in machine.log
    again = by_script(machine, "import sys\nsys.exit('not run twice')\n")
    assert again.returncode == 0, again.stderr
    assert restore(machine).returncode == 0
    assert machine.binary.read_text() == agent(OLD)


@pytest.mark.parametrize(
    ("text", "code", "untouched"),
    [
        ("<html>rate limited</html>", 76, True),
        ("import os\nos.remove({binary!r})\nraise SystemExit(1)\n", 76, False),
        ("import os\n", 77, False),
    ],
)
def test_an_official_script_that_fails_can_be_undone(machine: Machine, text: str, code: int, untouched: bool) -> None:
    back_up(machine)
    done = by_script(machine, text)
    assert done.returncode == code, done.stderr
    assert (machine.service.active == "active" and machine.config.read_text() == PLAIN) is untouched
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(OLD), PLAIN)
