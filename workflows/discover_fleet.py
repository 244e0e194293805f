"""ListFleet lists the Servers that Core knows. FindFleetAgents finds the agents on their hosts. Both change nothing."""

from __future__ import annotations

from temporalio import workflow

from activities import contracts
from model.fleet.discovery import AgentOnHost, AgentsOnHosts, CoreServers, FindAgent, FindAgents, ListServers
from workflows.runtime.failures import describe_failure, each
from workflows.runtime.steps import run_step


@workflow.defn(name="ListFleet")
class ListFleet:
    """Behind `discover`. It runs on the worker, where keys and secrets are."""

    @workflow.run
    async def run(self, request: ListServers) -> CoreServers:
        """From Core's API or database."""
        return await run_step(contracts.LIST_SERVERS, request)


@workflow.defn(name="FindFleetAgents")
class FindFleetAgents:
    """Behind `discover`, for a page of servers."""

    @workflow.run
    async def run(self, request: FindAgents) -> AgentsOnHosts:
        """Survey the hosts in parallel. A host that cannot be surveyed is reported, not raised."""
        found: dict[str, AgentOnHost] = {}

        async def one(name: str) -> None:
            ask = FindAgent(server=request.fleet.server(name), timing=request.timing)
            found[name] = await run_step(contracts.FIND_AGENT, ask)

        names = [server.name for server in request.fleet.servers]
        for name, error in (await each(names, one)).items():
            found[name] = AgentOnHost(name=name, problem=describe_failure(error).text)
        return AgentsOnHosts(agents=tuple(found[name] for name in names))
