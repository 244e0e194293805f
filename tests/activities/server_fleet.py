"""A simulated fleet and the servers' activities on it, called as Temporal calls them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio.testing import ActivityEnvironment

from activities.artifacts import Artifacts
from activities.periphery import Periphery
from activities.preflight_server import PreflightServer
from activities.server_backup import ServerBackup
from activities.verify import Verify
from hosts.pool import Hosts
from model.facts import Backup, CoreFacts, ServerFacts, Severity
from model.fleet import FleetSpec, ServerSpec
from model.fleet_file import load
from model.steps import Operation, Proof, ServerStep, StagedAgent, SurveyServer, Switched, VerifyServer
from sandbox.fleet import Sandbox

SPEED = 5.0
"""Core and agents look and retry that much faster."""
CHANGE = "20261123T221500Z"
OLD, NEW = "1.19.5", "2.3.2"
WRONG = "MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
T = TypeVar("T")
R = TypeVar("R")


async def run(method: Callable[[T], Awaitable[R]], given: T) -> R:
    """As a worker runs it; heartbeats go nowhere."""
    result: R = await ActivityEnvironment().run(method, given)
    return result


@dataclass
class Fleet:
    sandbox: Sandbox
    spec: FleetSpec
    hosts: Hosts

    @property
    def key(self) -> str:
        core = self.sandbox.core
        assert core is not None
        return core.public_key

    @property
    def core(self) -> CoreFacts:
        return CoreFacts(
            reachable=True,
            version=NEW,
            published="127.0.0.1:9120",
            monitoring_interval=timedelta(seconds=1),
            api=True,
            host_name="komodo.example.com",
        )

    def server(self, name: str) -> ServerSpec:
        return self.spec.server(name)

    def root(self, name: str) -> Path:
        return self.sandbox.hosts[name].root

    def config(self, name: str) -> Path:
        return self.root(name) / "etc/komodo/periphery.config.toml"

    async def survey(self, name: str, **changes: Any) -> ServerFacts:
        server = replace(self.server(name), **changes)
        asked = SurveyServer(server=server, target=NEW, fleet=self.spec.name, agent=self.spec.agent)
        return await run(PreflightServer(self.hosts).survey_server, asked)

    async def step(self, name: str, attempt: int = 1) -> ServerStep:
        return ServerStep(
            op=Operation(change=CHANGE, fleet=self.spec.name, target=name, attempt=attempt),
            server=self.server(name),
            facts=await self.survey(name),
            target=NEW,
            agent=self.spec.agent,
            clocks=self.spec.clocks,
            key=self.key,
        )

    async def back_up(self, step: ServerStep) -> Backup:
        return await run(ServerBackup(self.hosts).back_up_server, step)

    async def stage(self, step: ServerStep) -> StagedAgent:
        return await run(Artifacts(self.hosts).stage_server, step)

    async def ready(self, name: str, attempt: int = 1) -> ServerStep:
        """Backed up and staged."""
        step = await self.step(name, attempt)
        return replace(step, backup=await self.back_up(step), staged=await self.stage(step))

    async def switch(self, step: ServerStep) -> Switched:
        return await run(Periphery(self.hosts).switch_server, step)

    async def verify(self, step: ServerStep, switched: Switched, **changes: Any) -> Proof:
        asked = VerifyServer(
            op=step.op,
            fleet=self.spec,
            core=self.core,
            server=step.server,
            switched=switched,
            expected_version=NEW,
            key=step.key,
        )
        return await run(Verify(self.hosts).verify_server, replace(asked, **changes))

    def short(self) -> Fleet:
        """With little patience, for what must fail."""
        clocks = replace(self.spec.clocks, core_sees=timedelta(seconds=3), agent_ready=timedelta(seconds=4))
        return replace(self, spec=replace(self.spec, clocks=clocks))


@contextlib.asynccontextmanager
async def fleet_of(folder: Path, *, servers: int = 1, core_version: str = NEW) -> AsyncIterator[Fleet]:
    """Agents on v1: plain, sudo with a password, open to anybody, with a config full of notes. Core on v2 already."""
    started = await Sandbox.start(folder, servers=servers, core_version=core_version, speed=SPEED)
    async with started as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


def codes(facts: ServerFacts, severity: Severity) -> set[str]:
    return {f.code for f in facts.findings if f.severity is severity}
