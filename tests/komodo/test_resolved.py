"""What compose makes of the files in our shell, compared with what runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from komodo.core.compose_drift import findings, resolved_services
from komodo.core.containers import Container, parse_containers
from tests.komodo.inspected import CORE_ENV, entry

BINDS = [
    {"Type": "bind", "Source": "/home/ann/komodo/backups", "Destination": "/backups"},
    {"Type": "volume", "Source": "/var/lib/docker/volumes/k_repos/_data", "Name": "k_repos", "Destination": "/repos"},
]


def core() -> Container:
    return parse_containers(json.dumps([entry("core", "x", service="core", env=CORE_ENV, mounts=BINDS)]))[0]


def said(environment: Any = None, backups: str = "/home/ann/komodo/backups", repos: str = "k_repos") -> str:
    volumes = [
        {"type": "bind", "source": backups, "target": "/backups", "bind": {"create_host_path": True}},
        {"type": "volume", "source": "repos", "target": "/repos/"},
        {"type": "bind", "source": "/new", "target": "/new"},
        {"type": "tmpfs", "target": "/tmp"},
    ]
    body = {"image": "x", "environment": environment, "volumes": volumes}
    return json.dumps({"services": {"core": body}, "volumes": {"repos": {"name": repos}}})


def found(text: str) -> list[tuple[str, str]]:
    return [(f.code, f.text) for f in findings(core(), resolved_services(text)["core"])]


def test_the_same_is_nothing() -> None:
    assert found(said()) == []
    assert found(said({"KOMODO_HOST": CORE_ENV["KOMODO_HOST"], "UNSET": None, "EMPTY": "", "PATH": None})) == []
    assert found(said(backups="/home/ann/komodo/backups/")) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            said(backups="/root/komodo/backups"),
            "/backups from /root/komodo/backups instead of /home/ann/komodo/backups",
        ),
        (said(repos="komodo_repos"), "/repos/ from komodo_repos instead of k_repos"),
        (said({"KOMODO_DATABASE_PASSWORD": ""}), "without KOMODO_DATABASE_PASSWORD"),
        (said({"KOMODO_DATABASE_PASSWORD": None}), "without KOMODO_DATABASE_PASSWORD"),
    ],
)
def test_what_came_from_somebody_elses_shell_is_refused(text: str, part: str) -> None:
    [(code, what)] = found(text)
    assert (code, part in what) == ("shell-settings", True)
    assert CORE_ENV["KOMODO_DATABASE_PASSWORD"] not in what


def test_edits_that_were_never_brought_up_are_named() -> None:
    [(code, what)] = found(said({"KOMODO_PASSKEY": "n$$w", "KOMODO_DATABASE_PASSWORD": "s3cr:t/=x"}))
    assert code == "not-brought-up"
    assert "KOMODO_PASSKEY" in what
    assert "n$" not in what


@pytest.mark.parametrize("text", ["", "null", "[]", "services:", '{"services": null}', '{"services": {"core": null}}'])
def test_a_compose_that_cannot_say_it_finds_nothing(text: str) -> None:
    assert "core" not in resolved_services(text) or findings(core(), resolved_services(text)["core"]) == []
