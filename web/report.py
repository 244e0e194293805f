"""The report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from model.status import FleetResult
from model.text.sections import sections
from model.watch import WatchReport
from web.render import asset, page
from web.timeline import draw


def render_sections(result: FleetResult, watch: WatchReport | None = None) -> Markup:
    """The same, as a part of a page of the dashboard."""
    found = sections(result, watch)
    return Markup(page("report_sections.html", sections=found, drawing=draw(result)))  # noqa: S704 - escaped there


def render_html(result: FleetResult, watch: WatchReport | None = None) -> str:
    """The same sections as the Markdown report, with the timeline drawn."""
    style = asset("style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return page(
        "report.html",
        result=result,
        sections=sections(result, watch),
        drawing=draw(result),
        style=Markup(style),  # noqa: S704 - our own file
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )
