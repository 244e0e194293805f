"""Times in a zone: maintenance windows and `start --at`. The rules of a zone are those of the machine it runs on.

Workflow code never calls this: the worker resolves windows in the activity `find_windows`, the command line resolves
`--at`, and a workflow gets UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

from model.fleet.spec import Timing

EXAMPLE = "Sat,Sun 22:00-05:00 Europe/Berlin"
MOST_WINDOWS = 20
"""Texts of one fleet file, and resolved windows of one answer."""
_AHEAD = 56
"""Days that are resolved at once. A window comes every week, except for one that a change of the clock leaves empty."""
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WINDOW = re.compile(r"(?:(\S+) )?([0-9]{1,2}:[0-9]{2})-([0-9]{1,2}:[0-9]{2}) (\S+)")
_AT = re.compile(r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2})[ T])?([0-9]{1,2}:[0-9]{2})(?: ?(\S+))?")
_MINUTE = timedelta(minutes=1)
_LONGEST_SKIP = 24 * 60
"""Minutes. Clocks skip an hour in spring; a zone that changed its side of the date line has skipped a day."""
_LONGEST_WAIT = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time in which new work may begin, in UTC."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FindWindows:
    """Input of `find_windows`."""

    texts: tuple[str, ...]
    """Of `[rollout] window`."""
    after: datetime
    """The workflow's time: the answer does not depend on when the worker runs the step."""
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Result of `find_windows`: the next maintenance windows, in order."""

    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyWindow:
    """One text of `[rollout] window`."""

    days: tuple[int, ...]
    """On which it begins; Monday is 0."""
    begin: int
    """Minutes since midnight."""
    end: int
    """The same; more than a day's for a window over midnight."""
    zone: ZoneInfo


def parse_window(text: str) -> WeeklyWindow:
    """ "Sat,Sun 22:00-05:00 Europe/Berlin", "Mon-Fri 01:00-05:00 UTC", "22:00-05:00 UTC". Raises ValueError."""
    found = _WINDOW.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError("it needs days, a begin and an end, and a time zone")
    days, begin, end, zone = found.groups()
    first, last = _minutes(begin), _minutes(end)
    if first == last or first == 24 * 60:
        raise ValueError("it is empty; 00:00-24:00 is a whole day")
    return WeeklyWindow(
        days=_days(days), begin=first, end=last if last > first else last + 24 * 60, zone=find_zone(zone)
    )


def find_zone(name: str) -> ZoneInfo:
    """A zone of the IANA database. Raises ValueError if this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        text = f"the time zone {name!r} is unknown on this machine; if it exists, install the package tzdata"
        raise ValueError(text) from None


def _days(text: str | None) -> tuple[int, ...]:
    if text is None:
        return tuple(range(7))
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _day(first), _day(last or first)
        found += [(begin + i) % 7 for i in range((end - begin) % 7 + 1)]
    return tuple(sorted(dict.fromkeys(found)))


def _day(text: str) -> int:
    name = text.capitalize()
    if name not in _DAYS:
        raise ValueError(f"{text!r} is no day; the days are {', '.join(_DAYS)}")
    return _DAYS.index(name)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > 24 * 60:
        raise ValueError(f"{text!r} is no time of day")
    return found


def resolve(texts: Iterable[str], after: datetime) -> tuple[Window, ...]:
    """The windows that end after this moment, in order, in UTC. Those that touch or overlap are joined.

    Raises ValueError. Empty: none of them ever opens.
    """
    found = sorted(
        (window for text in texts for window in _occurrences(parse_window(text), after)), key=lambda w: w.begin
    )
    return tuple(islice(_joined(w for w in found if w.end > after), MOST_WINDOWS))


def _occurrences(weekly: WeeklyWindow, after: datetime) -> Iterator[Window]:
    today = after.astimezone(weekly.zone).date()
    for offset in range(-2, _AHEAD):  # a window over midnight began yesterday
        day = today + timedelta(days=offset)
        if day.weekday() in weekly.days:
            begin, end = (_in_utc(day, minutes, weekly.zone) for minutes in (weekly.begin, weekly.end))
            if begin < end:
                yield Window(begin=begin, end=end)


def _joined(windows: Iterable[Window]) -> Iterator[Window]:
    last: Window | None = None
    for window in windows:
        if last is not None and window.begin <= last.end:
            last = Window(begin=last.begin, end=max(last.end, window.end))
            continue
        if last is not None:
            yield last
        last = window
    if last is not None:
        yield last


def _in_utc(day: date, minutes: int, zone: tzinfo) -> datetime:
    """A time that the clock skips becomes the next one that exists; of one that comes twice, the first counts."""
    local = datetime.combine(day, time()) + timedelta(minutes=minutes)
    for _ in range(_LONGEST_SKIP):
        if exists(local, zone):
            break
        local += _MINUTE
    return local.replace(tzinfo=zone).astimezone(UTC)


def exists(local: datetime, zone: tzinfo | None) -> bool:
    """Whether the clocks of this zone ever show this time. None: the zone of this machine."""
    return local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local


def parse_start(text: str, now: datetime) -> datetime:
    """`start --at`: "22:30" (the next one), "2026-12-05 22:30", "22:30 Europe/Berlin". In UTC; raises ValueError.

    A time without a zone is one of this machine.
    """
    found = _AT.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError("it is no time")
    day, clock, name = found.groups()
    zone = find_zone(name) if name else None
    minutes = _minutes(clock)
    today = now.astimezone(zone).date()
    local_time = datetime.combine(date.fromisoformat(day) if day else today, time()) + timedelta(minutes=minutes)
    if not day and local_time.replace(tzinfo=zone).astimezone(UTC) <= now:
        local_time += timedelta(days=1)
    if not exists(local_time, zone):
        raise ValueError("the clock skips this time on that day")
    at = local_time.replace(tzinfo=zone).astimezone(UTC)
    if at <= now:
        raise ValueError("it is in the past")
    if at - now > _LONGEST_WAIT:
        raise ValueError("it is more than a year away")
    return at
