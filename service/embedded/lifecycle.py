"""The embedded service from a command: start, reuse and stop it, and give it this shell's secrets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from model.errors import NoWorker, ServiceRefused
from model.fleet.spec import FleetSpec
from service import policy
from service.codec import key_ring
from service.connection import connect
from service.embedded import systemd
from service.embedded.control import ask
from service.embedded.processes import identity, is_alive
from service.embedded.state import Running, StateDir
from service.secret_fingerprints import fingerprint, referenced
from service.upgrades import running as running_upgrades
from service.upgrades import watches
from service.version import code, release

START_PATIENCE = timedelta(seconds=90)
STOP_PATIENCE = timedelta(seconds=75)
CRASH_LOOP = 3
"""Starts in a row of a worker that never polled: the next one will not either."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a supervisor is started; tests give another worker."""

    worker: str = "worker"
    anyway: bool = False
    lifeline: int | None = None
    """Read end of a pipe: the service ends when the pipe's other end is closed, also by `kill -9`. None: it stays."""


async def ensure(state: StateDir, say: Say, options: Options = Options()) -> Running:
    """A ready service: the running one, or a new one. Raises ServiceRefused."""
    state.make()
    deadline = time.monotonic() + START_PATIENCE.total_seconds()
    while True:
        try:
            with state.lock("start"):
                return await _ensure(state, say, options, deadline)
        except BlockingIOError:
            # Another command is starting the service right now.
            if time.monotonic() > deadline:
                raise _not_started(state) from None
            await asyncio.sleep(0.1)


async def _ensure(state: StateDir, say: Say, options: Options, deadline: float) -> Running:
    if state.supervised():
        now = await _settled(state, deadline)
        if now.phase == "ready" and now.code == code():
            return now
        if now.phase == "ready" and not await _replaceable(state, now, say):
            return now
        if now.phase == "refusing":
            if not options.anyway:
                raise _other_release(now)
            await ask(now.control, "serve")
            return await _settled(state, deadline)
        if state.supervised():
            say("the service here runs other code than this command: replacing it")
            await stop(state)
    pid = 0 if systemd.start(state) else spawn(state, options)
    now = await _settled(state, deadline, pid)
    if now.phase == "refusing":
        raise _other_release(now)
    if now.phase != "ready":
        raise _not_started(state)
    return now


def spawn(state: StateDir, options: Options = Options()) -> int:
    """A supervisor of its own session: it survives the terminal, and without a lifeline also this command.

    Returns its pid at once.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "service.embedded.supervisor",
        "--state",
        str(state.root),
        "--worker",
        options.worker,
    ]
    command += ["--anyway"] if options.anyway else []
    command += ["--until-input-closes"] if options.lifeline is not None else []
    with state.open_log("supervisor") as output:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL if options.lifeline is None else options.lifeline,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=state.root,
        )
    # Never waited for: it outlives this command. Without the mark Python would warn about it.
    process.returncode = 0
    return process.pid


async def client(state: StateDir, now: Running) -> Client:
    """A client of the embedded server, with its key ring."""
    if not now.address:
        return _none(now)
    keys = key_ring.from_file(state.key_ring)
    return await connect({"target_host": now.address, "namespace": "default"}, keys=keys)


def _none(now: Running) -> Client:
    raise ServiceRefused(
        f"the embedded service is not there ({now.phase or 'never started'})", hint="komodo-upgrade up"
    )


async def share_environment(now: Running, fleet: FleetSpec, say: Say) -> bool:
    """Give the worker this shell's variables where they differ from its own. True: the worker was replaced."""
    names = referenced(fleet)
    theirs = await ask(now.control, "fingerprints", names=list(names))
    ours = {name: os.environ.get(name) for name in names}
    differ = [name for name in names if fingerprint(ours[name], now.salt) != theirs.get(name, "")]
    # A variable that only the worker has is kept: another shell gave it on purpose.
    given = {name: value for name in differ if (value := ours[name]) is not None}
    if not given:
        return False
    say(f"the worker starts again with this shell's {', '.join(given)}")
    reply = await ask(now.control, "environment", set=given, timeout=60)
    del reply
    return True


async def serve_fleet(state: StateDir, now: Running, fleet: FleetSpec, say: Say) -> Running:
    """Let the worker use what this fleet file refers to, and give it this shell's variables."""
    policy.allow_fleet(state.policy, fleet)
    await share_environment(now, fleet, say)
    return await wait_for_worker(state)


