"""The bed's dump tools run the sandbox's code on a host of their own: what that asks of a host, theirs must have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sandbox.mongo import tools as simulated
from tests.e2e.standins import tools
from tests.e2e.standins.parts import Container, Image


@pytest.mark.parametrize("to_a_file", [False, True])
def test_an_archive_is_delivered(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], *, to_a_file: bool) -> None:
    file = tmp_path / "archive"
    call: Any = tools.Call()
    container: Any = Container(Image(tools.VERSION))
    options = simulated._Options(archive=str(file) if to_a_file else "")
    assert asyncio.run(simulated._deliver(call, container, options, b"data")) == 0
    assert (file.read_bytes() if to_a_file else capfdbinary.readouterr().out) == b"data"
