"""What a person reads on a terminal: a gate by topic, a large fleet on one screen, the times at the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cli import gates, table
from cli.target import Target
from model.gates import Gate, GateKind, Verdict
from model.status import FleetProgress, Phase, ServerProgress, ServerState
from tests.web.test_report import result

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
DUMP = "/var/lib/komodo-upgrade/sandbox/20261123T220000Z/dumps/before.archive.gz"
GATE = Gate(
    id="core",
    kind=GateKind.CORE,
    question="Upgrade?",
    facts=("Core 1.19.5 -> 2.3.2", "5 servers are unmanaged", f"sudo sh {DUMP}", f"dump, 3 min old: {DUMP}", "new"),
    topics=(("What happens next", 1), ("What is at risk", 1), ("How to go back", 2)),
    verdicts=(Verdict.APPROVE,),
    opened_at=NOW,
)


def test_facts_stand_below_their_topics_and_none_is_lost() -> None:
    found = GATE.by_topic()
    assert [heading for heading, _ in found] == ["What happens next", "What is at risk", "How to go back", ""]
    assert tuple(fact for _, facts in found for fact in facts) == GATE.facts
    assert replace(GATE, topics=()).by_topic() == (("", GATE.facts),)


def test_a_narrow_terminal_gets_hanging_indents_and_short_paths_but_whole_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.say_facts(GATE)
    assert f"  • dump, 3 min old: {DUMP}" in capsys.readouterr().err, "a log gets everything on one line"
    monkeypatch.setattr("cli.gates._width", lambda: 60)
    gates.say_facts(replace(GATE, facts=("a word " * 30, *GATE.facts[1:])))
    shown = capsys.readouterr().err
    assert "…/dumps/before.archive.gz" in shown
    assert f"    {DUMP}" in shown or f"sh {DUMP}" in shown
    long = [line for line in shown.splitlines() if "word" in line]
    assert len(long) > 3
    assert max(map(len, long)) <= 60
    assert all(line.startswith("    ") for line in long[1:])


def test_a_large_fleet_fits_on_one_screen_with_failures_first() -> None:
    states = [ServerState.UPGRADED] * 70 + [ServerState.PENDING] * 27
    states += [ServerState.UPGRADING, ServerState.WAITING, ServerState.LEFT_ON_V1]
    servers = tuple(ServerProgress(name=f"web-{n}", state=state) for n, state in enumerate(states))
    progress = FleetProgress(
        fleet="p", target="2.3.2", change="c", phase=Phase.ROLLOUT, since=NOW, core=ServerProgress(name="core"),
        servers=servers,
    )  # fmt: skip
    lines = list(table.lines(progress, NOW))
    assert len(lines) < 24
    assert [line.split()[0] for line in lines[2:5]] == ["web-99", "web-98", "web-97"]
    assert lines[5].startswith("  70 upgraded: web-0, web-1")
    assert lines[5].endswith(" more")
    assert lines[6].startswith("  27 pending: web-70")
    few = replace(progress, servers=servers[:20])
    assert len(list(table.lines(few, NOW))) == 22


def test_the_summary_has_downtime_and_unmanaged_time() -> None:
    lines = list(table.result_lines(result(), Target("prod")))
    assert next(line for line in lines if "core " in line).endswith("down for 12 s")
    web = next(line for line in lines if "web-1" in line)
    assert "down for 1 s, unmanaged for 1 min 30 s" in web
    assert timedelta(seconds=90) == result().servers[0].proof.unmanaged  # type: ignore[union-attr]
