"""The HTML report: the same content as the Markdown report, in one file that loads nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

from model.facts import CoreFacts
from model.gates import Decision, Recorded, Verdict
from model.plan import Plan, Wave, bind
from model.status import Begun, FleetResult, FleetState, Phase, ServerOutcome, ServerState
from model.steps import Proof, Switched
from model.text.report import render_markdown
from web.report import render_html
from web.timeline import WIDTH, draw

START = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def outcome(name: str, confirmed: float) -> ServerOutcome:
    unmanaged = timedelta(seconds=confirmed - 3700)
    return ServerOutcome(
        name=name,
        state=ServerState.UPGRADED,
        switched=Switched(
            version="2.3.2",
            invocation="abcdef",
            started_at=at(confirmed - 2),
            port_downtime=timedelta(seconds=1),
            lines=("Komodo Periphery version: v2.3.2",),
        ),
        proof=Proof(by_core=True, line="Logged in", confirmed_at=at(confirmed), unmanaged=unmanaged),
    )


def result() -> FleetResult:
    """Gate `core` waited for an hour, then everything took two minutes."""
    decision = Decision(gate="core", verdict=Verdict.APPROVE, actor="alice", reason="go <now>")
    phases = ((Phase.PREFLIGHT, 0), (Phase.GATE, 60), (Phase.CORE, 3690), (Phase.ROLLOUT, 3720), (Phase.DONE, 3800))
    waves = (Wave(number=1, servers=("web-2",)), Wave(number=2, servers=("web-1",)))
    return FleetResult(
        fleet="prod",
        target="2.3.2",
        change="20261123T220000Z",
        state=FleetState.UPGRADED,
        started_at=START,
        ended_at=at(3800),
        plan=bind(Plan(fleet="prod", target="2.3.2", core=CoreFacts(version="1.19.5"), servers=(), waves=waves)),
        core_state=ServerState.UPGRADED,
        core_begun=True,
        core_stopped_at=at(3700),
        core_downtime=timedelta(seconds=12),
        servers=(outcome("web-1", 3790), outcome("web-2", 3730)),
        decisions=(Recorded(decision=decision, at=at(3690), opened_at=at(60)),),
        phases=tuple(Begun(phase=phase, at=at(seconds)) for phase, seconds in phases),
        detail="prod is on 2.3.2",
    )


class Page(HTMLParser):
    """Headings, tags and attributes of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._in_heading = tag in ("h1", "h2")

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag not in ("h1", "h2")

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)


def test_it_has_the_sections_of_the_markdown_report_in_the_same_order() -> None:
    markdown = re.findall(r"^#+ (.*)", render_markdown(result()), re.MULTILINE)
    assert Page(render_html(result())).headings == markdown
    assert markdown[:3] == ["Komodo prod: upgraded", "Timeline", "web-1: upgraded"]
    assert markdown[-2:] == ["How to roll back", "Tomorrow"]


def test_it_is_self_contained_and_runs_no_script() -> None:
    page = Page(render_html(result()))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "style") or name.startswith("on")]
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert "script" not in policy
    assert "'unsafe" not in policy


def test_text_from_outside_is_escaped() -> None:
    assert "go &lt;now&gt;" in render_html(result())
    many = replace(result(), servers=tuple(outcome(f"<i>{n}", 3790) for n in range(20)))
    assert "<i>" not in render_html(many)
    assert render_html(many).count("<details") == 20


def test_the_timeline_shortens_a_long_wait_and_orders_servers_by_wave() -> None:
    drawing = draw(result())
    rows = {row.name: row for row in drawing.rows}
    assert list(rows) == ["phases", "gates", "Core", "web-2", "web-1"]
    assert (rows["web-2"].note, rows["web-1"].note) == ("wave 1", "wave 2")
    assert drawing.shortened
    (wait,) = rows["gates"].bars
    assert wait.width < WIDTH / 5, "an hour of waiting hides the two minutes of work"
    assert "waited 1 h 00 min: approve by alice" in wait.text
    (down,) = rows["Core"].bars
    assert down.kind == "down"
    unmanaged, switched = rows["web-1"].bars
    assert unmanaged.x == down.x
    assert unmanaged.width > rows["web-2"].bars[0].width
    assert unmanaged.x < switched.x < unmanaged.x + unmanaged.width
    assert all(bar.x + bar.width <= WIDTH + 2 for row in drawing.rows for bar in row.bars)


def test_a_run_of_an_earlier_release_has_no_phases() -> None:
    page = render_html(replace(result(), phases=(), decisions=(), core_stopped_at=None))
    assert "<svg" not in page
    assert "Komodo prod: upgraded" in page
