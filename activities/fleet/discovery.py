"""What `discover` reads: the Servers that Core knows, and the agents on their hosts. Read-only."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from temporalio import activity

from activities.core import survey as survey_steps
from activities.core.access import core_api, open_database
from activities.core.coverage import find_agent_server, known_servers, servers_on_core_host
from activities.core.preflight import facts_so_far
from activities.core.survey import CoreSurvey, Ended
from activities.server.preflight import Machine, read_machine
from hosts.ssh.pool import Hosts
from komodo.core.api import CoreApi
from komodo.core.settings import machine_of
from model.errors import CoreRefused, DatabaseError, UpgradeError
from model.facts import CoreFacts, Install, KnownServer, Severity
from model.fleet.bounds import MOST_SERVERS
from model.fleet.discovery import LARGEST_LIST, AgentOnHost, CoreServers, FindAgent, ListedServer, ListServers, Source
from model.fleet.spec import AgentInstall, CoreSpec, ServerSpec
from model.steps import SurveyServer


class Discovery:
    """Finds out what belongs into a fleet file."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    @activity.defn
    async def list_servers(self, ask: ListServers) -> CoreServers:
        """All Servers that Core knows, and which of them run on Core's host. Errors are returned, never raised."""
        survey: CoreSurvey | None = None
        found = CoreServers()
        try:
            survey = CoreSurvey(fleet=ask.fleet, host=await self._hosts.get(ask.fleet.core.host))
            await _survey_containers(survey)
        except UpgradeError as error:
            found = _problem(found, error)
            # Core's API may be reachable without its host.
            if ask.source is Source.DATABASE or not ask.fleet.core.url:
                return found
        try:
            servers = await (self._from_api(ask.fleet.core, survey) if ask.source is Source.API else _stored(survey))
            servers = _bounded(servers)
        except UpgradeError as error:
            return _problem(found, error)
        on_host: tuple[str, ...] = ()
        if survey is not None and survey.core is not None:
            found = replace(found, agent_server=find_agent_server(servers, survey.agent))
            on_host = servers_on_core_host(servers, survey.containers, survey.core)
        here = ask.fleet.core.host.address
        listed = (_listed(s, here if s.name in on_host else machine_of(s.address)) for s in servers)
        return replace(found, servers=tuple(listed), listed=True)

    async def _from_api(self, core: CoreSpec, survey: CoreSurvey | None) -> tuple[KnownServer, ...]:
        facts = CoreFacts()
        if survey is not None and survey.core is not None and not core.url:
            await survey_steps.settings(survey)
            facts = facts_so_far(survey)
        async with core_api(self._hosts, core, facts) as api:
            caller = await api.caller()
            if not caller.admin:
                raise CoreRefused(
                    f"the API key belongs to {caller.username}, not an admin: Core would show only some of the servers",
                    hint="make one as an admin in Komodo (Settings, API Keys); it is used for reading only",
                )
            known = known_servers(await api.list_servers(), ())
            # v2 lists no address of a Server that is not connected by Core; the Server itself may have one.
            return tuple([s if s.address or not s.enabled else await _with_address(api, s) for s in known])

    @activity.defn
    async def find_agent(self, ask: FindAgent) -> AgentOnHost:
        """How the agent on one host is installed. Errors are returned, never raised."""
        server = ask.server
        try:
            host = await self._hosts.get(server.host)
            survey = SurveyServer(server=server, target="", fleet="", timing=ask.timing)
            return _agent(server, await read_machine(host, survey))
        except UpgradeError as error:
            return AgentOnHost(name=server.name, problem=error.what, hint=error.hint)


async def _with_address(api: CoreApi, server: KnownServer) -> KnownServer:
    return replace(server, address=(await api.server(server.id or server.name)).address)


async def _survey_containers(survey: CoreSurvey) -> None:
    """Core's container and the agents next to it. Raises UpgradeError if Core's container is not found."""
    with contextlib.suppress(Ended):  # what is wrong with the Compose project, `check` says
        await survey_steps.containers(survey)
    if survey.core is None:
        finding = survey.findings[-1]
        raise UpgradeError(finding.text, host="core", hint=finding.hint)


async def _stored(survey: CoreSurvey | None) -> tuple[KnownServer, ...]:
    """Of Core's database, with the login of Core's container. Raises UpgradeError."""
    assert survey is not None  # noqa: S101 - without its host there is no database
    await survey_steps.settings(survey)
    login = survey.settings.database if survey.settings else None
    if survey.database is None or login is None:
        finding = survey.findings[-1]
        raise DatabaseError(finding.text, hint=finding.hint)
    if not survey.database.reach:
        raise DatabaseError(f"the database's container {survey.database.container} does not run", host="core")
    async with open_database(survey.host, login, survey.database.reach) as opened:
        return known_servers((), await opened.servers())


def _bounded(servers: tuple[KnownServer, ...]) -> tuple[KnownServer, ...]:
    """What a fleet file and a payload can hold. Raises UpgradeError."""
    if len(servers) > MOST_SERVERS:
        raise UpgradeError(f"Core has {len(servers)} Servers; a fleet file holds at most {MOST_SERVERS}")
    if sum(len(s.name) + 2 * len(s.address) for s in servers) > LARGEST_LIST:
        raise UpgradeError("the names and addresses of Core's Servers are larger than 1 MiB")
    return servers


def _listed(server: KnownServer, host: str) -> ListedServer:
    # Only what stays while the hosts are surveyed, and what both sources say.
    return ListedServer(name=server.name, address=server.address, host=host, enabled=server.enabled)


def _problem(found: CoreServers, error: UpgradeError) -> CoreServers:
    return replace(found, problem=error.what, hint=error.hint)


def _agent(server: ServerSpec, machine: Machine) -> AgentOnHost:
    found = AgentOnHost(name=server.name, reached=True)
    refused = next((f for f in machine.findings if f.severity is Severity.REFUSE), None)
    if refused is not None:
        return replace(found, problem=refused.text, hint=refused.hint)
    if machine.agent is not None:
        container = machine.agent.install is Install.CONTAINER
        return replace(found, install=AgentInstall.CONTAINER if container else AgentInstall.SYSTEMD)
    users = [line.partition("\t")[0] for line in machine.output.get("user_unit", ())]
    if len(users) == 1:
        return replace(found, install=AgentInstall.SYSTEMD_USER, user=users[0])
    if users:
        problem = f"several users have a {server.unit}: {', '.join(users)}"
        return replace(found, problem=problem, hint='name the one that Core uses: install = "systemd-user", user, sudo')
    return replace(
        found,
        problem=f"no agent of Komodo was found: no {server.unit}, and no container of its image",
        hint="is it the right machine? If the unit has another name: unit",
    )
