"""Fleets that several modules use: a sandbox behind real SSH, and the activities on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.activities.server_fleet import Fleet, fleet_of


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Core is on v2 already, the one agent still on v1."""
    async with fleet_of(tmp_path) as made:
        yield made


@pytest.fixture
async def mixed(tmp_path: Path) -> AsyncIterator[Fleet]:
    """As `fleet`, with four agents of different kinds."""
    async with fleet_of(tmp_path, servers=4) as made:
        yield made
