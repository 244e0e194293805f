"""Core and an agent under systemd on one machine: folders of their own, whatever the machine is called; its lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.facts import HELD, Finding, Severity
from model.fleet.file import parse
from model.planning import make_plan
from tests.workflows.doubles import CHANGE, core_facts, fleet, server_facts

FLEET = """
[fleet]
name = "prod"
target = "2.3.2"
[core]
host = "core.example.net"
[[server]]
name = "core-agent"
host = "core.example.net"
[[server]]
name = "second-unit"
host = "core.example.net"
unit = "periphery-2"
[[server]]
name = "elsewhere"
host = "10.0.0.11"
"""


def test_one_machine_written_alike_gets_a_folder_for_each() -> None:
    spec = parse(FLEET, Path("/x/fleet.toml"))
    places = [s.host.state_dir for s in spec.servers]
    base = spec.core.host.state_dir
    assert places[2] == base
    assert len({base, *places[:2]}) == 3
    assert all(place.startswith(f"{base}-") for place in places[:2])


def test_a_folder_that_a_person_chose_stays() -> None:
    own = FLEET.replace('name = "core-agent"', 'name = "core-agent"\nstate_dir = "/srv/ku"')
    assert parse(own, Path("/x/fleet.toml")).servers[0].host.state_dir == "/srv/ku"


@pytest.mark.parametrize(("core_place", "refused"), [("boot 1:2 /x", ["web-1", "web-2"]), ("boot 3:4 /x", ["web-2"])])
def test_one_machine_under_two_names_is_refused(core_place: str, refused: list[str]) -> None:
    core = replace(core_facts(), state_place=core_place)
    servers = {n: replace(server_facts(n), state_place="boot 1:2 /x") for n in ("web-1", "web-2")}
    plan = make_plan(fleet(2), CHANGE, core, servers)
    found = [
        s.name for s in plan.servers for f in s.findings if f.code == "one-folder" and f.severity is Severity.REFUSE
    ]
    assert found == refused


def test_what_is_not_known_is_not_alike() -> None:
    servers = {n: server_facts(n) for n in ("web-1", "web-2")}
    plan = make_plan(fleet(2), CHANGE, core_facts(), servers)
    assert not [f for s in plan.servers for f in s.findings if f.code == "one-folder"]


def test_a_lock_of_this_very_run_is_no_other_runs() -> None:
    """Planned again, a run finds the host held by itself."""
    held = [Finding(code=HELD, severity=Severity.WARN, subject="core", text=f"the upgrade {c}") for c in (CHANGE, "X")]
    plan = make_plan(fleet(1), CHANGE, replace(core_facts(), findings=tuple(held)), {"web-1": server_facts("web-1")})
    assert [w.text for w in plan.warnings] == ["the upgrade X"]
