"""The text of a watch, made from a WatchReport: for `status`, and as a section of the report."""

from __future__ import annotations

from collections.abc import Iterator

from model.serialization import moment, plain, span, to_json
from model.watch import Seen, WatchReport, WatchState

HEADING = "## Watch"
"""Heading of its section in report.md. It is the last section, and a later watch replaces it."""


def lines(watch: WatchReport) -> Iterator[str]:
    """For `status`."""
    checked = f"{_checks(watch.checks)} in {span(watch.at - watch.since)}"
    text = f"watch over it: {watch.state.value}, {checked}"
    if watch.next_check:
        text += f", next one at {moment(watch.next_check)}, the last at {moment(watch.until)}"
    yield text + ("" if watch.found else "; nothing found" if watch.checks else "")
    if watch.detail:
        yield f"  {watch.detail}"
    yield from (f"  {'!' if seen.open else '(over)'} {_seen(seen)}" for seen in watch.found)


def render_watch(watch: WatchReport) -> str:
    """Markdown, including the heading."""
    return "\n".join([HEADING, "", *(f"- {line}" for line in report_lines(watch))]) + "\n"


def report_lines(watch: WatchReport) -> tuple[str, ...]:
    """For the report."""
    over = watch.state is not WatchState.WATCHING
    end = watch.at if over else watch.until
    reported = [
        f"{watch.state.value}: {_checks(watch.checks)}, {moment(watch.since)} to {moment(end)}",
        f"checked: defunct processes in Core's containers, {watch.servers} servers Ok, their stats updated",
        f"the automatic backup was {'checked' if watch.backup_seen else 'not checked yet'}",
    ]
    if watch.detail:
        reported.append(watch.detail)
    found = [f"{'' if seen.open else '(over) '}{_seen(seen)}" for seen in watch.found] or ["nothing was found"]
    return (*reported, *found)


def watch_json(watch: WatchReport) -> str:
    """For scripts."""
    return to_json({"watch": plain(watch)})


def _checks(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"


def _seen(seen: Seen) -> str:
    finding = seen.finding
    once = seen.checks == 1
    when = moment(seen.first) if once else f"{moment(seen.first)} to {moment(seen.last)}, {_checks(seen.checks)}"
    hint = f" — {finding.hint}" if finding.hint else ""
    return f"{finding.subject}: {finding.text}{hint} [{finding.code}, {when}]"