async def wait_for_worker(state: StateDir) -> Running:
    """Until the worker polls."""
    deadline = time.monotonic() + START_PATIENCE.total_seconds()
    while True:
        now = _current(state)
        if now.worker_ready and state.supervised():
            return now
        if time.monotonic() > deadline:
            raise NoWorker("the worker does not come up", hint=f"read {state.log('worker')}:\n{tail(state, 'worker')}")
        await asyncio.sleep(0.05)


async def stop(state: StateDir, *, force: bool = False, say: Say = lambda _: None) -> bool:
    """Drain and stop. False: nothing ran. Raises ServiceRefused while an upgrade runs, unless forced."""
    if not state.supervised():
        return False
    now = _current(state)
    if not force and now.address and now.phase in {"ready", "refusing"}:
        names = [run.fleet for run in await running_upgrades(await client(state, now))]
        if names:
            raise ServiceRefused(
                f"an upgrade is running: {', '.join(names)}",
                residue="nothing was stopped",
                hint="let it end, or `komodo-upgrade down --force`: it continues after the next `komodo-upgrade up`",
            )
    if now.address and now.phase == "ready":
        await _report_watches(await client(state, now), say)
    deadline = time.monotonic() + STOP_PATIENCE.total_seconds()
    asked = False
    while state.supervised():
        now = _current(state)
        if now.control and not asked:
            # One that is just starting has no socket yet.
            await ask(now.control, "stop")
            asked = True
        if time.monotonic() > deadline:
            hint = f"read {state.log('supervisor')}; then kill {now.pid}"
            raise ServiceRefused(f"the supervisor (pid {now.pid}) does not end", hint=hint)
        await asyncio.sleep(0.05)
    return True


async def _report_watches(there: Client, say: Say) -> None:
    """They are no reason to stay up; but whoever stops the service shall know that they rest."""
    with contextlib.suppress(RPCError):
        if names := sorted({found.fleet for found in await watches(there)}):
            say(
                f"the watch over the upgrade of {', '.join(names)} pauses until the next `komodo-upgrade up`: "
                "checks that are due then run late; none is lost"
            )


def tail(state: StateDir, name: str, lines: int = 8) -> str:
    """The last lines of a log, indented."""
    try:
        text = state.log(name).read_text(errors="replace")
    except OSError:
        return "    (no log)"
    return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:])


async def _settled(state: StateDir, deadline: float, pid: int = 0) -> Running:
    """As soon as the supervisor is ready, refuses, or is gone (`pid`: the one just spawned).

    A worker between two lives is waited for. One that crashes again and again gets, from each command, one more try:
    what was wrong may be corrected meanwhile.
    """
    seen, enough = False, 0
    while time.monotonic() < deadline:
        alive = state.supervised()
        now = _current(state)
        if alive and now.phase in {"ready", "refusing"} and (now.worker_ready or now.phase == "refusing"):
            return now
        if not alive and (seen or (pid and not identity(pid))):
            return state.read()
        seen = seen or alive
        failures = now.failures.get("worker", 0) if alive else 0
        enough = enough or (max(CRASH_LOOP, failures + 1) if now.pid else 0)
        if enough and failures >= enough:
            raise _not_started(state)
        await asyncio.sleep(0.05)
    raise _not_started(state)


def _current(state: StateDir) -> Running:
    """The record of the running supervisor. A new one holds its lock shortly before it replaces the old record."""
    now = state.read()
    return now if is_alive(now.pid, now.identity) else Running()


async def _replaceable(state: StateDir, now: Running, say: Say) -> bool:
    names = [run.fleet for run in await running_upgrades(await client(state, now))]
    if not names:
        return True
    if now.release != release():
        raise ServiceRefused(
            f"the service here is release {now.release} and upgrades {', '.join(names)}; this command is {release()}",
            residue="nothing was changed",
            hint=f"let that upgrade end first, or use release {now.release}'s commands",
        )
    say(f"an upgrade is running ({', '.join(names)}): the service keeps the code it was started with")
    return False


def _other_release(now: Running) -> ServiceRefused:
    return ServiceRefused(
        f"an upgrade that another release began is not finished: {now.detail}",
        residue="the database runs, no worker does; nothing happens to the hosts",
        hint="install that release again and let it finish, or take the risk: `komodo-upgrade up --force`",
    )


def _not_started(state: StateDir) -> ServiceRefused:
    now = state.read()
    name = "worker" if now.address else "supervisor"
    why = f" ({now.detail})" if now.detail else ""
    return ServiceRefused(
        f"the embedded service does not come up{why}; the end of {state.log(name)}:\n{tail(state, name)}",
        hint=f"read {state.root}/*.log; then `komodo-upgrade down --force` and try again",
    )
