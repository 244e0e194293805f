"""`[checks] ignore`: a warning becomes a note with its reason; a refusal stays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.target import load_file
from model.errors import FleetFileError
from model.facts import CoreFacts, Finding, Severity
from model.fleet.spec import FleetSpec
from model.planning import make_plan
from model.status import FleetResult, FleetState
from model.text.sections import sections

FLEET = """
[fleet]
name = "prod"
target = "2.3.2"
[core]
host = "core"
[checks]
"""
BOT = ("bot", "KU023")


def load(folder: Path, checks: str) -> FleetSpec:
    path = folder / "fleet.toml"
    path.write_text(FLEET + checks)
    return load_file(str(path))


def finding(code: str, severity: Severity) -> Finding:
    return Finding(code=code, severity=severity, subject="core", text=f"about {code}")


@pytest.mark.parametrize("name", BOT)
def test_a_warning_is_a_note_with_its_reason(tmp_path: Path, name: str) -> None:
    fleet = load(tmp_path, f'ignore = ["{name}"]\nreason = "Renovate is paused"')
    found = (finding("bot", Severity.WARN), finding("git", Severity.WARN), finding("bot", Severity.REFUSE))
    plan = make_plan(fleet, "c", CoreFacts(reachable=True, findings=found), {})
    assert [one.code for one in plan.warnings] == ["git"]
    assert [one.code for one in plan.refusals] == ["bot"]
    now = datetime(2026, 11, 23, 22, tzinfo=UTC)
    result = FleetResult(
        fleet="prod", target="2.3.2", change="c", state=FleetState.UPGRADED, started_at=now, ended_at=now, plan=plan
    )
    [shown] = [one.lines for one in sections(result) if one.title == "Ignored checks"]
    assert shown == ("core: about bot [bot]: ignored because Renovate is paused",)


@pytest.mark.parametrize(
    ("checks", "why"),
    [
        ('ignore = ["KU999"]\nreason = "x"', "no such check"),
        ('ignore = ["docker"]\nreason = "x"', "refuses, and is never ignored"),
        ('ignore = ["bot"]', "needs a reason"),
        ('ignore = ["no check!"]\nreason = "x"', "ignore"),
    ],
)
def test_what_cannot_be_ignored_is_refused(tmp_path: Path, checks: str, why: str) -> None:
    with pytest.raises(FleetFileError, match=why):
        load(tmp_path, checks)
