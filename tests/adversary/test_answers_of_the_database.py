"""Attack: what listens where Core's database should be never finishes its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import bson
import pytest
from pymongo.errors import OperationFailure

from komodo.core.database import Database, DatabaseLogin
from model.errors import DatabaseError, DatabaseUnreachable


async def test_one_byte_at_a_time_ends_with_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("komodo.core.database._WHOLE_ANSWER", 1.0)
    streams: list[asyncio.StreamWriter] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.append(writer)
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while True:
                writer.write(b"\x10")
                await writer.drain()
                await asyncio.sleep(0.2)

    server = await asyncio.start_unix_server(drip, tmp_path / "mongo.sock")
    began = time.monotonic()
    async with server:
        async with Database(DatabaseLogin(host="db"), socket=tmp_path / "mongo.sock") as opened:
            with pytest.raises(DatabaseUnreachable):
                await opened.version()
        for stream in streams:
            stream.transport.abort()
    assert time.monotonic() - began < 15


async def test_an_answer_that_is_held_in_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Database(DatabaseLogin(host="db"), socket=tmp_path / "mongo.sock") as opened:

        class Collection:
            def find_raw_batches(self, *_: object) -> Collection:
                return self

            async def __aiter__(self):  # type: ignore[no-untyped-def]
                while True:
                    yield b" " * 16 * 1024 * 1024

        monkeypatch.setattr(opened, "_db", type("Db", (), {"name": "komodo", "__getitem__": lambda *_: Collection()})())
        monkeypatch.setattr(bson, "decode_all", lambda _: [])
        with pytest.raises(DatabaseError, match="holds more than 64 MiB"):
            await opened.actions()


@pytest.mark.parametrize("before", range(275, 302, 3))
async def test_the_password_is_removed_before_the_words_are_cut(tmp_path: Path, before: int) -> None:
    async def refuse() -> None:
        raise OperationFailure("x", 2, {"errmsg": "x" * before + "Tr0ub4dor and more"})

    login = DatabaseLogin(host="db", username="komodo", password="Tr0ub4dor")
    async with Database(login, socket=tmp_path / "mongo.sock") as opened:
        with pytest.raises(DatabaseError) as caught:
            await opened._ask(refuse())
    assert "Tr0" not in caught.value.what
    assert len(caught.value.what) < 350
