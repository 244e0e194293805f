"""`discover` as a user types it, with doubles of the workflows behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import discovery, output
from model.fleet.file import load
from tests.cli.conftest import Call

NEW = ("--core", "core.example.net")
FILE = Path("fleet.toml")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a terminal; the runner's input is what is typed."""
    for module in (output, discovery):
        monkeypatch.setattr(module, "on_terminal", lambda: True)


def test_a_new_file_is_complete(komodo_upgrade: Call) -> None:
    shown = komodo_upgrade("discover", *NEW, "--name", "prod-2", "--user", "root", "--sudo", "none")
    assert shown.stdout == "fleet.toml\n"
    assert "! " not in shown.stderr
    assert "no route to host" in shown.stderr
    assert "next: `komodo-upgrade check fleet.toml`" in shown.stderr
    fleet = load(FILE)
    assert (fleet.name, fleet.core.host.address, fleet.core.host.user) == ("prod-2", "core.example.net", "root")
    assert [(s.name, s.install.value) for s in fleet.servers] == [("db-1", "systemd"), ("lost-1", "auto")]
    assert "# discover: not surveyed: no route to host\n# discover: next: `ssh lost-1`\n" in FILE.read_text()
    again = komodo_upgrade("discover")
    assert again.stdout == ""
    assert "nothing to change" in again.stderr


def test_secrets_are_references_and_the_host_comes_from_the_url(komodo_upgrade: Call) -> None:
    key = ("--api-key-env", "KEY", "--api-secret-env", "SECRET")
    found = json.loads(
        komodo_upgrade("discover", "-", "--url", "https://k.example.net:9120", *key, "-o", "json").stdout
    )
    assert (found["from"], found["path"], found["written"]) == ("api", "", False)
    expected = """[core]
host = "k.example.net"
url = "https://k.example.net:9120"
api_key_env = "KEY"
api_secret_env = "SECRET"
"""
    assert expected in found["text"]
    assert [(s["name"], s["state"]) for s in found["servers"]] == [
        ("db-1", "added"),
        ("lost-1", "added"),
        ("off-1", "disabled"),
    ]
    assert not FILE.exists()
    assert "lost-1" in komodo_upgrade("discover", *NEW, "--dry-run").stdout
    assert not FILE.exists()


@pytest.mark.usefixtures("terminal")
def test_an_existing_file_is_changed_after_a_confirmation_only(komodo_upgrade: Call) -> None:
    text = '# mine\n[fleet]\nname = "prod"\ntarget = "2"\n[core]\nhost = "c"\n[[server]]\nname = "old"\nhost = "h"\n'
    FILE.write_text(text)
    FILE.chmod(0o640)
    for arguments, typed in ((("--dry-run",), ""), ((), "n\n"), (("-o", "json"), "")):
        shown = komodo_upgrade("discover", *arguments, code=5, text=typed)
        assert "db-1" in shown.stdout
        assert ("\n+[[server]]\n" in shown.stdout) is ("json" not in arguments), "a diff"
        assert "--yes writes the changes" in shown.stderr
        assert FILE.read_text() == text
    komodo_upgrade("discover", text="y\n")
    changed = FILE.read_text()
    assert [line for line in changed.splitlines() if not line.startswith("# discover:")][: text.count("\n")] == (
        text.splitlines()
    )
    assert "[[server]]\n# discover: Komodo has no Server of this name any more" in changed
    assert FILE.stat().st_mode & 0o777 == 0o640
    FILE.write_text(text)
    assert json.loads(komodo_upgrade("discover", "--yes", "-o", "json").stdout)["written"]
    assert FILE.read_text() == changed


def test_what_cannot_be_discovered_writes_nothing(komodo_upgrade: Call) -> None:
    shown = komodo_upgrade("discover", "--core", "lost.example.net", code=1)
    assert "core: no SSH connection to lost\n  left behind: nothing was written\n  next: `ssh lost`" in shown.stderr
    assert not FILE.exists()


def test_a_timeout_ends_the_command_with_124(komodo_upgrade: Call) -> None:
    shown = komodo_upgrade("discover", "--core", "slow.example.net", "--timeout", "100ms", code=124)
    assert "the worker did not answer within 0:00:00.1" in shown.stderr
    assert not FILE.exists()


def test_usage_errors(offline: Call) -> None:
    """None of them starts a service."""
    assert "--core names the host of Core" in offline("discover", code=2).stderr
    assert "--from api needs an API key" in offline("discover", *NEW, "--from", "api", code=2).stderr
    assert "is not the name of an environment variable" in (
        offline("discover", *NEW, "--api-key-env", "K-secret", "--api-secret-env", "S", code=2).stderr
    )
    for host in ("root@core", "-oProxyCommand=x", "a\nb", "x\x7f"):
        offline("discover", "--core", host, code=2)
    FILE.write_text("[fleet]\nname = 1\n")
    assert "--core is for a new file" in offline("discover", *NEW, code=2).stderr
    assert "fleet.name must be text" in offline("discover", code=2).stderr
    FILE.unlink()
    FILE.symlink_to("nowhere")
    assert "no such file" in offline("discover", code=2).stderr
