"""One framed call over one SSH session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import asyncssh

from hosts.failures import connection_lost, killed, no_shell, sudo_refused
from hosts.wire import COMMAND, Answer, Become, opening
from model.errors import CommandTimedOut, HostError
from model.fleet import HostSpec

_OUT_LIMIT = 64 * 1024 * 1024
_ERR_LIMIT = 128 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What a script printed and how it ended."""

    code: int
    out: bytes
    err: bytes


def new_marker() -> str:
    """A word that nothing else prints."""
    return f"ku-{secrets.token_hex(8)}"


class Exchange:
    """A script's run on an open connection. `feed` gives what the program reads from its standard input."""

    def __init__(self, spec: HostSpec, name: str, marker: str, become: Become | None, program: bytes) -> None:
        self._spec = spec
        self._name = name
        self._marker = marker
        self._become = become
        self._program = program
        self._out = Answer(marker, _OUT_LIMIT)
        self._err = Answer(marker, _ERR_LIMIT)

    async def run(
        self,
        connection: asyncssh.SSHClientConnection,
        feed: AsyncIterator[bytes],
        timeout: timedelta,
        on_life: Callable[[], None] | None,
    ) -> Reply:
        """Runs it. Raises Unreachable, SudoFailed, CommandTimedOut, CommandFailed (no shell); never for an exit code.

        Lets asyncssh.ChannelOpenError through: then nothing was sent, another session or connection may do.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(
                    COMMAND, encoding=None, request_pty=False
                )
                broken = await self._talk(process, feed, on_life)
        except TimeoutError:
            raise CommandTimedOut(
                f"{self._name} did not end within {timeout.total_seconds():g} s",
                host=self._spec.name,
                cure="is the host overloaded, or a command there waiting for something? Try again",
            ) from None
        return self._reply(process, broken)

    async def _talk(
        self,
        process: asyncssh.SSHClientProcess[bytes],
        feed: AsyncIterator[bytes],
        on_life: Callable[[], None] | None,
    ) -> Exception | None:
        writer = asyncio.create_task(self._write(process, feed))
        try:
            broken = await self._read(process, on_life)
            if self._out.code is None:
                await process.wait_closed()
            else:
                with contextlib.suppress(TimeoutError):
                    # Its process is about to end; waiting for that frees its place on the server.
                    await asyncio.wait_for(process.wait_closed(), 1)
        finally:
            # Only the channel; what runs detached lives on.
            writer.cancel()
            process.close()
            (failed,) = await asyncio.gather(writer, return_exceptions=True)
        if isinstance(failed, Exception):
            raise failed
        return broken

    async def _write(self, process: asyncssh.SSHClientProcess[bytes], feed: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in _after(opening(self._marker, self._become, self._program), feed):
                try:
                    process.stdin.write(chunk)
                    await process.stdin.drain()
                except (OSError, asyncssh.Error):
                    # A script that ends without reading everything is no error here: its exit code tells.
                    return
        except BaseException:
            # What is to be sent cannot be had: nobody waits for the rest.
            process.close()
            raise
        with contextlib.suppress(OSError, asyncssh.Error):
            process.stdin.write_eof()

    async def _read(
        self, process: asyncssh.SSHClientProcess[bytes], on_life: Callable[[], None] | None
    ) -> Exception | None:
        results = await asyncio.gather(
            _drain(process.stdout, self._out, on_life), _drain(process.stderr, self._err, None)
        )
        return next((error for error in results if error is not None), None)

    def _reply(self, process: asyncssh.SSHClientProcess[bytes], broken: Exception | None) -> Reply:
        if self._out.code is not None:
            if self._out.overflow:
                raise HostError(f"{self._name} printed more than {_OUT_LIMIT >> 20} MiB", host=self._spec.name)
            return Reply(self._out.code, self._out.part, self._err.part)
        status = process.exit_status
        if broken is None and self._out.begun and (status is not None or process.exit_signal):
            raise killed(self._spec, self._name, process.exit_signal[0] if process.exit_signal else "")
        if broken is not None or status is None or self._out.begun:
            raise connection_lost(self._spec, self._name, broken)
        talk = self._err.talk.decode(errors="replace")
        if self._become is not None and self._err.become_seen:
            raise sudo_refused(self._spec, talk, self._become.password or "")
        raise no_shell(self._spec, self._name, talk, status)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _drain(
    reader: asyncssh.SSHReader[bytes], answer: Answer, on_life: Callable[[], None] | None
) -> Exception | None:
    """Reads until our part has ended, or the stream has. Returns what broke it."""
    try:
        while answer.code is None:
            chunk = await reader.read(_CHUNK)
            if not chunk:
                return None
            answer.feed(chunk)
            if on_life and answer.begun:
                on_life()
    except (OSError, asyncssh.Error) as error:
        return error
    return None
