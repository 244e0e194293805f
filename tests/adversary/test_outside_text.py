"""Names and outputs from outside that a terminal, a Markdown reader or a log would obey."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import gates, output, table
from cli.target import Target
from model.facts import Finding, Severity
from model.gates import Gate, GateKind, Verdict
from model.serialization import to_json
from model.status import FleetProgress, FleetResult, FleetState, Phase, ServerProgress
from model.text.outside import markdown, multi_line, single_line, terminal
from model.text.report import render_json, render_markdown
from service.logs import PlainLines
from web.report import render_html
from workflows.runtime import live_status

NOW = datetime(2026, 12, 1, tzinfo=UTC)
CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"
CLEAR = "\x1b[2J\x1b[H"
C1 = "\x9b2J\x9d52;c;cm0gLXJmIC8=\x9c"
FORGED = "backup\n  • every server was verified\r\n  • approved by ann"
BIDI = "web\u202eexe.1\u2066\u200b\ufeff\U000e0041"
HTML = "<img src=x onerror=alert(1)><!-- [x](javascript:alert(1)) ![y](http://evil/p.png)"
ATTACKS = (CLIPBOARD, CLEAR, C1, FORGED, BIDI, HTML)


def _hidden(text: str, allowed: str = "\n") -> list[str]:
    """Characters that change what a reader sees besides themselves."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c not in allowed]


def _finding(name: str) -> Finding:
    return Finding(code="old-call", severity=Severity.WARN, subject="core", text=f"the Action {name} fails on v2")


def _gate(name: str) -> Gate:
    return Gate(
        id="core",
        kind=GateKind.CORE,
        question="upgrade Core?",
        facts=("2 servers", _finding(name).text),
        verdicts=(Verdict.APPROVE, Verdict.REJECT),
        opened_at=NOW,
    )


def _result(name: str) -> FleetResult:
    return FleetResult(
        fleet="p", target="2.3.2", change="c", state=FleetState.REFUSED, started_at=NOW, ended_at=NOW,
        warnings=(_finding(name),), core_detail=name,
    )  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_gate_shows_its_facts_and_no_more(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    gates.show(_gate(attack), Target("p"))
    shown = capsys.readouterr().err
    assert not _hidden(re.sub(r"\x1b\[\d+m", "", shown))
    assert shown.count("•") <= 2 + attack.count("•")
    assert len([line for line in shown.splitlines() if line.lstrip().startswith("•")]) == 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_status_and_watch_show_it_escaped(attack: str) -> None:
    server = ServerProgress(name=attack, detail=attack, step=attack)
    progress = FleetProgress(
        fleet="p", target="2.3.2", change="c", phase=Phase.ROLLOUT, gate=_gate(attack), core=server,
        servers=(server,), warnings=(attack,), since=NOW,
    )  # fmt: skip
    for line in table.lines(progress, NOW):
        assert not _hidden(terminal(line))
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    console.print(table.render(progress, "footer"))
    shown = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert not _hidden(shown)
    details = live_status.render_markdown(progress)
    assert not _hidden(details)
    assert "<img" not in details


@pytest.mark.parametrize("attack", ATTACKS)
def test_reports_hold_no_markup_of_others(attack: str) -> None:
    text = render_markdown(_result(attack))
    assert not _hidden(text)
    assert "<" not in text
    assert "](" not in text
    assert not _hidden(render_json(_result(attack)))
    assert json.loads(render_json(_result(attack)))["result"]["core_detail"] == attack


@pytest.mark.parametrize("attack", ATTACKS)
def test_html_reports_hold_no_markup_of_others(attack: str) -> None:
    text, harmless = render_html(_result(attack)), render_html(_result("a name"))
    assert not _hidden(text)
    assert text.count("<") == harmless.count("<")
    assert text.count('"') == harmless.count('"')


@pytest.mark.parametrize("line", ["# forged heading", "- forged item", "| a | b |", "1. one", "```", "> quote", "==="])
def test_output_of_a_host_begins_no_block_of_the_report(line: str) -> None:
    text = render_markdown(_result(f"it failed:\n{line}"))
    assert f"\n{line}" not in text
    assert f"\n\\{line}" in text


@pytest.mark.parametrize("attack", ATTACKS)
def test_errors_and_logs_show_it_escaped(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"{output.bad('error:')} {attack}")
    assert not _hidden(re.sub(r"\x1b\[\d+m", "", capsys.readouterr().err))
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (attack,), None)
    assert not _hidden(PlainLines().format(record))


@given(st.text())
def test_any_text_is_safe_at_every_boundary(text: str) -> None:
    assert not _hidden(single_line(text), allowed="")
    for boundary in (multi_line, markdown, lambda t: to_json({"name": t})):
        assert not _hidden(boundary(text))
    assert not _hidden(re.sub(r"\x1b\[(0|1|2|31|32|33|36)m", "", terminal(text)))
    assert json.loads(to_json({"name": text}))["name"] == text
    assert single_line(single_line(text)) == single_line(text)


def test_long_text_is_cut() -> None:
    assert len(_finding("x" * 1_000_000).text) <= 4_000
