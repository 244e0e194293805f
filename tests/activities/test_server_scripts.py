"""The scripts of the servers on their own: backup, restore, staging, surveys."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hosts.exec.script import parse, standalone
from tests.activities.machine import KEYED, NEW, OLD, PLAIN, Machine, agent, back_up, build, restore, sha, switch


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return build(tmp_path)


def test_back_up_keeps_files_with_mode_and_the_guides_names(machine: Machine) -> None:
    done = back_up(machine)
    assert done.returncode == 0, done.stderr
    assert (machine.folder / "files/periphery").read_text() == agent(OLD)
    saved = machine.folder / "files/periphery.config.toml"
    assert (saved.read_text(), saved.stat().st_mode & 0o777) == (PLAIN, 0o640)
    assert Path(f"{machine.config}.bak_v1").read_text() == PLAIN
    assert (machine.folder / "restore.sh").read_text() == standalone("komodo.sh", "server/restore_server.sh")
    assert machine.folder.stat().st_mode & 0o077 == 0
    again = back_up(machine)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert len(list(machine.config.parent.iterdir())) == 2


def test_an_older_backup_with_the_guides_name_is_kept(machine: Machine) -> None:
    Path(f"{machine.config}.bak_v1").write_text("older\n")
    done = back_up(machine)
    assert parse(done.stdout)["guide"] == [f"periphery.config.toml\t{machine.config}.bak_v1.20261123T221500Z"]
    assert Path(f"{machine.config}.bak_v1").read_text() == "older\n"


def test_a_backup_of_a_changed_file_is_refused(machine: Machine) -> None:
    machine.config.write_text("changed\n")
    done = back_up(machine)
    assert done.returncode == 72
    assert not (machine.folder / "manifest.json").exists()


def test_a_truncated_input_makes_no_backup(machine: Machine) -> None:
    done = back_up(machine, data="text\t0600\t3\tmanifest.json\n{\n")
    assert done.returncode == 74
    assert not (machine.folder / "manifest.json").exists()


def test_restore_by_hand_after_a_dry_run(machine: Machine) -> None:
    back_up(machine)
    before = machine.service.invocation
    nothing = restore(machine)
    assert nothing.returncode == 0, nothing.stderr
    assert "nothing to restore" in nothing.stdout
    assert machine.service.invocation == before
    switch(machine)
    machine.config.chmod(0o600)
    dry = restore(machine, "--dry-run")
    assert f"would restore config {machine.config}" in dry.stdout
    assert "would stop and start" in dry.stdout
    assert machine.config.read_text() == KEYED
    done = restore(machine)
    assert done.returncode == 0, done.stderr
    assert (machine.binary.read_text(), machine.config.read_text()) == (agent(OLD), PLAIN)
    assert machine.config.stat().st_mode & 0o777 == 0o640
    run = machine.service.invocation
    assert restore(machine).returncode == 0
    assert machine.service.invocation == run


def test_restore_restarts_an_agent_whose_files_were_restored_by_hand(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    machine.binary.write_text(agent(OLD))
    machine.config.write_text(PLAIN)
    done = restore(machine)
    assert done.returncode == 0, done.stderr
    assert f"version: v{OLD}" in machine.log


def test_restore_brings_back_a_deleted_binary(machine: Machine) -> None:
    back_up(machine)
    machine.binary.unlink()
    assert restore(machine).returncode == 0
    assert machine.binary.read_text() == agent(OLD)
    assert machine.binary.stat().st_mode & 0o777 == 0o755


def test_restore_with_a_damaged_copy_changes_nothing(machine: Machine) -> None:
    back_up(machine)
    switch(machine)
    (machine.folder / "files/periphery").write_text("damaged")
    for args in ((), ("--dry-run",)):
        done = restore(machine, *args)
        assert done.returncode == 1
        assert "nothing was touched" in done.stderr
    assert machine.config.read_text() == KEYED
    assert parse(machine.run("check_saved.sh", folder=str(machine.folder)).stdout)["broken"]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("<html>Sign in</html>" + " " * 200, 77, "not a program"),
        ("Not Found", 77, "Not Found"),
        ('#!/bin/sh\necho "libssl.so.3: cannot open shared object file" >&2; exit 127\n', 78, "libssl.so.3"),
    ],
)
def test_a_staged_file_is_checked_before_it_is_run(machine: Machine, content: str, code: int, says: str) -> None:
    staged = machine.folder / "staged/periphery"
    staged.parent.mkdir(parents=True)
    staged.write_text(content)
    done = machine.run("stage_agent.sh", file=str(staged), expected=sha(content))
    assert done.returncode == code
    assert says in done.stderr


def test_a_staged_binary_is_proven(machine: Machine) -> None:
    source = machine.root / "published"
    source.write_text(agent(NEW))
    staged = machine.folder / "staged/periphery"
    done = machine.run("stage_agent.sh", file=str(staged), expected=sha(agent(NEW)), url=source.as_uri())
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["sha256"] == [sha(agent(NEW))]
    assert said["version"] == [f"periphery {NEW} "]
    wrong = machine.run("stage_agent.sh", file=str(staged), expected="0" * 64, url=source.as_uri())
    assert (wrong.returncode, staged.exists()) == (77, False)


@pytest.mark.parametrize("script", ["survey_server.sh", "agent_journal.sh"])
def test_surveys_report_what_systemd_reports(machine: Machine, script: str) -> None:
    done = machine.run(script, unit="periphery.service")
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert "ActiveState=active" in said["show"]


def test_survey_of_files(machine: Machine) -> None:
    done = machine.run(
        "survey_files.sh",
        str(machine.config),
        "/nowhere",
        state_dir=str(machine.root / "none/yet"),
        suffix="bak_v1",
        binary=str(machine.binary),
        limit="100000",
    )
    assert done.returncode == 0, done.stderr
    said = parse(done.stdout)
    assert said["missing"] == ["/nowhere"]
    assert said["file"] == [f"{machine.config}\t{machine.config}\t{sha(PLAIN)}\t"]
    assert base64.b64decode("".join(said["text.1"])).decode() == PLAIN
    assert said["binary_version"] == [f"periphery {OLD} "]
    assert int(said["free_state"][0]) > 0
    (machine.config.parent / f"{machine.config.name}.bak_v1").write_text("not read by the agent")
    (machine.config.parent / "linked.config.toml").symlink_to(machine.config)  # nor is this
    folder = machine.run("survey_files.sh", str(machine.config.parent), state_dir="/", suffix="bak_v2.0.0", limit="3")
    assert "text.1" not in parse(folder.stdout), "larger than what was asked for"
    assert parse(folder.stdout)["file"] == [f"{machine.config.parent}\t{machine.config}\t{sha(PLAIN)}\t"]
