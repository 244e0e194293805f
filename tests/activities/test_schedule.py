"""Maintenance windows, as a worker resolves them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from activities.fleet.schedule import Schedule
from hosts.ssh.pool import Hosts
from model.errors import FleetFileError
from model.fleet.windows import EXAMPLE, FindWindows
from tests.activities.server_fleet import run

TUESDAY = datetime(2026, 12, 1, 10, tzinfo=UTC)


async def test_windows_are_counted_from_the_time_of_the_workflow() -> None:
    found = await run(Schedule(Hosts()).find_windows, FindWindows(texts=(EXAMPLE,), after=TUESDAY))
    assert found.windows[0].begin == datetime(2026, 12, 5, 21, tzinfo=UTC)
    later = await run(Schedule(Hosts()).find_windows, FindWindows(texts=(EXAMPLE,), after=found.windows[-1].end))
    assert later.windows[0].begin > found.windows[-1].begin


@pytest.mark.parametrize("text", ["Sat 22:00-05:00 Europe/Nowhere", "x"])
async def test_a_window_that_this_worker_cannot_resolve_is_refused(text: str) -> None:
    with pytest.raises(FleetFileError, match=r"\[rollout\] window: ") as error:
        await run(Schedule(Hosts()).find_windows, FindWindows(texts=(text,), after=TUESDAY))
    assert error.value.hint
