"""`python -m bench.bare FLEET_FILE CHANGE`: the same upgrade by plain asyncssh. No Temporal, no jobs, no way back.

Which scripts are run, with which arguments and data, is decided by the project's own activities, called as ordinary
coroutines in the order of the workflow; how they reach the host is `bench.plain_host`. So the commands are the same by
construction, and what is measured is what durability costs. All servers at once, one connection per host. It waits for
a line on standard input before it begins, so that imports are not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from activities.artifacts import Artifacts
from activities.backup import CoreBackup
from activities.core import Core
from activities.dumps import Dumps
from activities.periphery import Periphery
from activities.preflight_core import PreflightCore
from activities.preflight_server import PreflightServer
from activities.report import Report
from activities.server_backup import ServerBackup
from activities.verify import Verify
from bench.plain_host import PlainHosts
from hosts.pool import Hosts
from model.fleet import FleetSpec, ServerSpec
from model.fleet_file import load
from model.steps import (
    CoreStep,
    Operation,
    Recheck,
    ReleaseHosts,
    SaveReport,
    ServerStep,
    SurveyCore,
    SurveyServer,
    VerifyServer,
)

REPORT = "x" * 16_000
"""About as long as the tool's report of twenty servers."""


class Bare:
    """One upgrade, begun and finished by this process or not at all."""

    def __init__(self, fleet: FleetSpec, change: str, hosts: Hosts) -> None:
        self.fleet, self.change, self.hosts = fleet, change, hosts
        self.servers: dict[str, ServerStep] = {}

    def op(self, name: str) -> Operation:
        """As the tool names its steps."""
        return Operation(change=self.change, fleet=self.fleet.name, target=name)

    async def each(self, work: Callable[[str], Awaitable[Any]]) -> None:
        """The same for all servers, all at once."""
        await asyncio.gather(*(work(name) for name in self.servers or [s.name for s in self.fleet.servers]))

    async def run(self) -> None:
        """Look, save, stage, look again, Core, servers, checks, clean up."""
        core = await self._look()
        core = await self._save_and_stage(core)
        await self._look_again(core)
        core = await self._upgrade_core(core)
        self.servers = {name: replace(step, key=core.key) for name, step in self.servers.items()}
        await self.each(lambda name: self._upgrade_server(core, name))
        await Report(self.hosts).post_checks(core)
        saved = SaveReport(op=core.op, core=self.fleet.core, markdown=REPORT, json=REPORT)
        await Report(self.hosts).save_report(saved)
        await self._release()

    async def _look(self) -> CoreStep:
        survey = PreflightServer(self.hosts)

        async def one(server: ServerSpec) -> ServerStep:
            asked = SurveyServer(
                server=server,
                target=self.fleet.target,
                fleet=self.fleet.name,
                agent=self.fleet.agent,
                clocks=self.fleet.clocks,
            )
            facts = await survey.survey_server(asked)
            return ServerStep(
                op=self.op(server.name),
                server=server,
                facts=facts,
                target=self.fleet.target,
                agent=self.fleet.agent,
                clocks=self.fleet.clocks,
            )

        looked = asyncio.gather(*(one(server) for server in self.fleet.servers))
        core = await PreflightCore(self.hosts).survey_core(SurveyCore(fleet=self.fleet))
        self.servers = {step.server.name: step for step in await looked}
        return CoreStep(op=self.op("core"), fleet=self.fleet, facts=core)

    async def _save_and_stage(self, core: CoreStep) -> CoreStep:
        backup, stage = ServerBackup(self.hosts), Artifacts(self.hosts)

        async def save(name: str) -> None:
            step = self.servers[name]
            self.servers[name] = replace(step, backup=await backup.back_up_server(step))

        async def prepare(name: str) -> None:
            step = self.servers[name]
            self.servers[name] = replace(step, staged=await stage.stage_server(step))

        saving = asyncio.create_task(self.each(save))
        core = replace(core, backup=await CoreBackup(self.hosts).back_up_core(core))
        await saving
        await Dumps(self.hosts).dump_database(replace(core, label="before"))
        await asyncio.gather(self.each(prepare), Core(self.hosts).stage_core(core))
        return core

    async def _look_again(self, core: CoreStep) -> None:
        looks: list[Awaitable[Recheck]] = [PreflightCore(self.hosts).recheck_core(core)]
        looks += [PreflightServer(self.hosts).recheck_server(step) for step in self.servers.values()]
        for found in await asyncio.gather(*looks):
            if found.drift:
                raise SystemExit(str(found.drift))

    async def _upgrade_core(self, core: CoreStep) -> CoreStep:
        steps, dumps = Core(self.hosts), Dumps(self.hosts)
        await steps.stop_core(core)
        core = replace(core, dump=await dumps.dump_database(replace(core, label="final")))
        await steps.write_core_files(core)
        await steps.start_core(core)
        core = replace(core, key=(await steps.read_core_key(core)).public_key)
        switched = await steps.switch_core_agent(core)
        agent, host = core.facts.agent, self.fleet.core.host
        await Verify(self.hosts).verify_server(
            VerifyServer(
                op=core.op,
                fleet=self.fleet,
                core=core.facts,
                server=ServerSpec(name=core.facts.agent_server or "periphery", host=host, install="container"),
                switched=switched,
                expected_version=self.fleet.target,
                key=core.key,
                container=agent.container if agent else "",
            )
        )
        return core

    async def _upgrade_server(self, core: CoreStep, name: str) -> None:
        step = self.servers[name]
        if drift := (await PreflightServer(self.hosts).recheck_server(step)).drift:
            raise SystemExit(str(drift))
        switched = await Periphery(self.hosts).switch_server(step)
        await Verify(self.hosts).verify_server(
            VerifyServer(
                op=step.op,
                fleet=self.fleet,
                core=core.facts,
                server=step.server,
                switched=switched,
                expected_version=self.fleet.target,
                key=step.key,
            )
        )

    async def _release(self) -> None:
        periphery = Periphery(self.hosts)
        releases = [ReleaseHosts(op=step.op, server=step.server) for step in self.servers.values()]
        releases.append(ReleaseHosts(op=self.op("core"), core=self.fleet.core))
        await asyncio.gather(*(periphery.release_host(release) for release in releases))


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
