"""What `discover` asks a worker, and what it finds: the Servers that Core knows, and the agents on their hosts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model.fleet.spec import AgentInstall, ServerSpec, Timing
from model.steps import FleetMessage

LARGEST_LIST = 1024 * 1024
"""Characters of names and addresses that a worker returns: below the 2 MiB of a payload of Temporal. 5,000 Servers with
usual names are about 300 KiB."""


class Source(StrEnum):
    """Where the list of Servers comes from."""

    API = "api"
    DATABASE = "database"
    """Of Core, on Core's host, through the SSH connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListServers(FleetMessage):
    """Input of `list_servers`; the fleet's servers are not used."""

    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedServer:
    """A Server as Core knows it, and its machine."""

    name: str
    address: str
    """Empty: the agent connects to Core."""
    host: str
    """The machine that the address leads to; empty: it names none."""
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreServers:
    """What Core knows."""

    servers: tuple[ListedServer, ...] = ()
    """By name."""
    listed: bool = False
    """False: Core, or its database, could not be read, and `problem` says why."""
    agent_server: str = ""
    """The Server of the agent in Core's own project, which is upgraded with Core."""
    problem: str = ""
    """Why Core's host or Core could not be read. With `listed` the list is complete nevertheless."""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindAgents(FleetMessage):
    """Input of the workflow that finds the agents of the fleet's servers: at most a page of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindAgent:
    """Input of `find_agent`."""

    server: ServerSpec
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOnHost:
    """What a host shows of its agent."""

    name: str
    """Of the Server."""
    reached: bool = False
    install: AgentInstall = AgentInstall.AUTO
    """AUTO: it could not be seen."""
    user: str = ""
    """Of a user unit."""
    problem: str = ""
    """Why the host was not reached, or why `install` is not known."""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsOnHosts:
    """Of one page of servers, in the fleet's order."""

    agents: tuple[AgentOnHost, ...]
