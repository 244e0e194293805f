"""systemd on one host: units that start agents, restart them on failure, and stop restarting like the real one.

Simplified: only services whose command ends in a stand-in agent really do something; everything happens in this
process, so a MainPID is a number above any real one.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.faults import Fault
from sandbox.machine import unit_file
from sandbox.machine.journal import Journal
from sandbox.machine.unit_file import UnitFile
from sandbox.periphery.agent import Agent, binary_version
from sandbox.world import World, now

START_LIMIT = 5
"""Starts within START_INTERVAL seconds before systemd gives up (systemd's defaults)."""
START_INTERVAL = 10.0
RESTART_DELAY = 0.1


@dataclass(slots=True)
class Service:
    """A unit's runtime state."""

    name: str
    unit: UnitFile
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    pid: int = 0
    invocation: str = ""
    restarts: int = 0
    exit_code: int = 0
    started: float = 0.0
    changed: float = 0.0
    agent: Agent | None = None
    starts: list[float] = field(default_factory=list)
    restarting: asyncio.Task[None] | None = None


class Systemd:
    """The manager of one host."""

    def __init__(
        self, world: World, host: str, address: str, folder: Path, journal: Journal, locate: Callable[[str], Path]
    ) -> None:
        self.world = world
        self.host = host
        self.address = address
        self.folder = folder
        """Where the units are."""
        self.journal = journal
        self.locate = locate
        """Where a path of the host really lies."""
        self.booted = now().timestamp() - 86_400 * 41
        self.services: dict[str, Service] = {}
        self._pid = 5_000_000 + secrets.randbelow(900_000)

    def find(self, name: str) -> Service | None:
        """A unit, loaded when first asked for."""
        name = full_name(name)
        if name not in self.services:
            unit = unit_file.load(self.folder, name)
            if unit is None:
                return None
            self.services[name] = Service(name, unit, changed=self.booted)
        return self.services[name]

    def stale(self, service: Service) -> bool:
        """Whether its files changed on disk since they were loaded."""
        return unit_file.stamp(self.folder, service.name) != service.unit.stamp

    def reload(self) -> None:
        """daemon-reload."""
        for name, service in list(self.services.items()):
            unit = unit_file.load(self.folder, name)
            if unit is not None:
                service.unit = unit
            elif service.active == "inactive":
                del self.services[name]

    def enabled(self, service: Service) -> str:
        """is-enabled: a link in some .wants folder."""
        links = self.folder.glob(f"*.wants/{service.name}")
        if any(True for _ in links):
            return "enabled"
        return "disabled" if service.unit.get("WantedBy") else "static"

    async def start(self, service: Service) -> bool:
        """Start it, if it does not run. False when it failed at once (the start limit)."""
        if service.active in {"active", "activating"}:
            return True
        return await self._launch(service, manual_command=True)

    async def stop(self, service: Service) -> None:
        """Stop it; ends a pending automatic restart too."""
        if service.restarting is not None:
            service.restarting.cancel()
            service.restarting = None
        running = service.agent
        if service.active == "active" and running is not None:
            self._log(service, f"Stopping {service.name} - {service.unit.get('Description')}...")
            service.active, service.sub = "deactivating", "stop-sigterm"
            await running.stop()
        if service.active != "inactive":
            self._log(service, f"{service.name}: Deactivated successfully.")
            self._log(service, f"Stopped {service.name} - {service.unit.get('Description')}.")
        self._settle(service, "inactive", "dead")
        service.result = "success"
        # As in the real one, the starts stay counted until time passes or `reset-failed` clears them.

    async def stop_all(self) -> None:
        """At the end of the sandbox."""
        for service in self.services.values():
            if service.restarting is not None:
                service.restarting.cancel()
            if service.agent is not None:
                service.agent.vanish()

    def _settle(self, service: Service, active: str, sub: str) -> None:
        service.active, service.sub, service.changed = active, sub, now().timestamp()
        if active != "active":
            service.pid, service.agent = 0, None

    def _log(self, service: Service, text: str) -> None:
        self.journal.add(service.name, text, identifier="systemd", pid=1)

    async def _launch(self, service: Service, *, manual_command: bool) -> bool:
        at = now().timestamp()
        service.starts = [t for t in service.starts if at - t < START_INTERVAL]
        if len(service.starts) >= START_LIMIT:
            self._log(service, f"{service.name}: Start request repeated too quickly.")
            self._log(service, f"{service.name}: Failed with result 'exit-code'.")
            self._log(service, f"Failed to start {service.name} - {service.unit.get('Description')}.")
            self._settle(service, "failed", "failed")
            service.result = "exit-code"
            return False
        service.starts.append(at)
        if manual_command and self._start_fails(service):
            self._log(service, f"{service.name}: Failed to load environment files: Input/output error")
            self._settle(service, "failed", "failed")
            service.result = "resources"
            return False
        if manual_command:
            service.restarts = 0
        service.invocation = secrets.token_hex(16)
        self._pid += 1 + secrets.randbelow(5)
        service.pid = self._pid
        service.started = at
        self._settle_started(service)
        self._log(service, f"Started {service.name} - {service.unit.get('Description')}.")
        self._run(service)
        return True

    def _settle_started(self, service: Service) -> None:
        service.active, service.sub, service.changed = "active", "running", service.started
        service.result, service.exit_code = "success", 0

    def _run(self, service: Service) -> None:
        words = service.unit.command()
        identifier = Path(words[0]).name if words else "sh"
        pid, invocation = service.pid, service.invocation

        def say(line: str, _stream: str) -> None:
            self.journal.add(service.name, line, identifier=identifier, pid=pid, invocation=invocation)

        argv = inner_command(words)
        binary = self.locate(argv[0]) if argv else Path("/nowhere")
        version, problem = binary_version(self.world.faults, self.host, binary)
        if problem:
            say(problem, "stderr")
            self._exited(service, 127 if not version else 1)
            return
        environment = {**self._environment_files(service), **service.unit.environment()}
        agent = Agent(
            world=self.world,
            host=self.host,
            version=version,
            argv=argv[1:],
            env=environment,
            say=say,
            address=self.address,
            locate=self.locate,
            real_paths=True,
        )
        service.agent = agent
        code = agent.start()
        if code is not None:
            self._exited(service, code)
        elif fault := self._crashes(version):
            self.world.spawn(self._crash(service, agent, float(fault.options.get("after", 0.2))))

    def _start_fails(self, service: Service) -> bool:
        fault = self.world.faults.on("start-fails", self.host)
        words = inner_command(service.unit.command()) if fault else []
        if (
            fault is None
            or not words
            or not fault.covers(binary_version(self.world.faults, self.host, self.locate(words[0]))[0])
        ):
            return False
        return self.world.faults.strike("start-fails", self.host) is not None

    def _crashes(self, version: str) -> Fault | None:
        fault = self.world.faults.on("crash-loop", self.host)
        if fault is None:
            return None
        if not fault.covers(version):
            if fault.struck and fault.options.get("until") == "rolled-back":
                self.world.faults.heal(fault.name, fault.host)
            return None
        return self.world.faults.strike("crash-loop", self.host)

    async def _crash(self, service: Service, agent: Agent, after: float) -> None:
        await asyncio.sleep(after)
        if service.agent is agent:
            agent.crash()
            self._exited(service, 1)

    def _environment_files(self, service: Service) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in service.unit.all("EnvironmentFile"):
            path = self.locate(name.lstrip("-"))
            for line in path.read_text().splitlines() if path.is_file() else []:
                if "=" in line and not line.lstrip().startswith("#"):
                    key, _, value = line.partition("=")
                    found[key.strip()] = " ".join(shlex.split(value, comments=True))
        return found

    def _exited(self, service: Service, code: int) -> None:
        self._log(service, f"{service.name}: Main process exited, code=exited, status={code}/{_status(code)}")
        self._log(service, f"{service.name}: Failed with result 'exit-code'.")
        self._settle(service, "failed", "failed")
        service.result, service.exit_code = "exit-code", code
        if service.unit.get("Restart", "no") in {"on-failure", "always"}:
            service.active, service.sub = "activating", "auto-restart"
            service.restarting = self.world.spawn(self._restart(service))

    async def _restart(self, service: Service) -> None:
        delay = service.unit.get("RestartSec", "").rstrip("s")
        await asyncio.sleep(float(delay) if delay.replace(".", "").isdigit() else RESTART_DELAY)
        service.restarts += 1
        self._log(service, f"{service.name}: Scheduled restart job, restart counter is at {service.restarts}.")
        service.restarting = None
        await self._launch(service, manual_command=False)


def full_name(name: str) -> str:
    """periphery -> periphery.service"""
    return name if "." in name else f"{name}.service"


def inner_command(words: list[str]) -> list[str]:
    """What a service's command really runs: the official unit wraps it into `/bin/sh -lc "…"`."""
    if words and Path(words[0]).name in {"sh", "bash"} and len(words) > 2 and "c" in words[1]:
        inner = shlex.split(words[2])
        return inner[1:] if inner[:1] == ["exec"] else inner
    return words


def _status(code: int) -> str:
    return {1: "FAILURE", 2: "INVALIDARGUMENT", 126: "n/a", 127: "n/a"}.get(code, "n/a")
