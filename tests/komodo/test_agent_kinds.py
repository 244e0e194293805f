"""Which agent of a machine is the one that Core talks to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from komodo.agent.kinds import choose_agent
from model.facts import Severity
from model.fleet.spec import AgentInstall
from tests.komodo.test_agent_survey import MACHINE, SERVER, show

IMAGE = "ghcr.io/moghtech/komodo-periphery:latest"


def container(name: str = "periphery", *, runs: bool = True, image: str = IMAGE, project: str = "periphery") -> str:
    return f"{name}id {str(runs).lower()} false unless-stopped {image} /{name} {project}"


DEAD = show(ActiveState="inactive", SubState="dead", UnitFileState="disabled")
"""A unit of earlier times."""
DEAD_BUT_ENABLED = show(ActiveState="inactive", SubState="dead")
NO_UNIT = {"show": ["LoadState=not-found"]}
UNIT, CONTAINER = "periphery.service", "periphery"


@pytest.mark.parametrize(
    ("machine", "install", "chosen", "findings"),
    [
        ({}, "auto", UNIT, []),
        (NO_UNIT, "auto", "", []),
        (NO_UNIT | {"container": [container()]}, "auto", CONTAINER, []),
        (DEAD | {"container": [container()]}, "auto", CONTAINER, ["info other-agent"]),
        (DEAD_BUT_ENABLED | {"container": [container()]}, "auto", CONTAINER, ["warn other-agent"]),
        ({"container": [container(runs=False)]}, "auto", UNIT, ["warn other-agent"]),
        ({"container": [container()]}, "auto", UNIT, ["refuse two-agents"]),
        ({"container": [container()]}, "container", CONTAINER, ["info other-agent"]),
        ({"container": [container()]}, "systemd", UNIT, ["info other-agent"]),
        (NO_UNIT, "container", "", ["refuse no-agent"]),
        (DEAD | {"container": [container(runs=False)]}, "auto", CONTAINER, ["info other-agent"]),
        (show(ActiveState="activating", SubState="auto-restart"), "auto", UNIT, []),
        # The agent of Core's project is found by the survey of Core.
        ({"container": [container(), container("core", image="ghcr.io/moghtech/komodo-core:2")]}, "auto", UNIT, []),
        # A created container that holds an image.
        (NO_UNIT | {"container": [container("komodo-upgrade-keep-1-old", runs=False)]}, "auto", "", []),
        (NO_UNIT | {"container": [container("web", image="nginx/periphery-like:1")]}, "auto", "", []),
        (
            NO_UNIT | {"container": [container("a", project="x"), container("b", project="y")]},
            "auto",
            "a",
            ["refuse two-agents"],
        ),
    ],
)
def test_the_agent_that_runs_counts(
    machine: dict[str, list[str]], install: str, chosen: str, findings: list[str]
) -> None:
    found = choose_agent(replace(SERVER, install=AgentInstall(install)), MACHINE | machine)
    assert (found.agent.name if found.agent else "") == chosen
    assert [f"{f.severity} {f.code}" for f in found.findings] == findings


def test_the_hint_never_starts_the_leftover() -> None:
    found = choose_agent(SERVER, MACHINE | DEAD_BUT_ENABLED | {"container": [container()]})
    (finding,) = found.findings
    assert finding.severity is Severity.WARN
    assert "systemctl disable periphery.service" in finding.hint
    assert "start it" not in finding.hint
