"""The report of a fleet of any size, saved in pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model.errors import HostError
from model.pages.results import pages_of
from model.status import FleetResult, FleetState, SaveReport, ServerOutcome, ServerState
from model.text.report import render_json, render_markdown
from tests.activities.core_fleet import bench


async def test_the_report_is_made_of_all_its_pages(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.backed_up()
        servers = tuple(ServerOutcome(name=f"wëb-{n}", state=ServerState.UPGRADED, detail="fine") for n in range(7))
        at = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
        result = FleetResult(
            fleet="f",
            target="2.3.2",
            change=b.step.op.change,
            state=FleetState.UPGRADED,
            started_at=at,
            ended_at=at,
            servers=servers,
        )
        first, *later = pages_of(result, 3)
        save = SaveReport(op=b.step.op, core=b.fleet.core, page=first, pages=3)
        with pytest.raises(HostError, match=r"report-2\.json, a part of the report, is gone or damaged"):
            await b.report.save_report(save)
        for number, page in enumerate(later, start=2):
            await b.report.save_report_page(replace(save, page=page, number=number))
        await b.report.save_report(save)
        assert (b.folder / "report.md").read_text() == render_markdown(result)
        assert (b.folder / "report.json").read_text() == render_json(result)
