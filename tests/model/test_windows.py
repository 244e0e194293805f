"""Maintenance windows and `start --at`: days, midnight, changes of the clock, what is refused."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from model.fleet.windows import EXAMPLE, MOST_WINDOWS, WeeklyWindow, parse_start, parse_window, resolve

BERLIN = ZoneInfo("Europe/Berlin")
TUESDAY = datetime(2026, 12, 1, 10, tzinfo=UTC)


def local(texts: list[str], after: datetime, zone: ZoneInfo = BERLIN, count: int = 3) -> list[str]:
    found = resolve(texts, after)[:count]
    return [f"{w.begin.astimezone(zone):%m-%d %H:%M}..{w.end.astimezone(zone):%m-%d %H:%M}" for w in found]


@pytest.mark.parametrize(
    ("text", "days", "begin", "end"),
    [
        (EXAMPLE, (5, 6), 22 * 60, 29 * 60),
        ("Mon-Fri 1:00-05:30 UTC", (0, 1, 2, 3, 4), 60, 330),
        ("fri-mon 01:00-02:00 UTC", (0, 4, 5, 6), 60, 120),
        ("Mon,wed-thu 01:00-02:00 UTC", (0, 2, 3), 60, 120),
        ("00:00-24:00 UTC", tuple(range(7)), 0, 1440),
        ("  Sat   23:00-01:00   UTC ", (5,), 1380, 1500),
    ],
)
def test_a_window_has_days_times_and_a_zone(text: str, days: tuple[int, ...], begin: int, end: int) -> None:
    zone = ZoneInfo(text.split()[-1])
    assert parse_window(text) == WeeklyWindow(days=days, begin=begin, end=end, zone=zone)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Sat 22:00-05:00", "time zone"),
        ("Sat 22:00 UTC", "time zone"),
        ("", "time zone"),
        ("Sat 22:00-05:00 Europe/Nowhere", "unknown on this machine"),
        ("Sat 22:00-05:00 ../../etc/passwd", "unknown on this machine"),
        ("Sat 22:00-05:00 /etc/passwd", "unknown on this machine"),
        ("Sam 22:00-05:00 UTC", "'Sam' is no day"),
        ("Sat, 22:00-05:00 UTC", "'' is no day"),
        ("22:60-05:00 UTC", "no time of day"),
        ("22:00-25:00 UTC", "no time of day"),
        ("22:00-22:00 UTC", "empty"),
        ("24:00-05:00 UTC", "empty"),
    ],
)
def test_what_is_no_window_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_window(text)


def test_the_next_windows_begin_with_the_one_that_is_open() -> None:
    assert local([EXAMPLE], TUESDAY, count=2) == ["12-05 22:00..12-06 05:00", "12-06 22:00..12-07 05:00"]
    after_midnight = datetime(2026, 12, 6, 3, 59, tzinfo=UTC)
    assert local([EXAMPLE], after_midnight, count=1) == ["12-05 22:00..12-06 05:00"]
    assert local([EXAMPLE], after_midnight + timedelta(minutes=1), count=1) == ["12-06 22:00..12-07 05:00"]


def test_windows_that_touch_or_overlap_are_one() -> None:
    weekend = ["Sat 00:00-24:00 Europe/Berlin", "Sun 00:00-12:00 Europe/Berlin", "Sun 11:00-13:00 Europe/Berlin"]
    assert local(weekend, TUESDAY, count=2) == ["12-05 00:00..12-06 13:00", "12-12 00:00..12-13 13:00"]
    [always] = resolve(["00:00-24:00 UTC"], TUESDAY)
    assert always.end - always.begin > timedelta(days=50)
    assert len(resolve(["01:00-02:00 UTC"], TUESDAY)) == MOST_WINDOWS


def test_the_clock_that_goes_forward() -> None:
    """2027-03-28: 02:00 becomes 03:00 in Berlin."""
    before = datetime(2027, 3, 27, 12, tzinfo=UTC)
    assert local(["22:00-05:00 Europe/Berlin"], before, count=1) == ["03-27 22:00..03-28 05:00"]
    [window] = resolve(["22:00-05:00 Europe/Berlin"], before)[:1]
    assert window.end - window.begin == timedelta(hours=6)
    assert local(["02:30-04:00 Europe/Berlin"], before, count=1) == ["03-28 03:00..03-28 04:00"]
    assert local(["02:15-02:45 Europe/Berlin"], before, count=1) == ["03-29 02:15..03-29 02:45"], "it never opens"


def test_the_clock_that_goes_back() -> None:
    """2026-10-25: 03:00 becomes 02:00 in Berlin. Of a time that comes twice, the first counts: it closes early."""
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    [window] = resolve(["22:00-05:00 Europe/Berlin"], before)[:1]
    assert window.end - window.begin == timedelta(hours=8)
    [short] = resolve(["02:15-02:45 Europe/Berlin"], before)[:1]
    assert (short.begin, short.end) == (
        datetime(2026, 10, 25, 0, 15, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 45, tzinfo=UTC),
    )


def test_a_moment_is_inside_if_the_clock_on_the_wall_says_so() -> None:
    """Random moments of a year, against a second way to compute it; not on the two days of a change."""
    pick = random.Random(7)
    changes = {"2026-03-29", "2026-10-25"}
    for _ in range(300):
        begin, end = pick.sample(range(0, 1440, 15), 2)
        text = f"Sat,Sun {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02} Europe/Berlin"
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=pick.randrange(365 * 1440))
        wall = now.astimezone(BERLIN)
        if changes & {f"{wall - timedelta(days=d):%Y-%m-%d}" for d in (-1, 0, 1)}:
            continue
        minute, day = wall.hour * 60 + wall.minute, wall.weekday()
        if begin < end:
            expected = day in (5, 6) and begin <= minute < end
        else:
            expected = (day in (5, 6) and minute >= begin) or (day in (6, 0) and minute < end)
        assert (resolve([text], now)[0].begin <= now) == expected, (text, wall)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    assert os.environ.get("TZ") == before
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:30", "2026-12-01 21:30"),
        ("11:00", "2026-12-02 10:00"),
        ("2026-12-05 22:30", "2026-12-05 21:30"),
        ("2026-12-05T22:30", "2026-12-05 21:30"),
        ("2027-07-01 12:00", "2027-07-01 10:00"),
        ("22:30 UTC", "2026-12-01 22:30"),
        ("2026-12-05 22:30 America/New_York", "2026-12-06 03:30"),
    ],
)
def test_a_start_is_the_next_such_time(text: str, expected: str) -> None:
    assert f"{parse_start(text, TUESDAY):%Y-%m-%d %H:%M}" == expected


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "no time"),
        ("25:00", "no time of day"),
        ("2026-11-30 22:30", "past"),
        ("2028-01-01 00:00", "more than a year"),
        ("2027-03-28 02:30", "skips"),
        ("2026-13-01 10:00", "month"),
        ("22:30 Mars/Olympus", "unknown on this machine"),
    ],
)
def test_what_is_no_start_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_start(text, TUESDAY)
