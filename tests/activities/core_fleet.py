"""A simulated fleet and the activities on its Core host, for tests that take Core there and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh

from activities.core.backup import CoreBackup
from activities.core.preflight import PreflightCore
from activities.core.rollback import CoreRollback
from activities.core.upgrade import Core
from activities.database.dumps import Dumps
from activities.fleet.report import Report
from activities.server.agents import Agents
from hosts.ssh.pool import Hosts
from model.facts import Backup, CoreFacts, DumpFacts, DumpLabel, Finding, Severity, agent_backup, installation
from model.fleet import file
from model.fleet.spec import FleetSpec
from model.planning import core_agent
from model.steps import (
    CheckRollback,
    CoreStep,
    DumpDatabase,
    DumpStep,
    Operation,
    ReadCoreKey,
    Restored,
    ReturnToNewCore,
    SavedServerStep,
    SurveyCore,
    Switched,
    SwitchServer,
    WriteCoreFiles,
)
from sandbox.fleet import Sandbox

CHANGE = "20261123T220000Z"


@dataclass
class Bench:
    """One sandbox, one pool of connections, and the state of one upgrade."""

    sandbox: Sandbox
    hosts: Hosts
    fleet: FleetSpec
    step: CoreStep = field(init=False, repr=False)
    saved: Backup = field(init=False, repr=False)
    final: DumpFacts | None = None
    key: str = ""
    """Core's public key, once it is known."""
    results: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.preflight = PreflightCore(self.hosts)
        self.backup = CoreBackup(self.hosts)
        self.dumps = Dumps(self.hosts)
        self.core = Core(self.hosts)
        self.back = CoreRollback(self.hosts)
        self.report = Report(self.hosts)
        self.agents = Agents(self.hosts)

    async def survey(self) -> CoreFacts:
        return await self.preflight.survey_core(SurveyCore(fleet=self.fleet))

    async def planned(self) -> CoreFacts:
        """Survey without refusals; from here on `step` is the input of every step."""
        facts = await self.survey()
        assert not refusals(facts), refusals(facts)
        op = Operation(change=CHANGE, fleet=self.fleet.name, target="core")
        self.step = CoreStep(op=op, fleet=self.fleet, facts=installation(facts))
        self.results.append(facts)
        return facts

    async def backed_up(self) -> None:
        await self.planned()
        self.saved = await self.backup.back_up_core(self.step)
        self.results.append(self.saved)

    async def staged(self) -> None:
        await self.backed_up()
        self.results.append(await self.core.stage_core(self.step))

    async def quiet(self) -> DumpFacts:
        """Up to the final dump of the quiet database."""
        await self.staged()
        return await self._quiet()

    async def _quiet(self) -> DumpFacts:
        self.results.append(await self.core.stop_core(self.step))
        self.final = await self.dumps.dump_database(self.to_dump("final"))
        self.results.append(self.final)
        return self.final

    async def upgraded(self) -> DumpFacts:
        """Core and the agent in its project run in the target."""
        await self.backed_up()
        return await self.upgraded_from_backup()

    async def upgraded_from_backup(self) -> DumpFacts:
        """The same, with the backup made already."""
        self.results.append(await self.core.stage_core(self.step))
        final = await self._quiet()
        self.results.append(await self.core.write_core_files(self.to_write()))
        self.results.append(await self.core.start_core(self.step))
        key = await self.core.read_core_key(self.to_read())
        self.key = key.public_key
        self.results += [key, await self.switch_agent()]
        return final

    # --- the inputs of steps that need more than the plan ---

    def to_dump(self, label: str) -> DumpDatabase:
        return DumpDatabase(**self.step.basis(), label=DumpLabel(label))

    def with_dump(self, dump: DumpFacts) -> DumpStep:
        return DumpStep(**self.step.basis(), dump=dump)

    def to_write(self) -> WriteCoreFiles:
        final = self.final or DumpFacts(
            label=DumpLabel.FINAL,
            path="/nowhere",
            bytes=0,
            sha256="",
            collections=(),
            taken_at=datetime.now(UTC),
            seconds=0,
        )
        return WriteCoreFiles(**self.step.basis(), final_dump=final, staged_key=self.key)

    def to_read(self) -> ReadCoreKey:
        return ReadCoreKey(**self.step.basis(), expected=self.key)

    def to_check(self, dump: DumpFacts | None = None, *, keep: bool = False) -> CheckRollback:
        return CheckRollback(**self.step.basis(), backup=self.saved, dump=dump, keep_database=keep)

    def to_return(self, dump: DumpFacts | None) -> ReturnToNewCore:
        return ReturnToNewCore(**self.step.basis(), dump=dump)

    # --- the agent in Core's project, as the plan makes a server of it ---

    def agent_step(self) -> SavedServerStep:
        found = core_agent(self.fleet, self.step.facts)
        assert found is not None
        server, facts = found
        return SavedServerStep(
            op=replace(self.step.op, target=server.name),
            server=server,
            facts=facts,
            target=self.fleet.target,
            timing=self.fleet.timing,
            backup=agent_backup(self.saved),
        )

    async def switch_agent(self) -> Switched:
        step = self.agent_step()
        staged = await self.agents.stage_server(step)
        return await self.agents.switch_server(
            SwitchServer(**step.basis(), backup=step.backup, staged=staged, key=self.key)
        )

    async def restore_agent(self) -> Restored:
        return await self.agents.restore_server(self.agent_step())

    def next_attempt(self) -> None:
        self.step = replace(self.step, op=replace(self.step.op, attempt=self.step.op.attempt + 1))

    def timing(self, **changes: timedelta) -> None:
        self.fleet = replace(self.fleet, timing=replace(self.fleet.timing, **changes))
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

    async def manual_command(self, command: str) -> Any:
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
        yield Bench(sandbox, hosts, file.load(sandbox.fleet_file))
        await asyncio.sleep(0)
        assert sandbox.world.defects == []
