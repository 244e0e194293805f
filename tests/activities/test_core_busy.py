"""A Core that is too busy to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activities.core.preflight import PreflightCore
from komodo.core.api import CoreApi
from model.errors import CoreUnreachable
from tests.activities.core_fleet import Bench, bench


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def test_a_core_too_busy_to_answer_once_is_asked_again(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all its servers connect at once, or all hosts compare their files: neither a reason to ask a person."""
    asked: list[str] = []

    def busy_once(name: str) -> None:
        real = getattr(CoreApi, name)

        async def call(api: CoreApi, **words: Any) -> object:
            asked.append(name)
            if asked.count(name) == 1:
                raise CoreUnreachable("Core does not answer: ReadTimeout")
            return await real(api, **words)

        monkeypatch.setattr(CoreApi, name, call)

    await b.staged()
    busy_once("list_updates")
    found = await PreflightCore(b.hosts).recheck_core(b.step)
    assert (found.drift, asked) == ((), ["list_updates"] * 2)
    await b.core.stop_core(b.step)
    await b.dumps.dump_database(b.to_dump("final"))
    await b.core.write_core_files(b.to_write())
    await b.core.start_core(b.step)
    busy_once("core_info")
    assert (await b.core.read_core_key(b.to_read())).public_key
    assert asked.count("core_info") == 2
