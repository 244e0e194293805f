"""The timeline of a run as a drawing: phases, gates that waited, and each server's downtime and unmanaged time.

Only geometry; the template writes the SVG. Long waits are drawn short, so that the minutes that matter stay visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from model.serialization import moment, span
from model.status import FleetResult, Phase, ServerOutcome

WIDTH = 720.0
"""Of the drawing area; the template adds the column of names."""
ROW = 18
_SHARE = 0.12
"""A gate's wait is at most this share of the drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar. `kind` is its CSS class, `text` what it means."""

    x: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A name and its bars."""

    name: str
    y: int
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What the template draws."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    height: int
    shortened: bool
    """A wait was drawn shorter than it was."""


@dataclass(frozen=True, slots=True)
class _Time:
    begin: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return max(self.end - self.begin, timedelta())


class _Scale:
    """Maps times to positions. Waits at gates are shortened to at most _SHARE of the drawing each."""

    def __init__(self, whole: _Time, waits: Iterable[_Time]) -> None:
        kept = [w for w in waits if w.length > timedelta(seconds=1)]
        active = max((whole.length - sum((w.length for w in kept), timedelta())).total_seconds(), 1.0)
        self._limit = active * _SHARE
        self._whole = whole
        self._waits = sorted((w for w in kept if w.length.total_seconds() > self._limit), key=lambda w: w.begin)
        self._total = max(self._seconds(whole.end), 1.0)

    @property
    def shortened(self) -> bool:
        return bool(self._waits)

    def _seconds(self, when: datetime) -> float:
        """Seconds since the beginning, with shortened waits."""
        seconds = (min(max(when, self._whole.begin), self._whole.end) - self._whole.begin).total_seconds()
        for wait in self._waits:
            length = wait.length.total_seconds()
            inside = min(max((when - wait.begin).total_seconds(), 0.0), length)
            seconds -= inside * (1 - self._limit / length)
        return seconds

    def x(self, when: datetime) -> float:
        return round(WIDTH * self._seconds(when) / self._total, 1)

    def bar(self, time: _Time, kind: str, text: str) -> Bar:
        x = self.x(time.begin)
        return Bar(x=x, width=max(round(self.x(time.end) - x, 1), 1.5), kind=kind, text=text)


def draw(result: FleetResult) -> Drawing:
    """The timeline of a run that has ended, or so far."""
    whole = _Time(result.started_at, result.ended_at)
    gates = [(_Time(r.opened_at, r.at), r.decision) for r in result.decisions if r.opened_at]
    scale = _Scale(whole, _without_overlap([time for time, _ in gates]))
    rows = [("phases", tuple(_phases(result, scale)), "")]
    waits = tuple(
        scale.bar(t, "wait", f"gate {d.gate} waited {span(t.length)}: {d.verdict.value} by {d.actor}") for t, d in gates
    )
    rows += [("gates", waits, "")] if waits else []
    rows += [("Core", tuple(_core(result, scale)), "")]
    for title, outcome in _servers(result):
        bars = tuple(_server(outcome, scale))
        rows.append((outcome.name, bars, title))
    drawn = tuple(Row(name=name, y=i * ROW, bars=bars, note=note) for i, (name, bars, note) in enumerate(rows))
    ticks = _ticks(result, scale)
    return Drawing(rows=drawn, ticks=ticks, height=len(drawn) * ROW, shortened=scale.shortened)


def _phases(result: FleetResult, scale: _Scale) -> Iterator[Bar]:
    ends = [*(begun.at for begun in result.phases[1:]), result.ended_at]
    for begun, end in zip(result.phases, ends, strict=False):
        time = _Time(begun.at, end)
        if begun.phase is not Phase.DONE and time.length:
            kind = "wait" if begun.phase in (Phase.GATE, Phase.SCHEDULED) else "phase"
            yield scale.bar(time, kind, f"{begun.phase.value}: {span(time.length)}, from {moment(begun.at)}")


def _core(result: FleetResult, scale: _Scale) -> Iterator[Bar]:
    if result.core_stopped_at and result.core_downtime:
        time = _Time(result.core_stopped_at, result.core_stopped_at + result.core_downtime)
        yield scale.bar(time, "down", f"Core was down for {span(result.core_downtime)}")


def _server(outcome: ServerOutcome, scale: _Scale) -> Iterator[Bar]:
    proof, switched = outcome.proof, outcome.switched
    if proof and proof.unmanaged:
        time = _Time(proof.confirmed_at - proof.unmanaged, proof.confirmed_at)
        yield scale.bar(time, "unmanaged", f"{outcome.name}: unmanaged for {span(proof.unmanaged)}")
    if switched:
        time = _Time(switched.started_at - switched.port_downtime, switched.started_at)
        yield scale.bar(time, "down", f"{outcome.name}: its agent was down for {span(switched.port_downtime)}")


def _servers(result: FleetResult) -> list[tuple[str, ServerOutcome]]:
    """In the order of the waves, with the wave's name."""
    waves = result.plan.waves if result.plan else ()
    wave_of = {name: f"wave {wave.number}" for wave in waves for name in wave.servers}
    known = [(wave_of.get(outcome.name, ""), outcome) for outcome in result.servers]
    order = [name for wave in waves for name in wave.servers]
    return sorted(known, key=lambda pair: order.index(pair[1].name) if pair[1].name in order else -1)


def _ticks(result: FleetResult, scale: _Scale) -> tuple[tuple[float, str], ...]:
    """The beginning of each phase, where there is space for its time."""
    found: list[tuple[float, str]] = []
    for when in (result.started_at, *(begun.at for begun in result.phases), result.ended_at):
        x = scale.x(when)
        if not found or x - found[-1][0] >= 60:
            found.append((x, f"{when:%H:%M:%S}"))
    if len(found) > 2 and found[-1][0] - found[-2][0] < 120:
        del found[-2]  # the last one stands to the left of its line
    return tuple(found)


def _without_overlap(times: list[_Time]) -> list[_Time]:
    """A gate `rollback` covers the gate that was open before: their common time counts once."""
    merged: list[_Time] = []
    for time in sorted(times, key=lambda t: t.begin):
        if merged and time.begin < merged[-1].end:
            merged[-1] = _Time(merged[-1].begin, max(merged[-1].end, time.end))
        else:
            merged.append(time)
    return merged
