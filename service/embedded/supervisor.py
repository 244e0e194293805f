"""The detached process that owns the embedded Temporal server and its worker: `python -m service.embedded.supervisor`.

It holds a file lock for its whole life, so there is never a second one. The database file has a lock of its own that
the server process inherits: it is free only when that process is gone, even if a supervisor was killed in between.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hosts import policy
from service import logs
from service.codec import key_ring
from service.embedded import processes, server
from service.embedded.child import Child
from service.embedded.control import Control
from service.embedded.inhibit import Inhibitor
from service.embedded.state import Running, StateDir
from service.process_exit import leave
from service.secret_fingerprints import fingerprint
from service.version import code, release

log = logging.getLogger("komodo_upgrade.supervisor")

WORKER_PATIENCE = timedelta(seconds=45)
"""Above the worker's own grace of 30 s."""
SERVER_PATIENCE = timedelta(seconds=15)
_SERVER_NEEDS = frozenset({"PATH", "HOME", "TMPDIR", "LANG"})
"""The server process gets no secret of the shell."""
TAKEN = 3
"""Exit code: another supervisor serves this folder."""


class Supervisor:
    """State, two children, one control socket."""

    def __init__(self, state: StateDir, *, worker: str, anyway: bool, until_input_closes: bool = False) -> None:
        self.state = state
        self.stop = asyncio.Event()
        self.environment = dict(os.environ)
        self.before = state.read()
        self.anyway = anyway
        self._until_input_closes = until_input_closes
        self._worker_module = worker
        self._inhibitor = Inhibitor(self._busy)
        self._database_lock = -1
        pid = os.getpid()
        wanted = self.before.port if server.is_free(self.before.port or 1) else 0
        self.running = Running(
            phase="starting",
            pid=pid,
            identity=processes.identity(pid),
            release=release(),
            code=code(),
            port=wanted or server.free_port(),
            salt=secrets.token_hex(16),
        )
        self.server: Child | None = None
        self.worker = Child(
            "worker",
            prepare=self._worker_command,
            open_log=lambda: state.open_log("worker"),
            patience=WORKER_PATIENCE,
            changed=self.publish,
            started=self._worker_ready,
        )

    # --- the published state-------------------------------------------------------------------------------------------

    def publish(self, **changes: Any) -> None:
        """Write supervisor.json."""
        children = {"server": self.server, "worker": self.worker}
        for name, child in children.items():
            changes |= {f"{name}_pid": child.pid if child else 0, f"{name}_identity": child.identity if child else ""}
        changes["worker_ready"] = self.worker.ready
        changes["restarts"] = {name: child.restarts for name, child in children.items() if child}
        changes["failures"] = {name: child.failures for name, child in children.items() if child}
        self.running = self.state.update(self.running, **changes)

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request over the control socket."""
        verb = request.get("do")
        if verb == "fingerprints":
            names = [str(name) for name in request.get("names", [])]
            return {name: fingerprint(self.environment.get(name), self.running.salt) for name in names}
        if verb == "environment":
            await self._replace_environment(request.get("set", {}), request.get("unset", []))
            return {"ready": self.worker.ready}
        if verb == "serve":
            self.anyway = True
            self.publish(phase="ready", detail="")
            self.worker.start()
            return {}
        if verb == "stop":
            self.stop.set()
            return {}
        return {"error": f"unknown request {verb!r}"}

    async def _replace_environment(self, given: Mapping[str, str], gone: Sequence[str]) -> None:
        self.environment.update({str(name): str(value) for name, value in given.items()})
        for name in gone:
            self.environment.pop(name, None)
        log.info("replacing the worker: %s changed", ", ".join([*given, *gone]))
        await self.worker.restart()

    # --- the children -------------------------------------------------------------------------------------------------

    def _server_command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        if not server.is_free(self.running.port):
            # The port was taken while the server was down; clients read the new one from supervisor.json.
            self.running = self.state.update(self.running, port=server.free_port(), address="")
        minimal = {key: value for key, value in self.environment.items() if key in _SERVER_NEEDS}
        return server.command(self.running.port, self.state.database), minimal | server.GC_SETTINGS

    async def _server_ready(self) -> None:
        address = f"{server.IP}:{self.running.port}"
        await _until(lambda: server.set_up(address))
        moved = self.running.address not in ("", address)
        self.running = self.state.update(self.running, address=address)
        log.info("Temporal answers at %s", address)
        foreign = await self._foreign_upgrades()
        if foreign and not self.anyway:
            detail = f"{foreign} running, begun by release {self.before.release}; this is {release()}"
            log.error("the worker is not started: %s", detail)
            self.publish(phase="refusing", detail=detail)
            return
        if moved:
            await self.worker.restart()
        self.worker.start()

    async def _foreign_upgrades(self) -> str:
        """Upgrades that another release began: its workflow code may not be continued by ours."""
        if self.before.release in ("", release()):
            return ""
        names = await self._running_fleets()
        return ", ".join(names)

    def _worker_command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        from service.connection import without_settings

        self.state.ready_file.unlink(missing_ok=True)
        environment = without_settings(self.environment, self.state.empty_config)
        environment |= {
            "TEMPORAL_ADDRESS": self.running.address,
            "TEMPORAL_NAMESPACE": "default",
            key_ring.ENV_FILE: str(self.state.key_ring),
            policy.ENV: str(self.state.policy),
        }
        command = [sys.executable, "-P", "-m", self._worker_module, "--ready-file", str(self.state.ready_file)]
        return command, environment

    async def _worker_ready(self) -> None:
        while not self.state.ready_file.exists():  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.05)
        log.info("the worker polls")
        self.running = self.state.update(self.running, phase="ready")

    async def _busy(self) -> bool:
        return bool(await self._running_fleets())

    async def _running_fleets(self) -> list[str]:
        from service.codec.key_ring import from_file
        from service.connection import connect
        from service.upgrades import running

        client = await connect({"target_host": self.running.address}, keys=from_file(self.state.key_ring))
        return [run.fleet for run in await running(client)]

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the locks to the drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._until_input_closes:
            loop.add_reader(0, self._input_closed)
        self.publish()
        key_ring.create(self.state.key_ring)
        await self._end_leftovers()
        async with contextlib.AsyncExitStack() as stack:
            database = await self._lock_database(stack)
            control = await stack.enter_async_context(Control(self.state.root, self.answer))
            self.publish(control=str(control.path))
            self.server = Child(
                "temporal",
                prepare=self._server_command,
                open_log=lambda: self.state.open_log("temporal"),
                patience=SERVER_PATIENCE,
                changed=self.publish,
                started=self._server_ready,
                keep=(database,),
            )
            self.server.start()
            inhibiting = asyncio.create_task(self._inhibitor.run(self.worker))
            await self.stop.wait()
            log.info("stopping")
            self.publish(phase="stopping")
            inhibiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await inhibiting
            await self.worker.stop()
            await self.server.stop()
        self.publish(phase="stopped", control="")
        log.info("stopped")

    def _input_closed(self) -> None:
        """The process that this service belongs to has ended; it never writes."""
        asyncio.get_running_loop().remove_reader(0)
        log.info("the command that started this service has ended")
        self.stop.set()

    async def _end_leftovers(self) -> None:
        """Children of a supervisor that was killed: their server still has the database open."""
        old = self.before
        for name, pid, identity, patience in (
            ("worker", old.worker_pid, old.worker_identity, WORKER_PATIENCE),
            ("temporal", old.server_pid, old.server_identity, SERVER_PATIENCE),
        ):
            if processes.is_alive(pid, identity):
                log.warning("ending a %s without supervisor, pid %d", name, pid)
                await processes.end(pid, identity, patience=patience)

    async def _lock_database(self, stack: contextlib.AsyncExitStack) -> int:
        for _ in range(300):
            try:
                file = stack.enter_context(self.state.lock("database"))
            except BlockingIOError:
                await asyncio.sleep(0.1)
                continue
            return file.fileno()
        raise RuntimeError(f"another process keeps {self.state.database} open")


async def _until(attempt: Any, *, seconds: float = 60) -> None:
    """Repeat until it works; the last error when time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            await attempt()
        except Exception:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one state folder until asked to stop."""
    parser = argparse.ArgumentParser(prog="python -m service.embedded.supervisor")
    parser.add_argument("--state", type=Path, default=None)
    parser.add_argument("--worker", default="worker", help="module to run as the worker")
    parser.add_argument("--anyway", action="store_true", help="serve upgrades that another release began")
    parser.add_argument("--until-input-closes", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args(arguments)
    state = StateDir(options.state).make()
    logs.set_up()
    try:
        with state.lock("supervisor"):
            asyncio.run(_run(state, options))
            leave(0)
    except BlockingIOError:
        log.info("another supervisor serves %s", state.root)
        sys.exit(TAKEN)


async def _run(state: StateDir, options: argparse.Namespace) -> None:
    supervisor = Supervisor(
        state, worker=options.worker, anyway=options.anyway, until_input_closes=options.until_input_closes
    )
    try:
        await supervisor.run()
    except Exception as error:
        supervisor.publish(phase="failed", detail=str(error))
        raise


if __name__ == "__main__":
    main()
