"""The script of the automatic rollback timer, on its own under dash and busybox: when it acts, and when it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hosts.exec.script import parse
from tests.activities.machine import KEYED, NEW, OLD, PLAIN, Machine, agent, back_up, build, restore, switch

SHELLS = [shell.split() for shell in ("dash", "busybox sh") if shutil.which(shell.split()[0])]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = build(tmp_path)
    back_up(made)
    return made


def timer(machine: Machine, *args: str, shell: list[str] | None = None) -> str:
    done = subprocess.run(
        [*(shell or SHELLS[0]), str(machine.folder / "dead-man.sh"), *args],
        capture_output=True,
        text=True,
        env=machine.environment(),
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip().partition("\t")[0]


def token(machine: Machine) -> str:
    return (machine.folder / "dead-man/armed").read_text().split()[0]


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.05)


def on(machine: Machine) -> tuple[str, str]:
    return machine.binary.read_text(), machine.config.read_text()


def log_in(machine: Machine) -> None:
    text, run = "INFO Logged in to Komodo Core komodo.example.com websocket", machine.service.invocation
    machine.host.journal.add("periphery.service", text, identifier="periphery", pid=1, invocation=run)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_it_restores_the_agent_without_a_confirmation(machine: Machine, shell: list[str]) -> None:
    done = switch(machine, auto_rollback=600)
    assert done.returncode == 0, done.stderr
    assert int(parse(done.stdout)["auto_rollback_at"][0]) > time.time() + 500
    assert on(machine) == (agent(NEW), KEYED)
    assert timer(machine, "state", shell=shell) == "armed"
    timer(machine, "fire", token(machine), shell=shell)
    assert timer(machine, "state", shell=shell) == "fired"
    assert on(machine) == (agent(OLD), PLAIN)
    assert f"version: v{OLD}" in (machine.folder / "dead-man/log").read_text()
    assert not (machine.folder / "dead-man/firing").exists()


def test_detached_it_waits_and_fires(machine: Machine) -> None:
    switch(machine, auto_rollback=1)
    until(lambda: timer(machine, "state") == "fired", "fired")
    assert on(machine) == (agent(OLD), PLAIN)


def test_it_does_nothing_when_core_has_logged_in_since_the_restart(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    log_in(machine)
    timer(machine, "fire", token(machine))
    assert timer(machine, "state") == "silent"
    assert on(machine) == (agent(NEW), KEYED)


def test_a_login_before_the_restart_does_not_count(machine: Machine) -> None:
    log_in(machine)
    switch(machine, auto_rollback=600)
    timer(machine, "fire", token(machine))
    assert timer(machine, "state") == "fired"


def test_disarmed_it_never_fires(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    old = token(machine)
    assert timer(machine, "disarm") == "disarmed"
    timer(machine, "fire", old)
    assert timer(machine, "state") == "disarmed"
    assert on(machine) == (agent(NEW), KEYED)
    assert timer(machine, "disarm") == "disarmed"


def test_a_second_switch_arms_a_timer_of_its_own(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    old = token(machine)
    timer(machine, "fire", old)
    assert timer(machine, "state") == "fired"
    done = switch(machine, attempt=2, auto_rollback=600)
    assert done.returncode == 0, done.stderr
    assert timer(machine, "state") == "armed"
    assert token(machine) != old
    timer(machine, "fire", old)
    assert on(machine) == (agent(NEW), KEYED)
    assert timer(machine, "state") == "armed"


def test_a_systemd_timer_where_systemd_runs(machine: Machine) -> None:
    """The options of systemd-run, and that the disarmed timer is stopped."""
    machine.replace("systemd-run", f'echo "$@" >>{machine.root}/asked')
    switch(machine, auto_rollback=600)
    asked = (machine.root / "asked").read_text()
    unit = f"komodo-upgrade-dead-man-{token(machine)}"
    assert f"--unit={unit} " in asked
    assert "--on-active=600 " in asked
    assert asked.rstrip().endswith(f"sh {machine.folder}/dead-man.sh fire {token(machine)}")
    timer(machine, "disarm")
    assert machine.calls("systemctl", "stop", f"{unit}.timer") == 1


def test_a_switch_whose_timer_cannot_be_armed_is_refused(machine: Machine) -> None:
    (machine.folder / "dead-man.sh").write_text("exit 1\n")
    done = switch(machine, auto_rollback=600)
    assert done.returncode == 1
    assert "nothing was switched" in done.stderr
    assert on(machine) == (agent(OLD), PLAIN)


def test_a_restore_by_hand_disarms_it(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    assert "would disarm the automatic rollback timer" in restore(machine, "--dry-run").stdout
    assert timer(machine, "state") == "armed"
    assert restore(machine).returncode == 0
    assert timer(machine, "state") == "disarmed"


def test_an_undo_waits_for_one_that_fires(machine: Machine) -> None:
    """Two restore.sh at the same time would stop and start each other's agent."""
    switch(machine, auto_rollback=600)
    machine.replace("sync", "sleep 2")
    firing = subprocess.Popen(
        ["dash", str(machine.folder / "dead-man.sh"), "fire", token(machine)],
        env=machine.environment(),
    )
    until((machine.folder / "dead-man/firing/pid").exists, "fired")
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert "nothing to restore" in back.stdout
    assert firing.wait(20) == 0
    assert machine.calls("systemctl", "start") == 2, "by the switch, and once by the timer"


