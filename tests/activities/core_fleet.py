"""A simulated fleet and the activities on its Core host, for tests that take Core there and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncssh

from activities.backup import CoreBackup
from activities.core import Core
from activities.dumps import Dumps
from activities.preflight_core import PreflightCore
from activities.report import Report
from activities.rollback import CoreRollback
from hosts.pool import Hosts
from model import fleet_file
from model.facts import CoreFacts, DumpFacts, Finding, Severity
from model.fleet import FleetSpec
from model.steps import CoreStep, Operation, SurveyCore
from sandbox.fleet import Sandbox

CHANGE = "20261123T220000Z"


@dataclass
class Bench:
    """One sandbox, one pool of connections, and the state of one upgrade."""

    sandbox: Sandbox
    hosts: Hosts
    fleet: FleetSpec
    step: CoreStep = field(init=False, repr=False)
    results: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.preflight = PreflightCore(self.hosts)
        self.backup = CoreBackup(self.hosts)
        self.dumps = Dumps(self.hosts)
        self.core = Core(self.hosts)
        self.back = CoreRollback(self.hosts)
        self.report = Report(self.hosts)

    async def survey(self) -> CoreFacts:
        return await self.preflight.survey_core(SurveyCore(fleet=self.fleet))

    async def planned(self) -> CoreFacts:
        """Survey without refusals; from here on `step` is the input of every step."""
        facts = await self.survey()
        assert not refusals(facts), refusals(facts)
        op = Operation(change=CHANGE, fleet=self.fleet.name, target="core")
        self.step = CoreStep(op=op, fleet=self.fleet, facts=facts)
        self.results.append(facts)
        return facts

    async def backed_up(self) -> None:
        await self.planned()
        self.step = replace(self.step, backup=await self.backup.back_up_core(self.step))
        self.results.append(self.step.backup)

    async def staged(self) -> None:
        await self.backed_up()
        self.results.append(await self.core.stage_core(self.step))

    async def quiet(self) -> DumpFacts:
        """Up to the final dump of the quiet database."""
        await self.staged()
        return await self._quiet()

    async def _quiet(self) -> DumpFacts:
        self.results.append(await self.core.stop_core(self.step))
        final = await self.dumps.dump_database(replace(self.step, label="final"))
        self.results.append(final)
        return final

    async def upgraded(self) -> DumpFacts:
        """Core and the agent in its project run in the target."""
        await self.backed_up()
        return await self.upgraded_from_backup()

    async def upgraded_from_backup(self) -> DumpFacts:
        """The same, with the backup made already."""
        self.results.append(await self.core.stage_core(self.step))
        final = await self._quiet()
        self.results.append(await self.core.write_core_files(replace(self.step, dump=final)))
        self.results.append(await self.core.start_core(self.step))
        key = await self.core.read_core_key(self.step)
        self.step = replace(self.step, key=key.public_key)
        self.results += [key, await self.core.switch_core_agent(self.step)]
        return final

    def next_attempt(self) -> None:
        self.step = replace(self.step, op=replace(self.step.op, attempt=self.step.op.attempt + 1))

    def clocks(self, **changes: timedelta) -> None:
        self.fleet = replace(self.fleet, clocks=replace(self.fleet.clocks, **changes))
        if hasattr(self, "step"):
            self.step = replace(self.step, fleet=self.fleet)

    @property
    def folder(self) -> Path:
        """Core's run folder."""
        return Path(self.step.op.folder(self.fleet.core.host.state_dir))

    @property
    def project(self) -> Path:
        """Where compose and env file are."""
        return self.sandbox.hosts["core"].root / "opt" / "komodo"

    def ran(self, *words: str) -> int:
        """How many commands on Core's host held all of these words."""
        return sum(1 for r in self.sandbox.mutations("core") if all(w in r.argv for w in words))

    def restarted(self, container: str) -> str:
        """Id of a container: changes when it is re-created."""
        return next(c.id for c in self.sandbox.engine.containers.values() if c.name == container)

    async def by_hand(self, command: str) -> Any:
        """What a person types on Core's host: a plain SSH client, nothing of ours."""
        host = self.sandbox.hosts["core"]
        async with await asyncssh.connect(
            host.address, host.port, username=host.user, client_keys=[str(self.sandbox.folder / "id_ed25519")],
            known_hosts=str(self.sandbox.folder / "known_hosts"), config=None,
        ) as connection:  # fmt: skip
            return await connection.run(command, check=False)


def refusals(facts: CoreFacts) -> list[Finding]:
    return [f for f in facts.findings if f.severity is Severity.REFUSE]


def codes(facts: CoreFacts) -> set[str]:
    return {f.code for f in facts.findings}


@contextlib.asynccontextmanager
async def bench(folder: Path, **options: Any) -> AsyncIterator[Bench]:
    options = {"servers": 1, "speed": 20, **options}
    async with await Sandbox.start(folder, **options) as sandbox, Hosts() as hosts:
        yield Bench(sandbox, hosts, fleet_file.load(sandbox.fleet_file))
        await asyncio.sleep(0)
        assert sandbox.world.defects == []
