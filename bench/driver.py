"""`python -m bench.driver READY_FILE`: a worker that upgrades servers without a Core, as the other tools do.

`UpgradeServers` does for servers what UpgradeFleet does, with the same steps, activities, options, windows and children
(UpgradeServer): survey, back up, stage, recheck, switch, verify, release. It leaves out what the other tools do not do
either: Core, its database, gates, the report. Without Core's API, the agent's journal is the proof.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from model.facts import Backup, CoreFacts, ServerFacts
from model.fleet.spec import AgentRelease, CoreSpec, Download, FleetSpec, HostSpec, Pin, ServerSpec, Sudo, Timing
from model.plan import Plan
from model.planning import fleet_for_server, make_plan, plan_for_server, plan_without_diffs
from model.status import ServerOutcome, UpgradeServerRequest
from model.steps import CoreKey, Operation, ReleaseHosts, ServerStep, StagedAgent
from workflows.phases.server_steps import survey_server
from workflows.runtime.failures import each
from workflows.runtime.run import child_id
from workflows.runtime.steps import run_step

CHANGE = "20261123T220000Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersRequest:
    """Input of UpgradeServers."""

    fleet: FleetSpec
    site: str
    """Where agents are downloaded; each server has its own folder there, so that downloads can be counted."""
    key: str


@workflow.defn(name="UpgradeServers")
class UpgradeServers:
    """A fleet whose Core already runs the target version."""

    @workflow.init
    def __init__(self, request: ServersRequest) -> None:
        self._request = request
        self._core = CoreFacts(
            reachable=True,
            current=True,
            version=request.fleet.target,
            public_key=request.key,
            host_name="komodo.example.com",
        )
        self._plan: Plan
        self._facts: dict[str, ServerFacts] = {}
        self._backups: dict[str, Backup] = {}
        self._staged: dict[str, StagedAgent] = {}
        self._outcomes: list[ServerOutcome] = []

    @workflow.run
    async def run(self, request: ServersRequest) -> list[ServerOutcome]:
        """In UpgradeFleet's order."""
        names = [server.name for server in request.fleet.servers]
        await self._all(names, self._survey)
        self._plan = plan_without_diffs(make_plan(request.fleet, CHANGE, self._core, self._facts))
        if self._plan.refusals:
            raise ApplicationError(str(self._plan.refusals), non_retryable=True)
        for work in (self._back_up, self._stage, self._upgrade, self._release):
            await self._all(names, work)
        return self._outcomes

    async def _all(self, names: list[str], work: Callable[[str], Awaitable[None]]) -> None:
        if failed := await each(names, work):
            raise ApplicationError(str(failed), non_retryable=True)

    async def _survey(self, name: str) -> None:
        self._facts[name] = await survey_server(self._fleet(name), name)

    async def _back_up(self, name: str) -> None:
        self._backups[name] = await run_step(contracts.BACK_UP_SERVER, self._step(name))

    async def _stage(self, name: str) -> None:
        self._staged[name] = await run_step(contracts.STAGE_SERVER, self._step(name))

    async def _upgrade(self, name: str) -> None:
        request = UpgradeServerRequest(
            op=self._op(name),
            fleet=self._fleet(name),
            plan=plan_for_server(self._plan, name),
            server=name,
            key=CoreKey(public_key=self._request.key, sources=()),
            backup=self._backups[name],
            staged=self._staged[name],
        )
        outcome = await workflow.execute_child_workflow(
            "UpgradeServer",
            request,
            id=child_id(workflow.info().workflow_id, request.op),
            result_type=ServerOutcome,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            static_summary=f"{name} to {self._request.fleet.target}, attempt 1",
        )
        self._outcomes.append(outcome)

    async def _release(self, name: str) -> None:
        release = ReleaseHosts(
            op=self._op(name), timing=self._request.fleet.timing, server=self._request.fleet.server(name)
        )
        await run_step(contracts.RELEASE_HOST, release)

    def _op(self, name: str) -> Operation:
        return Operation(change=CHANGE, fleet=self._request.fleet.name, target=name)

    def _fleet(self, name: str) -> FleetSpec:
        agent = self._request.fleet.agent
        return replace(
            fleet_for_server(self._request.fleet, name),
            agent=replace(agent, url=f"{self._request.site}/{name}/periphery-{{version}}-{{arch}}"),
        )

    def _step(self, name: str) -> ServerStep:
        fleet = self._fleet(name)
        return ServerStep(
            op=self._op(name),
            server=fleet.server(name),
            facts=self._plan.server(name),
            target=fleet.target,
            agent=fleet.agent,
            timing=fleet.timing,
        )


def request_for(folder: Path, count: int, site: str) -> ServersRequest:
    """The machines as a fleet. Only `poll` is shorter than usual: the other tools do not observe an agent."""
    from bench import machines

    def spec(name: str) -> HostSpec:
        return HostSpec(
            name=name,
            address=machines.address(name),
            port=machines.PORT,
            user="root",
            key_files=(str(folder / "client_key"),),
            known_hosts=str(folder / "known_hosts"),
            ssh_config="none",
            sudo=Sudo.NONE,
            state_dir=str(folder / "hosts" / name / "var/lib/komodo-upgrade"),
        )

    servers = tuple(ServerSpec(name=name, host=spec(name)) for name in machines.names(count))
    # As the other tools pin the key.
    agent = AgentRelease(
        pin=Pin.INLINE, download=Download.HOST, sha256={machines.arch(): machines.digest(machines.TARGET)}
    )
    timing = replace(Timing(), poll=timedelta(milliseconds=50))
    core = CoreSpec(host=servers[0].host)
    fleet = FleetSpec(name="bench", target=machines.TARGET, core=core, servers=servers, agent=agent, timing=timing)
    return ServersRequest(fleet=fleet, site=site, key=machines.KEY)


def main() -> None:
    """The project's worker with one additional workflow."""
    import worker
    from bench.driver import UpgradeServers as Ours  # by the module's name, not as __main__

    worker.WORKFLOWS = (*worker.WORKFLOWS, Ours)
    worker.main(["--log-level", "warning", "--ready-file", sys.argv[1]])


if __name__ == "__main__":
    main()