def test_it_waits_for_a_switch_that_is_still_running(machine: Machine) -> None:
    stay = subprocess.Popen(["sleep", "60"])
    try:
        timer(machine, "arm", "600", str(stay.pid))
        firing = subprocess.Popen(
            ["dash", str(machine.folder / "dead-man.sh"), "fire", token(machine)],
            env=machine.environment(),
        )
        with pytest.raises(subprocess.TimeoutExpired):
            firing.wait(1.5)
        assert timer(machine, "state") == "armed"
    finally:
        stay.kill()
        stay.wait()
    assert firing.wait(20) == 0
    assert timer(machine, "state") == "fired"


def test_a_reboot_of_the_host_is_reported(machine: Machine) -> None:
    """Also in the middle of a restore: the next restore completes it."""
    switch(machine, auto_rollback=600)
    armed = machine.folder / "dead-man/armed"
    words = armed.read_text().split()
    armed.write_text(" ".join([*words[:3], "another-boot", *words[4:]]) + "\n")
    assert timer(machine, "state") == "lost"
    (machine.folder / "dead-man/firing").mkdir()
    (machine.folder / "dead-man/firing/pid").write_text("1 12345\n")
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert on(machine) == (agent(OLD), PLAIN)
    assert timer(machine, "state") == "disarmed"


def test_a_failed_restore_is_reported_and_can_be_repeated(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    saved = machine.folder / "files/periphery"
    text = saved.read_text()
    saved.write_text("damaged")
    machine.replace("sleep", "exit 0")
    timer(machine, "fire", token(machine))
    assert timer(machine, "state") == "failed"
    saved.write_text(text)
    assert restore(machine).returncode == 0
    assert on(machine) == (agent(OLD), PLAIN)


def test_killed_while_it_fires_it_is_completed_by_the_undo(machine: Machine) -> None:
    switch(machine, auto_rollback=600)
    slow = machine.replace("sync", "sleep 30")
    firing = subprocess.Popen(
        ["dash", str(machine.folder / "dead-man.sh"), "fire", token(machine)],
        env=machine.environment(),
        start_new_session=True,
    )
    until((machine.folder / "restore.pending").exists, "began to restore")
    os.killpg(firing.pid, signal.SIGKILL)
    firing.wait()
    slow.unlink()
    assert restore(machine).returncode == 0
    assert on(machine) == (agent(OLD), PLAIN)
