"""The report of an upgrade as Markdown, for readers, and as JSON, for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from model.plan import Plan
from model.serialization import plain, to_json
from model.status import FleetResult
from model.text.outside import markdown, paragraph
from model.text.sections import Section, Table, sections
from model.watch import WatchReport


def render_json(result: FleetResult, watch: WatchReport | None = None) -> str:
    """The whole result without the diffs, which the plan with this digest shows."""
    more = {"watch": plain(watch)} if watch else {}
    return to_json({"report": 1, "result": plain(replace(result, plan=_light(result.plan))), **more})


def render_markdown(result: FleetResult, watch: WatchReport | None = None) -> str:
    """The report for readers."""
    first, *others = sections(result, watch)
    blocks = [*_blocks("#", first), *(block for section in others for block in _blocks("##", section))]
    return markdown("\n\n".join(blocks) + "\n")


def _blocks(mark: str, section: Section) -> Iterator[str]:
    yield f"{mark} {section.title}"
    if section.text:
        yield paragraph(section.text)
    if section.lines:
        yield "\n".join(f"- {line}" for line in section.lines)
    if section.table:
        yield _table(section.table)


def _table(table: Table) -> str:
    rows = [table.heads, ("---",) * len(table.heads), *(tuple(map(_cell, row)) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _light(plan: Plan | None) -> Plan | None:
    if plan is None:
        return None
    core = replace(plan.core, edits=tuple(replace(edit, diff="", hunks=()) for edit in plan.core.edits))
    servers = tuple(replace(s, edits=tuple(replace(e, diff="", hunks=()) for e in s.edits)) for s in plan.servers)
    return replace(plan, core=core, servers=servers)
