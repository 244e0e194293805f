"""An agent of its own user, and the folder v2 makes its key in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from hosts.script import Script
from komodo.agent_facts import server_facts
from komodo.agent_user import keys_folder
from tests.komodo.test_agent_survey import TEXT, config, found, show, survey
from tests.shells import SHELL, path


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
    assert "sudo install -d -m 700 -o komodo /etc/komodo/keys" in [f.cure for f in facts.findings]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("runuser"), reason="only root can be another user")
def test_what_a_user_may_write() -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are for one user
        _try_in(Path(made))


def _try_in(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "theirs").mkdir()
    shutil.chown(folder / "theirs", "nobody")
    script = Script.load("komodo.sh", "may_write.sh").text

    def said(user: str, where: Path) -> str:
        words = [SHELL, "-c", f"set -eu\n{script}", "sh", user, str(where)]
        return subprocess.run(words, env={"PATH": path()}, capture_output=True, text=True, check=True).stdout

    assert said("nobody", folder / "keys") == f"not_writable\t{folder}\n"
    assert said("nobody", folder / "theirs" / "keys") == ""
    assert said("nobody", folder / "theirs" / "a" / "keys") == ""
    assert said("root", folder / "keys") == ""
    assert said("no-such-user", folder / "keys") == "", "nothing is claimed that is not known"
