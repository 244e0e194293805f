"""A watch in words: for `status`, and as a section of the report. Pure text out of a WatchReport."""

from __future__ import annotations

from collections.abc import Iterator

from model.plain import moment, plain, span, to_json
from model.watch import Seen, WatchReport, WatchState

HEADING = "## Watch"
"""Of its section in report.md, which is the last one and is replaced by every later one."""


def lines(watch: WatchReport) -> Iterator[str]:
    """For `status`."""
    looked = f"{watch.looks} {'look' if watch.looks == 1 else 'looks'} in {span(watch.at - watch.since)}"
    text = f"watch over it: {watch.state.value}, {looked}"
    if watch.next_look:
        text += f", next one at {moment(watch.next_look)}, the last at {moment(watch.until)}"
    yield text + ("" if watch.found else "; nothing found" if watch.looks else "")
    if watch.detail:
        yield f"  {watch.detail}"
    yield from (f"  {'!' if seen.open else '(over)'} {_seen(seen)}" for seen in watch.found)


def render_watch(watch: WatchReport) -> str:
    """Markdown, from the heading on."""
    over = watch.state is not WatchState.WATCHING
    end = watch.at if over else watch.until
    told = [
        f"- {watch.state.value}: {watch.looks} looks, {moment(watch.since)} to {moment(end)}",
        f"- looked at: defunct processes below Core's containers, {watch.servers} servers Ok, their stats moving",
        f"- the automatic backup was {'looked for' if watch.backup_seen else 'not looked for yet'}",
    ]
    if watch.detail:
        told.append(f"- {watch.detail}")
    found = [f"- {'' if seen.open else '(over) '}{_seen(seen)}" for seen in watch.found] or ["- nothing was found"]
    return "\n".join([HEADING, "", *told, "", *found]) + "\n"


def watch_json(watch: WatchReport) -> str:
    """For scripts."""
    return to_json({"watch": plain(watch)})


def _seen(seen: Seen) -> str:
    finding = seen.finding
    when = moment(seen.first) if seen.looks == 1 else f"{moment(seen.first)} to {moment(seen.last)}, {seen.looks} looks"
    cure = f" — {finding.cure}" if finding.cure else ""
    return f"{finding.subject}: {finding.text}{cure} [{finding.code}, {when}]"
