"""Doubles of the workflows behind `discover`."""

from __future__ import annotations

from temporalio import workflow

from model.fleet.discovery import AgentOnHost, AgentsOnHosts, CoreServers, FindAgents, ListedServer, ListServers
from model.fleet.spec import AgentInstall


@workflow.defn(name="ListFleet")
class ListFleet:
    """Three servers; a Core whose host is named `lost…` cannot be read, one named `slow…` takes a minute."""

    @workflow.run
    async def run(self, request: ListServers) -> CoreServers:
        if request.fleet.core.host.address.startswith("slow"):
            await workflow.sleep(60)
        if request.fleet.core.host.address.startswith("lost"):
            return CoreServers(problem="no SSH connection to lost", hint="`ssh lost`")
        servers = (
            ListedServer(name=n, address=f"https://{n}:8120", host=n, enabled=not n.startswith("off"))
            for n in ("db-1", "lost-1", "off-1")
        )
        return CoreServers(servers=tuple(servers), listed=True)


@workflow.defn(name="FindFleetAgents")
class FindFleetAgents:
    """Systemd units; a server named `lost…` is not reached."""

    @workflow.run
    async def run(self, request: FindAgents) -> AgentsOnHosts:
        return AgentsOnHosts(agents=tuple(_agent(server.name) for server in request.fleet.servers))


def _agent(name: str) -> AgentOnHost:
    if name.startswith("lost"):
        return AgentOnHost(name=name, problem="no route to host", hint=f"`ssh {name}`")
    return AgentOnHost(name=name, reached=True, install=AgentInstall.SYSTEMD)
