"""`python -m bench.bare FLEET_FILE CHANGE`: the same upgrade by plain asyncssh. No Temporal, no jobs, no rollback.

The project's own activities, called as ordinary coroutines in the order of the workflow, decide which scripts run with
which arguments and data; `bench.plain_host` carries them to the host. The commands are therefore the same, and the
difference is the cost of durability. All servers at once, one connection per host. It waits for a line on standard
input before it begins, so that imports are not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from activities.core.backup import CoreBackup
from activities.core.preflight import PreflightCore
from activities.core.upgrade import Core
from activities.database.dumps import Dumps
from activities.fleet.report import Report
from activities.fleet.run_folders import Folders
from activities.server.agents import Agents
from activities.server.verify import Verify
from bench.plain_host import PlainHosts
from hosts.ssh.pool import Hosts
from model.facts import Backup, DumpLabel, ServerFacts, installation
from model.fleet.file import load
from model.fleet.spec import FleetSpec, ServerSpec
from model.planning import core_agent
from model.status import FleetResult, FleetState, SaveReport
from model.steps import (
    CoreStep,
    DumpDatabase,
    Operation,
    ReadCoreKey,
    Recheck,
    RecheckServer,
    ReleaseHosts,
    ServerStep,
    StagedAgent,
    SurveyCore,
    SurveyServer,
    SwitchServer,
    VerifyServer,
    WriteCoreFiles,
)

REPORT = "x" * 16_000
"""About as long as the tool's report of twenty servers."""


class Bare:
    """One upgrade, which this process finishes or not at all."""

    def __init__(self, fleet: FleetSpec, change: str, hosts: Hosts) -> None:
        self.fleet, self.change, self.hosts = fleet, change, hosts
        self.agents = Agents(hosts)
        self.servers: dict[str, ServerStep] = {}
        self.backups: dict[str, Backup] = {}
        self.staged: dict[str, StagedAgent] = {}
        self.core_agent = ""
        """Name of the agent in Core's own project, if there is one."""

    def op(self, name: str) -> Operation:
        """An operation as the tool names it."""
        return Operation(change=self.change, fleet=self.fleet.name, target=name)

    async def each(self, work: Callable[[str], Awaitable[Any]]) -> None:
        """Run a step for all servers at once."""
        await asyncio.gather(*(work(name) for name in self.servers))

    async def run(self) -> None:
        """Survey, back up, stage, recheck, upgrade Core and servers, check, and clean up."""
        core = await self._survey()
        await self._save_and_stage(core)
        await self._recheck(core)
        key = await self._upgrade_core(core)
        await asyncio.gather(*(self._upgrade_server(core, name, key) for name in self.servers))
        await Report(self.hosts).post_checks(core)
        now = datetime.now(UTC)
        result = FleetResult(
            fleet=self.fleet.name,
            target=self.fleet.target,
            change=self.change,
            state=FleetState.UPGRADED,
            started_at=now,
            ended_at=now,
            detail=REPORT,
        )
        saved = SaveReport(op=core.op, core=self.fleet.core, page=result)
        await Report(self.hosts).save_report(saved)
        await self._release()

    def _step(self, server: ServerSpec, facts: ServerFacts) -> ServerStep:
        fleet = self.fleet
        return ServerStep(
            op=self.op(server.name),
            server=server,
            facts=facts,
            target=fleet.target,
            agent=fleet.agent,
            timing=fleet.timing,
        )

    async def _survey(self) -> CoreStep:
        fleet = self.fleet

        async def one(server: ServerSpec) -> None:
            asked = SurveyServer(
                server=server, target=fleet.target, fleet=fleet.name, agent=fleet.agent, timing=fleet.timing
            )
            self.servers[server.name] = self._step(server, await self.agents.survey_server(asked))

        surveys = asyncio.gather(*(one(server) for server in fleet.servers))
        core = await PreflightCore(self.hosts).survey_core(SurveyCore(fleet=fleet))
        await surveys
        return CoreStep(op=self.op("core"), fleet=fleet, facts=installation(core))

    async def _save_and_stage(self, core: CoreStep) -> None:
        async def save(name: str) -> None:
            self.backups[name] = await self.agents.back_up_server(self.servers[name])

        async def stage(name: str) -> None:
            self.staged[name] = await self.agents.stage_server(self.servers[name])

        await asyncio.gather(CoreBackup(self.hosts).back_up_core(core), self.each(save))
        await Dumps(self.hosts).dump_database(DumpDatabase(**core.basis(), label=DumpLabel.BEFORE))
        await asyncio.gather(self.each(stage), Core(self.hosts).stage_core(core))
        if found := core_agent(self.fleet, core.facts):
            server, facts = found
            self.core_agent = server.name
            self.servers[server.name] = self._step(server, facts)
            await save(server.name)
            await stage(server.name)

    async def _recheck(self, core: CoreStep) -> None:
        checks: list[Awaitable[Recheck]] = [PreflightCore(self.hosts).recheck_core(core)]
        checks += [self._recheck_server(name) for name in self.servers]
        for found in await asyncio.gather(*checks):
            if found.drift:
                raise SystemExit(str(found.drift))

    def _recheck_server(self, name: str) -> Awaitable[Recheck]:
        return self.agents.recheck_server(RecheckServer(**self.servers[name].basis(), staged=self.staged[name]))

    async def _upgrade_core(self, core: CoreStep) -> str:
        steps = Core(self.hosts)
        await steps.stop_core(core)
        final = await Dumps(self.hosts).dump_database(DumpDatabase(**core.basis(), label=DumpLabel.FINAL))
        await steps.write_core_files(WriteCoreFiles(**core.basis(), final_dump=final))
        await steps.start_core(core)
        key = (await steps.read_core_key(ReadCoreKey(**core.basis()))).public_key
        if self.core_agent:
            await self._upgrade_server(core, self.core_agent, key)
            del self.servers[self.core_agent]
        return key

    async def _upgrade_server(self, core: CoreStep, name: str, key: str) -> None:
        step = self.servers[name]
        if drift := (await self._recheck_server(name)).drift:
            raise SystemExit(str(drift))
        message = SwitchServer(**step.basis(), backup=self.backups[name], staged=self.staged[name], key=key)
        switched = await self.agents.switch_server(message)
        await Verify(self.hosts).verify_server(
            VerifyServer(
                op=step.op,
                fleet=self.fleet,
                core=core.facts,
                server=step.server,
                facts=step.facts,
                switched=switched,
                expected_version=self.fleet.target,
                key=key,
            )
        )

    async def _release(self) -> None:
        folders = Folders(self.hosts)
        releases = [ReleaseHosts(op=step.op, server=step.server) for step in self.servers.values()]
        releases.append(ReleaseHosts(op=self.op("core"), core=self.fleet.core))
        await asyncio.gather(*(folders.release_host(release) for release in releases))


async def _main(fleet_file: Path, change: str) -> None:
    fleet = load(fleet_file)
    hosts = PlainHosts()
    _say({"ready": True})
    await asyncio.to_thread(sys.stdin.readline)
    begun = time.monotonic()
    await Bare(fleet, change, cast("Hosts", hosts)).run()
    _say({"wall": time.monotonic() - begun})
    await asyncio.to_thread(sys.stdin.readline)
    await hosts.close()


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
