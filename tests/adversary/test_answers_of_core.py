"""Attack: what listens where Core should be sends too much, too slowly, or what a parser chokes on."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from komodo.core.api import CoreApi
from model.errors import CoreAnswered, CoreUnreachable, UpgradeError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def core(folder: Path, answer: Callable[[], Iterator[bytes]], pause: float = 0) -> AsyncIterator[CoreApi]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            for piece in answer():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

    server = await asyncio.start_unix_server(serve, folder / "core.sock")
    api = CoreApi("http://core", "K_key_K", "S_secret_S", socket=folder / "core.sock", whole=timedelta(seconds=2))
    async with server, api:
        yield api


async def test_700_mib_take_no_memory(tmp_path: Path) -> None:
    def flood() -> Iterator[bytes]:
        yield HEAD + b"\r\n["
        for _ in range(700):
            yield b" " * MIB

    async with core(tmp_path, flood) as api:
        tracemalloc.start()
        try:
            with pytest.raises(CoreAnswered, match="larger than 16 MiB"):
                await api.list_servers()
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()


async def test_one_byte_at_a_time_ends_with_the_deadline(tmp_path: Path) -> None:
    def drip() -> Iterator[bytes]:
        yield HEAD + b"\r\n"
        for _ in range(1000):
            yield b" "

    began = time.monotonic()
    async with core(tmp_path, drip, pause=0.2) as api:
        with pytest.raises(CoreUnreachable, match="did not finish its answer") as caught:
            await api.list_servers()
    assert caught.value.transient
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b"[" * 1_000_000),
        (b"", b'{"a":' * 1_000_000),
        (b"", b"[" + b"9" * 5_000_000 + b"]"),
        (b"Content-Encoding: gzip\r\n", gzip.compress(b" " * 100 * MIB)),
        (b"", b'\xff\xfe["'),
    ],
    ids=["deep list", "deep object", "huge integer", "compressed", "no UTF-8"],
)
async def test_what_a_parser_chokes_on_is_an_error_of_ours(tmp_path: Path, head: bytes, body: bytes) -> None:
    began = time.process_time()
    async with core(tmp_path, lambda: iter([HEAD + head + b"\r\n" + body])) as api:
        with pytest.raises(UpgradeError, match="is not JSON"):
            await api.list_servers()
        assert await api.flavour() is None
        assert await api.open_version() == ""
    assert time.process_time() - began < 5


async def test_names_that_no_file_can_hold_become_ones_that_it_can(tmp_path: Path) -> None:
    body = rb'[{"name": "a\ud800b"}, {"name": "\uDFFF\ud83d\ude00"}, {"name": "c\ud"}]'
    async with core(tmp_path, lambda: iter([HEAD + b"\r\n" + body])) as api:
        with pytest.raises(UpgradeError, match="is not JSON"):
            await api.list_servers()
    body = body.replace(rb'{"name": "c\ud"}', rb'{"name": "c"}')
    async with core(tmp_path, lambda: iter([HEAD + b"\r\n" + body])) as api:
        assert [server.name for server in await api.list_servers()] == ["?\U0001f600", "a?b", "c"]


async def test_numbers_out_of_range_are_no_dates(tmp_path: Path) -> None:
    body = b'[{"name": "a", "next_scheduled_run": 1e300, "last_run_at": 9' + b"9" * 300 + b"}]"
    async with core(tmp_path, lambda: iter([HEAD + b"\r\n" + body])) as api:
        (schedule,) = await api.list_schedules()
    assert (schedule.next_run, schedule.last_run) == (None, None)


async def test_a_retry_delay_is_a_small_number(tmp_path: Path) -> None:
    head = b"HTTP/1.1 429 Too Many\r\nConnection: close\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n"
    async with core(tmp_path, lambda: iter([head])) as api:
        with pytest.raises(UpgradeError) as caught:
            await api.list_servers()
    assert caught.value.retry_after == timedelta(seconds=15)  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", range(570, 602, 4))
async def test_a_secret_is_removed_before_the_words_are_cut(tmp_path: Path, before: int) -> None:
    def echo() -> Iterator[bytes]:
        body = b'{"error": "' + b"x" * before + b'S_secret_S and more"}'
        yield HEAD.replace(b"200 OK", b"500 Internal Server Error")
        yield b"Content-Length: %d\r\n\r\n" % len(body) + body

    async with core(tmp_path, echo) as api:
        with pytest.raises(CoreAnswered) as caught:
            await api.list_servers()
    assert "S_" not in caught.value.what
    assert len(caught.value.what) < 700
