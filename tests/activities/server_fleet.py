"""A simulated fleet and the servers' activities on it, called as Temporal calls them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio.testing import ActivityEnvironment

from activities.server.agents import Agents
from activities.server.verify import Verify
from hosts.ssh.pool import Hosts
from model.facts import Backup, CoreFacts, ServerFacts, Severity
from model.fleet.file import load
from model.fleet.spec import FleetSpec, Pin, ServerSpec
from model.steps import (
    Operation,
    Proof,
    Recheck,
    RecheckServer,
    Restored,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    SurveyServer,
    Switched,
    SwitchServer,
    VerifyServer,
)
from sandbox.fleet import Sandbox

SPEED = 5.0
"""How much faster Core and agents check and retry."""
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
        asked = SurveyServer(
            server=server,
            target=NEW,
            fleet=self.spec.name,
            agent=self.spec.agent,
            agents_url=self.spec.core.agents_url,
        )
        return await run(Agents(self.hosts).survey_server, asked)

    async def step(self, name: str, attempt: int = 1) -> ServerStep:
        return ServerStep(
            op=Operation(change=CHANGE, fleet=self.spec.name, target=name, attempt=attempt),
            server=self.server(name),
            facts=await self.survey(name),
            target=NEW,
            agent=self.spec.agent,
            timing=self.spec.timing,
        )

    async def back_up(self, step: ServerStep) -> Backup:
        return await run(Agents(self.hosts).back_up_server, step)

    async def stage(self, step: ServerStep) -> StagedAgent:
        return await run(Agents(self.hosts).stage_server, step)

    async def ready(self, name: str, attempt: int = 1) -> SwitchServer:
        """Backed up and staged."""
        return await self.prepared(await self.step(name, attempt))

    async def prepared(self, step: ServerStep) -> SwitchServer:
        """The same for a step of another run or attempt."""
        backup, staged = await self.back_up(step), await self.stage(step)
        return SwitchServer(**step.basis(), backup=backup, staged=staged, key=self.key)

    async def switch(self, step: SwitchServer) -> Switched:
        return await run(Agents(self.hosts).switch_server, step)

    async def restore(self, step: SavedServerStep) -> Restored:
        return await run(Agents(self.hosts).restore_server, step)

    async def recheck(self, step: SwitchServer) -> Recheck:
        return await run(Agents(self.hosts).recheck_server, RecheckServer(**step.basis(), staged=step.staged))

    async def verify(self, step: ServerStep, switched: Switched, **changes: Any) -> Proof:
        asked = VerifyServer(
            op=step.op,
            fleet=self.spec,
            core=self.core,
            server=step.server,
            facts=step.facts,
            switched=switched,
            expected_version=NEW,
            key=step.key if isinstance(step, SwitchServer) else self.key,
        )
        return await run(Verify(self.hosts).verify_server, replace(asked, **changes))

    def inline(self) -> Fleet:
        """With Core's key in the configs, as the upgrade guide writes it."""
        return replace(self, spec=replace(self.spec, agent=replace(self.spec.agent, pin=Pin.INLINE)))

    def short(self) -> Fleet:
        """With short timeouts, for steps that must fail."""
        timing = replace(self.spec.timing, core_sees=timedelta(seconds=3), agent_ready=timedelta(seconds=4))
        return replace(self, spec=replace(self.spec, timing=timing))


@contextlib.asynccontextmanager
async def fleet_of(
    folder: Path, *, servers: int = 1, core_version: str = NEW, containers: Mapping[str, str] | None = None
) -> AsyncIterator[Fleet]:
    """Agents on v1: plain, sudo with a password, open to any Core, with many comments. Core on v2 already."""
    started = await Sandbox.start(
        folder, servers=servers, core_version=core_version, speed=SPEED, containers=containers
    )
    async with started as sandbox, Hosts() as hosts:
        yield Fleet(sandbox, load(sandbox.fleet_file), hosts)


def codes(facts: ServerFacts, severity: Severity) -> set[str]:
    return {f.code for f in facts.findings if f.severity is severity}
