"""One remote machine, as activities use it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh

from hosts.errors import connection_lost, no_session, script_failed
from hosts.exec.jobs import Held, invalidated_place, is_part, job_place, parse_result
from hosts.exec.protocol import Become, call, job_frame
from hosts.exec.script import Script, combine, packaged, parse
from hosts.exec.session import OUTPUT_LIMIT, Exchange, Reply, new_marker
from hosts.known_secrets import learn
from hosts.redact import clean
from hosts.secrets import resolve
from hosts.ssh.connection import Link
from hosts.ssh.tunnel import tunnel
from model.errors import ArtifactError, CommandFailed, CommandTimedOut, HostError, SudoFailed, UpgradeError
from model.fleet.spec import HostSpec, Sudo

_MINUTE = timedelta(minutes=1)
_SECRET_SECONDS = 300.0
_REFUSAL_SECONDS = 60.0
_CHUNK = 256 * 1024
_FACTS = 4096
"""Bytes for what read_file.sh prints besides the file."""
_JOB_OUTPUT = 2 * OUTPUT_LIMIT
"""job.sh prints at most 16 MiB of a job's output, and after it what the script that follows prints."""
_WATCHDOG = timedelta(seconds=5)
"""After its timeout plus this, the host itself ends a read; a read that hangs would otherwise stay forever."""
_NO_SESSION_SECONDS = 4.0
"""Longest pause before a session is asked for again; about 8 s in all."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A script's end. `err` is cleaned: no escape sequences, nothing that looks like a secret, at most 4 KiB."""

    code: int
    out: bytes = field(repr=False)
    """May hold what a file holds, so it is not shown."""
    err: str
    after: bytes = field(default=b"", repr=False)
    """What the script that followed a job printed."""

    @property
    def text(self) -> str:
        """`out` as text."""
        return self.out.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as it was read: mode like "0640", owner like "0:0"."""

    path: str
    data: bytes
    sha256: str
    mode: str
    owner: str

    def __repr__(self) -> str:
        return f"RemoteFile({self.path!r}, {len(self.data)} bytes, {self.mode}, {self.owner})"


class Host:
    """Runs scripts on one machine over its shared connection. Made by Hosts.get."""

    def __init__(self, spec: HostSpec, link: Link) -> None:
        self.spec = spec
        self._link = link
        self._sudo_once = asyncio.Lock()
        self._sudo_good = False
        self._password: tuple[float, str] | None = None
        self._asking = asyncio.Lock()
        self._refused: tuple[float, str, SudoFailed] | None = None

    async def run(
        self,
        script: Script,
        *,
        data: bytes = b"",
        timeout: timedelta = _MINUTE,
        root: bool = True,
        check: bool = True,
        limit: int = OUTPUT_LIMIT,
    ) -> Completed:
        """Run a script attached, for reads only. Values travel as arguments or on standard input.

        Raises a typed error for an exit code other than 0 (unless `check` is False), Unreachable, SudoFailed,
        CommandTimedOut. Cancelling closes the channel only; the host ends the script itself, soon after its time.
        """
        marker = new_marker()
        head = call(marker, script, limit=math.ceil((timeout + _WATCHDOG).total_seconds()))
        reply = await self._exchange(script.name, marker, head, lambda: _pieces(data), timeout, root, limit=limit)
        return self._completed(script.name, reply, check=check)

    async def read(self, path: str, *, limit: int = 4 * 1024 * 1024) -> RemoteFile | None:
        """A file, or None if there is none. Raises PermissionRefused, and CommandFailed above `limit` bytes."""
        done = await self.run(
            Script.load("hosts.sh", "read_file.sh", path=path, limit=str(limit)), limit=limit + _FACTS
        )
        facts, _, data = done.out.partition(b"\n")
        if facts == b"none":
            return None
        mode, owner, size = facts.decode().split(" ")
        if len(data) < int(size):
            raise CommandFailed(
                f"{path} could not be read completely: {len(data)} of {size} bytes", host=self.spec.name
            )
        return RemoteFile(path, data, hashlib.sha256(data).hexdigest(), mode.zfill(4), owner)

    async def job(
        self,
        op: str,
        folder: str,
        script: Script,
        *,
        data: bytes = b"",
        change: str,
        timeout: timedelta,
        on_progress: Callable[[], None] | None = None,
        root: bool = True,
        then: Script | None = None,
    ) -> Completed:
        """Starts a detached job, or attaches to it, and waits for its end: for everything that changes something.

        The same `op` runs once: with exit code 0 the same result is returned again, without a run. One that failed is
        kept aside and run again by the next call. JobLost: it is gone without an exit code (once; then run again).
        HostLocked: another fleet, or an older change with a living job, holds the host. `data` reaches the script's
        standard input through a FIFO. Cancelling, or CommandTimedOut, leaves the job alone.

        `then` is a read that runs attached in the same round trip, after the job's end or if the job ended earlier: it
        reports the present state.
        """
        place = job_place(op, folder, change)
        marker = new_marker()
        starter = Script.load(
            "hosts.sh",
            "job.sh",
            state=self.spec.state_dir,
            fleet=place.fleet,
            change=change,
            job=place.path,
            nonce=marker,
            runner=packaged("hosts.sh", "run.sh"),
            frame=job_frame(script, data, change),
        )
        own = call(marker, combine(starter, then) if then else starter)
        try:
            reply = await self._exchange(script.name, marker, own, _pieces, timeout, root, on_progress, _JOB_OUTPUT)
        except CommandTimedOut as error:
            raise CommandTimedOut(
                error.what,
                host=self.spec.name,
                residue=f"the job continues, its output is in {place.path}/out and err",
                hint="read it; the same step attaches to the job again",
            ) from None
        except UpgradeError as error:
            if error.transient:
                error.residue = f"the job, if it was started, continues: {place.path}"
            raise
        result = parse_result(reply.out, marker)
        if result is None:
            if reply.code:
                # Of the starter, not of the job.
                return self._completed(f"the start of {script.name}", reply, check=True)
            raise connection_lost(self.spec, script.name, None, residue=f"the job continues: {place.path}")
        ended = Reply(result.code, result.out, result.err)
        done = self._completed(script.name, ended, check=True, residue=f"its output is in {place.path}")
        if then:
            self._completed(then.name, reply, check=True)
        return replace(done, after=result.after)

    async def push(
        self,
        local: Path,
        remote: str,
        *,
        sha256: str,
        mode: str = "0700",
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        """Puts a local file in place, whole or not at all; nothing is sent when it is there already.

        `on_progress` is called for each chunk, as fast as the host receives.

        Raises ArtifactError when the local file is not `sha256`.
        """
        there = parse((await self.run(Script.load("hosts.sh", "file_digest.sh", path=remote))).text)
        if there.get("sha256") == [sha256] and there.get("mode", [""])[0].zfill(4) == mode.zfill(4):
            return
        actual = await asyncio.to_thread(_digest, local)
        if actual != sha256:
            raise ArtifactError(
                f"{local} is not what was expected: sha256 {actual}, expected {sha256}",
                host=self.spec.name,
                residue="nothing was sent",
                hint=f"remove {local} and try again",
            )
        marker = new_marker()
        head = call(marker, Script.load("hosts.sh", "receive_file.sh", path=remote, expected=sha256, mode=mode))

        async def feed() -> AsyncIterator[bytes]:
            with await asyncio.to_thread(local.open, "rb") as file:
                while chunk := await asyncio.to_thread(file.read, 4 * _CHUNK):
                    if on_progress:
                        on_progress()
                    yield chunk

        # At 64 KiB/s, the slowest line we wait for.
        size = (await asyncio.to_thread(local.stat)).st_size
        patience = _MINUTE + timedelta(seconds=size / 65536)
        reply = await self._exchange(f"push of {remote}", marker, head, feed, patience, root=True)
        self._completed(f"push of {remote}", reply, check=True)

    async def invalidate(
        self,
        folder: str,
        *op_prefixes: str,
        change: str,
        patience: timedelta = timedelta(minutes=2),
        on_progress: Callable[[], None] | None = None,
        root: bool = True,
    ) -> None:
        """Invalidate the marks of an attempt: its job folders are renamed, so that none of them counts as done.

        Each prefix is `<change>/<target>/<attempt>` (or one job). Jobs that still run are waited for, then stopped.
        """
        places = [invalidated_place(prefix, folder, change) for prefix in op_prefixes]
        marker = new_marker()
        script = Script.load(
            "hosts.sh",
            "invalidate.sh",
            *(place.path for place in places),
            state=self.spec.state_dir,
            fleet=places[0].fleet,
            change=change,
            patience=str(int(patience.total_seconds())),
        )
        reply = await self._exchange(
            script.name, marker, call(marker, script), _pieces, patience + _MINUTE, root, on_progress
        )
        self._completed(script.name, reply, check=True)

    async def discard(self, fleet: str, *changes: str, change: str) -> tuple[str, ...]:
        """Removes the run folders of these changes of a fleet; returns those that were there.

        `change` owns the host's lock meanwhile. Raises HostLocked while another upgrade, or a job of one of them, is at
        work on the host.
        """
        for part in (fleet, change, *changes):
            if not is_part(part):
                raise ValueError(f"{part!r} cannot be part of a path")
        script = Script.load("hosts.sh", "discard.sh", *changes, state=self.spec.state_dir, fleet=fleet, change=change)
        done = await self.run(script, timeout=10 * _MINUTE)
        return tuple(parse(done.text).get("removed", []))

    async def runs(self, op: str, folder: str, *, change: str) -> bool:
        """Whether this job is at work right now, or about to be: a call of `job` would attach to it."""
        place = job_place(op, folder, change)
        output = parse((await self.run(Script.load("hosts.sh", "job_state.sh", job=place.path))).text)
        return output["state"][0] in {"starting", "running"}

    async def held(self) -> Held | None:
        """The holder of this host's lock; None if it is free."""
        output = parse((await self.run(Script.load("hosts.sh", "lock_holder.sh", state=self.spec.state_dir))).text)
        if not output.get("owner"):
            return None
        fleet, _, change = output["owner"][0].partition(" ")
        return Held(
            fleet=fleet,
            change=change,
            since=next(iter(output.get("since", [])), ""),
            used=datetime.fromtimestamp(int(output["used"][0]), UTC),
            job=next(iter(output.get("job", [])), ""),
            expired=bool(output.get("expired")),
        )

    async def unlock(self, change: str, *, wait: timedelta = timedelta(0)) -> None:
        """Gives the host's lock back if this change holds it. Raises HostLocked if one of its jobs outlasts `wait`."""
        seconds = str(int(wait.total_seconds()))
        await self.run(Script.load("hosts.sh", "unlock.sh", state=self.spec.state_dir, change=change, seconds=seconds))

    def forward(self, host: str, port: int) -> AbstractAsyncContextManager[Path]:
        """A Unix socket on this machine that leads to host:port as seen from the remote machine.

        It outlives the SSH connection: a client that connects after a break opens a new one.
        """
        return tunnel(self.spec, self._link, host, port)

    async def clock(self) -> datetime:
        """The host's time, taken in the middle of the round trip."""
        begun = time.monotonic()
        text = (await self.run(Script.load("hosts.sh", "clock.sh"), root=False)).text.strip()
        found = re.match(r"(\d+)(?:\.(\d+))?", text)
        if not found:
            raise HostError(f"`date` printed {text!r}, no time", host=self.spec.name)
        seconds = float(f"{found[1]}.{found[2] or 0}") + (time.monotonic() - begun) / 2
        return datetime.fromtimestamp(seconds, UTC)

    # --- inside every call ----------------------------------------------------------------------------------------

    async def _exchange(
        self,
        name: str,
        marker: str,
        program: bytes,
        feed: Callable[[], AsyncIterator[bytes]],
        timeout: timedelta,
        root: bool,
        on_life: Callable[[], None] | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Reply:
        become = await self._how_to_become(root)
        if become is None or become.password is None or self._sudo_good:
            return await self._on_session(name, marker, program, become, feed, timeout, on_life, limit)
        async with self._sudo_once:
            # The first use of a password is one at a time: six wrong ones at once would lock an account.
            self._raise_known_refusal(become.password)
            if not self._sudo_good:
                await self._try_password(become)
        return await self._on_session(name, marker, program, become, feed, timeout, on_life, limit)

    async def _try_password(self, become: Become) -> None:
        marker = new_marker()
        head = call(marker, Script("sudo", ":"))
        try:
            await self._on_session("sudo", marker, head, become, _pieces, _MINUTE, None)
        except SudoFailed as error:
            self._refused = (time.monotonic(), become.password or "", error)
            self._password = None
            raise
        self._sudo_good = True

    def _raise_known_refusal(self, password: str) -> None:
        if self._refused is None:
            return
        since, refused, error = self._refused
        if refused == password and time.monotonic() - since < _REFUSAL_SECONDS:
            raise SudoFailed(error.what, host=error.host, residue=error.residue, hint=error.hint)

    async def _on_session(
        self,
        name: str,
        marker: str,
        program: bytes,
        become: Become | None,
        feed: Callable[[], AsyncIterator[bytes]],
        timeout: timedelta,
        on_life: Callable[[], None] | None,
        limit: int = OUTPUT_LIMIT,
    ) -> Reply:
        pause = 0.0
        while True:
            async with self._link.session() as connection:
                try:
                    exchange = Exchange(self.spec, name, marker, become, program, limit)
                    return await exchange.run(connection, feed(), timeout, on_life)
                except SudoFailed:
                    self._sudo_good = False
                    raise
                except asyncssh.Error as error:
                    # Nothing was sent: the connection was dead already, or the server has no session to give.
                    if pause > _NO_SESSION_SECONDS:
                        raise no_session(self.spec, name, error) from None
                    pause = pause * 2 or (0.001 if connection.is_closed() else 0.25)
            await asyncio.sleep(pause)

    async def _how_to_become(self, root: bool) -> Become | None:
        spec = self.spec
        if not root or spec.sudo is Sudo.NONE:
            return None
        if spec.sudo is Sudo.PASSWORDLESS:
            return Become()
        if spec.sudo_password is None:
            raise SudoFailed(
                "sudo takes a password, but the fleet file names none",
                host=spec.name,
                hint='sudo = { password_env = "…" } in the fleet file',
            )
        async with self._asking:
            now = time.monotonic()
            # A command (a password store, perhaps one that asks a person) is not run for every script.
            if self._password is None or not spec.sudo_password.command or now - self._password[0] > _SECRET_SECONDS:
                self._password = (now, await resolve(spec.sudo_password))
            return Become(self._password[1])

    def _completed(self, name: str, reply: Reply, *, check: bool, residue: str = "") -> Completed:
        learn(reply.out, self.spec.address)
        err = clean(reply.err.decode(errors="replace"), self._password[1] if self._password else "")
        if reply.code and check:
            error = script_failed(self.spec, name, reply.code, err, f"{self.spec.state_dir}/lock")
            error.residue = error.residue or residue
            raise error
        return Completed(reply.code, reply.out, err)


async def _pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        for start in range(0, len(part), _CHUNK):
            yield part[start : start + _CHUNK]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
