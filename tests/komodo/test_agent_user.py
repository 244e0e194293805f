"""An agent of its own user, and the folder v2 makes its key in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosts.exec.script import Script
from komodo.agent.facts import server_facts
from komodo.agent.survey import unit_of
from komodo.agent.user import keys_folder
from komodo.logs import RunLog
from model.facts import Install, ServerFacts
from model.fleet.spec import AgentInstall, Sudo
from tests.komodo.test_agent_survey import SERVER, TEXT, config, found, show, survey
from tests.shells import SHELL, path, words_of


@pytest.mark.parametrize(
    ("user", "text", "version", "folder"),
    [
        ("", TEXT, "1.19.5", ""),
        ("root", TEXT, "1.19.5", ""),
        ("komodo", TEXT, "1.19.5", "/etc/komodo/keys"),
        ("komodo", TEXT + 'root_directory = "/srv/k/"\n', "1.19.5", "/srv/k/keys"),
        ("komodo", TEXT, "2.0.0", ""),
    ],
)
def test_where_an_agent_of_its_own_user_makes_its_key(user: str, text: str, version: str, folder: str) -> None:
    made = survey(machine=show(User=user))
    said = {"binary_version": [f"periphery {version} "]}
    assert keys_folder(made.unit, made.settings, (config(text),), said) == folder
    if folder:
        settings = {"PERIPHERY_ROOT_DIRECTORY": "/env"}
        assert keys_folder(made.unit, settings, (config(text),), said) == "/env/keys"


def test_a_folder_it_may_not_write_to_is_refused() -> None:
    made = survey(machine=show(User="komodo"))
    assert found(server_facts(made)) == set()
    facts = server_facts(replace(made, keys_folder="/etc/komodo/keys", not_writable="/etc/komodo"))
    assert found(facts) == {"keys-not-writable"}
    assert "sudo install -d -m 700 -o komodo /etc/komodo/keys" in [f.hint for f in facts.findings]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("runuser"), reason="only root can be another user")
def test_what_a_user_may_write() -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are for one user
        _try_in(Path(made))


def _try_in(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "theirs").mkdir()
    shutil.chown(folder / "theirs", "nobody")

    def said(user: str, where: Path) -> str:
        words = [SHELL, *words_of(Script.load("komodo.sh", "server/may_write.sh", user=user, folder=str(where)))]
        return subprocess.run(words, env={"PATH": path()}, capture_output=True, text=True, check=True).stdout

    assert said("nobody", folder / "keys") == f"not_writable\t{folder}\n"
    assert said("nobody", folder / "theirs" / "keys") == ""
    assert said("nobody", folder / "theirs" / "a" / "keys") == ""
    assert said("root", folder / "keys") == ""
    assert said("no-such-user", folder / "keys") == "", "nothing is claimed that is not known"


ALICE = {"user": ["alice"], "home": ["/home/alice"], "linger": ["yes"]}
HERS = replace(
    SERVER,
    install=AgentInstall.SYSTEMD_USER,
    host=replace(SERVER.host, sudo=Sudo.NONE, state_dir="/home/alice/.local/state/komodo-upgrade"),
)


def of_alice(**changes: Any) -> ServerFacts:
    machine = ALICE | changes.pop("machine", {})
    return server_facts(survey(machine=machine, server=changes.pop("server", HERS), **changes))


def test_a_users_unit_is_upgraded_as_that_user() -> None:
    facts = of_alice()
    assert (facts.user_unit, facts.install, found(facts)) == (True, Install.SYSTEMD, set())
    assert not server_facts(survey()).user_unit


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"machine": {"linger": ["no"]}}, "no-linger"),
        ({"server": replace(HERS, host=replace(HERS.host, sudo=Sudo.PASSWORDLESS))}, "user-unit-as-root"),
        ({"server": replace(HERS, host=replace(HERS.host, state_dir="/var/lib/komodo-upgrade"))}, "state-dir"),
        ({"server": replace(HERS, host=replace(HERS.host, state_dir="/home/alice2/s"))}, "state-dir"),
        ({"log": RunLog()}, "journal-not-readable"),
    ],
)
def test_what_a_users_unit_needs(changes: dict[str, Any], code: str) -> None:
    facts = of_alice(**changes)
    assert found(facts) == {code}
    assert all(f.hint for f in facts.findings)


def test_a_users_unit_that_was_found_as_root_comes_with_the_lines_for_the_fleet_file() -> None:
    gone = {"show": ["Id=periphery.service", "LoadState=not-found", "FragmentPath="]}
    unit = "alice\t/home/alice/.config/systemd/user/periphery.service"
    facts = server_facts(survey(machine={**gone, "user_unit": [unit]}, configs=(), files={}))
    (finding,) = facts.findings
    assert finding.code == "user-unit"
    assert 'install = "systemd-user", user = "alice", sudo = "none"' in finding.hint
    assert 'state_dir = "/home/alice/.local/state/komodo-upgrade"' in finding.hint


def test_paths_of_a_users_unit_start_at_the_home_folder() -> None:
    started = "{ path=/bin/sh ; argv[]=/bin/sh -lc ~/.local/bin/periphery --config-path c.toml ; ignore_errors=no }"
    lines = [line for line in show(ExecStart=started)["show"] if not line.startswith("Environment=")]
    made = unit_of({**ALICE, "show": lines}, HERS)
    assert (made.binary, made.config_paths) == ("/home/alice/.local/bin/periphery", ("/home/alice/c.toml",))
    assert (made.user, made.scope) == ("alice", "user")
