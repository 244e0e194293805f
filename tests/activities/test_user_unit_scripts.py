"""An agent of a user's own service manager: every script asks that manager, and none the system's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.exec.script import parse
from tests.activities.machine import KEYED, NEW, OLD, PLAIN, Machine, agent, back_up, build, restore, sha, switch

ASKED = """[ "$1" = {flag} ] || {{ echo "the system's manager was asked: $*" >&2; exit 9; }}
[ "$XDG_RUNTIME_DIR" = "/run/user/$(id -u)" ] || {{ echo 'no XDG_RUNTIME_DIR' >&2; exit 9; }}
shift
exec "${{0%/*}}/.users/{name}" {then} "$@"
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One whose systemctl and journalctl answer for the user's manager only."""
    made = build(tmp_path)
    users = made.root / "bin/.users"
    users.mkdir()
    for name, flag, then in (("systemctl", "--user", ""), ("journalctl", "--user-unit", "-u")):
        (users / name).symlink_to("../.standin")
        made.replace(name, ASKED.format(name=name, flag=flag, then=then))
    return made


def listed(machine: Machine) -> None:
    """As activities/server/backup.py writes it for such an agent."""
    assert back_up(machine).returncode == 0
    path = machine.folder / "restore.list"
    path.write_text(path.read_text().replace("unit\tperiphery.service\n", "unit\tperiphery.service\nscope\tuser\n"))


def test_switch_journal_and_restore_ask_the_users_manager(machine: Machine) -> None:
    listed(machine)
    done = switch(machine, scope="user")
    assert (done.returncode, parse(done.stdout)["settled"]) == (0, ["yes"]), done.stderr
    assert machine.config.read_text() == KEYED
    seen = machine.run("agent_journal.sh", unit="periphery.service", scope="user")
    assert f"Komodo Periphery version: v{NEW}" in "\n".join(parse(seen.stdout)["line"])
    back = restore(machine)
    assert back.returncode == 0, back.stderr
    assert "proven: " in back.stdout
    assert (machine.config.read_text(), sha(machine.binary.read_text())) == (PLAIN, sha(agent(OLD)))


def test_the_survey_says_who_the_user_is_and_whether_he_lingers(machine: Machine) -> None:
    done = machine.run("survey_server.sh", unit="periphery.service", scope="user")
    output = parse(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (output["user"], output["linger"]) == (["root"], ["no"])
    assert any(line == "ActiveState=active" for line in output["show"])


def test_the_timer_asks_the_users_manager(machine: Machine) -> None:
    listed(machine)
    machine.replace("systemd-run", 'echo "$*" >>"${0%/*}/../runs"')
    armed = switch(machine, scope="user", auto_rollback=600)
    assert armed.returncode == 0, armed.stderr
    assert (machine.root / "runs").read_text().startswith("--user --quiet --collect")
    assert machine.run("call_auto_rollback.sh", folder=str(machine.folder), verb="disarm").stdout.startswith("disarmed")


def test_without_the_users_scope_the_systems_manager_is_asked(machine: Machine) -> None:
    """The check of this file's own stand-ins."""
    done = machine.run("agent_journal.sh", unit="periphery.service")
    assert "the system's manager was asked" in done.stderr
