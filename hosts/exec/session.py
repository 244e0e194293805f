"""One framed call over one SSH session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import asyncssh

from hosts.errors import connection_lost, killed, no_shell, sudo_refused
from hosts.exec.protocol import COMMAND, NOISE, Answer, Become, opening
from model.errors import CommandTimedOut, HostError
from model.fleet.spec import HostSpec

OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes that a script may print, unless its caller expects more."""
_ERR_LIMIT = 128 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The output and the exit code of a script."""

    code: int
    out: bytes
    err: bytes


def new_marker() -> str:
    """A word that nothing else prints."""
    return f"ku-{secrets.token_hex(8)}"


class Exchange:
    """A script's run on an open connection."""

    def __init__(
        self,
        spec: HostSpec,
        name: str,
        marker: str,
        become: Become | None,
        program: bytes,
        limit: int = OUTPUT_LIMIT,
    ) -> None:
        self._spec = spec
        self._name = name
        self._marker = marker
        self._become = become
        self._program = program
        self._limit = limit
        self._out = Answer(marker, limit)
        self._err = Answer(marker, _ERR_LIMIT, tail=True)

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
                hint="is the host overloaded, or a command there waiting for something? Try again",
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
                    # Its process is about to end; until then it counts as a session of the server.
                    await asyncio.wait_for(process.wait_closed(), 1)
        finally:
            # Only the channel: detached jobs continue.
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
                    # A script may end without reading everything; its exit code decides.
                    return
        except BaseException:
            # The data cannot be read, so the call ends.
            process.close()
            raise
        with contextlib.suppress(OSError, asyncssh.Error):
            process.stdin.write_eof()

    async def _read(
        self, process: asyncssh.SSHClientProcess[bytes], on_life: Callable[[], None] | None
    ) -> Exception | None:
        results = await asyncio.gather(
            _drain(process, process.stdout, self._out, on_life), _drain(process, process.stderr, self._err, None)
        )
        return next((error for error in results if error is not None), None)

    def _reply(self, process: asyncssh.SSHClientProcess[bytes], broken: Exception | None) -> Reply:
        if self._out.flooded and self._out.begun:
            raise HostError(
                f"{self._name} printed more than {self._limit / 2**20:.3g} MiB",
                host=self._spec.name,
                residue="the rest was not read",
                hint="run its commands by hand to find the one that prints so much",
            )
        if self._out.flooded or self._err.flooded:
            raise HostError(
                f"the login shell printed more than {NOISE >> 20} MiB before {self._name} began",
                host=self._spec.name,
                residue="the rest was not read, and the script was not run to its end",
                hint="which of the login scripts of that user prints without end?",
            )
        if self._out.code is not None:
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
    process: asyncssh.SSHClientProcess[bytes],
    reader: asyncssh.SSHReader[bytes],
    answer: Answer,
    on_life: Callable[[], None] | None,
) -> Exception | None:
    """Read until our part or the stream has ended, or there is too much. Returns the error that broke it."""
    try:
        while answer.code is None:
            chunk = await reader.read(_CHUNK)
            if not chunk:
                return None
            answer.feed(chunk)
            if answer.flooded:
                # The other stream ends, too.
                process.close()
                return None
            if on_life and answer.begun:
                on_life()
    except (OSError, asyncssh.Error) as error:
        return error
    return None
