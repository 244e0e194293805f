"""Coverage: whether every Server that Core knows is in the fleet file, current, left behind, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from komodo.core.answers import ServerView
from komodo.core.containers import Container
from komodo.core.settings import address_problem, agent_of, machine_of
from komodo.releases import FIRST_V2, version_of
from model.facts import Finding, KnownServer, Severity
from model.fleet.spec import FleetSpec

_HOST_ITSELF = ("localhost", "127.0.0.1", "::1", "host.docker.internal", "172.17.0.1")
"""Names of a container's own host. Inside of a container some mean the container, where no agent runs."""


def find_agent_server(known: Iterable[KnownServer], agent: Container | None, port: int = 8120) -> str:
    """The name of the Server whose agent runs in Core's project; "" if no address belongs to it."""
    if agent is None:
        return ""
    connect_as = agent.setting("PERIPHERY_CONNECT_AS")
    names = {agent.name, agent.service, *(n for names in agent.networks.values() for n in names)}
    names |= {a for a in agent.addresses.values() if a}
    for server in known:
        host, _, where = agent_of(server.address).rpartition(":")
        if host in names and where in (str(port), "0"):
            return server.name
        if not server.address and server.name == connect_as:
            return server.name
    return ""


def servers_on_core_host(
    known: Iterable[KnownServer], containers: Iterable[Container], core: Container
) -> tuple[str, ...]:
    """Servers whose agent runs on Core's host: Core reaches it by a container's name, or as the host itself."""
    on_host = {
        name
        for agent in containers
        if agent.kind == "periphery"
        for network in core.networks
        for name in (*agent.networks.get(network, ()), agent.addresses.get(network, ""))
    }
    return tuple(s.name for s in known if (host := machine_of(s.address)) and (host in on_host or host in _HOST_ITSELF))


def known_servers(views: tuple[ServerView, ...], documents: tuple[Mapping[str, Any], ...]) -> tuple[KnownServer, ...]:
    """Core's own list, or the database's where there is no API key. The database also has addresses that v2 lists as
    null.
    """
    configs = {str(d.get("name", "")): d.get("config") or {} for d in documents}
    if views:
        return tuple(
            KnownServer(
                name=v.name,
                id=v.id,
                address=v.address or str(configs.get(v.name, {}).get("address") or ""),
                enabled=v.enabled,
                state=v.state,
                version=v.version,
            )
            for v in views
        )
    return tuple(
        KnownServer(
            name=str(d.get("name", "")),
            id=str(d.get("_id", "")),
            address=str((d.get("config") or {}).get("address") or ""),
            enabled=bool((d.get("config") or {}).get("enabled")),
            state="",
            version="",
        )
        for d in sorted(documents, key=lambda d: str(d.get("name", "")))
    )


def coverage_findings(fleet: FleetSpec, known: tuple[KnownServer, ...], agent_server: str) -> list[Finding]:
    """Findings, unless every enabled Server is covered, every name is a Server, and every address works with v2."""
    planned = set(fleet.in_run)
    names = {s.name for s in known}
    found: list[Finding] = []
    for server in known:
        covered = server.name in (*planned, *fleet.leave_behind, *fleet.not_in_run, agent_server)
        current = server.state == "Ok" and server.version == fleet.target
        if server.enabled and not covered and not current:
            found.append(
                _finding(
                    "server-not-covered",
                    Severity.REFUSE,
                    server.name,
                    f"{server.name} ({server.address or 'connects by itself'}) will be unreachable from Core after the "
                    "upgrade: it is not in the fleet file",
                    f'add it as a [[server]], or keep it on v1 on purpose: leave_behind = ["{server.name}"]',
                )
            )
    for name in sorted(planned - names):
        near = get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        found.append(
            _finding(
                "server-unknown",
                Severity.REFUSE,
                name,
                f"Core knows no Server named {name}{hint}",
                "[[server]] name must be the Server's name in Komodo, in the same case",
            )
        )
    found += [
        _finding("left-behind-unknown", Severity.WARN, name, f"leave_behind names {name}, unknown to Core", "")
        for name in sorted(set(fleet.leave_behind) - names)
    ]
    disabled = [s.name for s in known if not s.enabled and s.name in planned]
    found += [
        _finding(
            "server-disabled",
            Severity.WARN,
            name,
            f"{name} is disabled in Komodo: its agent can be upgraded, but Core will not confirm it",
            "enable it in Komodo, or take it out of the fleet file",
        )
        for name in disabled
    ]
    found += _address_findings(fleet, known, agent_server)
    return found


def _address_findings(fleet: FleetSpec, known: tuple[KnownServer, ...], agent_server: str) -> list[Finding]:
    found: list[Finding] = []
    stays = {*fleet.leave_behind, *fleet.not_in_run}
    upgraded = [s for s in known if s.enabled and s.name not in stays]
    for server in upgraded:
        problem = address_problem(server.address) if server.address else ""
        if problem:
            found.append(
                _finding(
                    "address",
                    Severity.REFUSE,
                    server.name,
                    f"the address {server.address} {problem}: v1 works with it, v2's handshake does not",
                    "write it in Komodo in lower case, without slash at the end and without the default port",
                )
            )
        if _behind_proxy(server):
            found.append(
                _finding(
                    "behind-proxy",
                    Severity.WARN,
                    server.name,
                    f"the address {server.address} leads to a web port, which is usually a proxy's: v2's Core opens a "
                    "websocket through it",
                    "let the proxy pass websockets and the Host header unchanged, or write the agent's own port",
                )
            )
    users: dict[str, list[str]] = {}
    for server in upgraded:
        if server.address:
            users.setdefault(agent_of(server.address), []).append(server.name)
    for where, names in users.items():
        if len(names) > 1:
            found.append(
                _finding(
                    "two-servers-one-agent",
                    Severity.REFUSE,
                    names[0],
                    f"{' and '.join(names)} use one agent ({where}): a v2 agent takes one connection per Core only",
                    "disable or delete all but one of them in Komodo (resources move with their Server's name)",
                )
            )
    if agent_server and agent_server in {s.name for s in fleet.servers}:
        found.append(
            _finding(
                "agent-twice",
                Severity.REFUSE,
                agent_server,
                f"{agent_server} is the periphery container of Core's own project, which is upgraded with Core",
                "take it out of the fleet file's servers",
            )
        )
    return found


def _behind_proxy(server: KnownServer) -> bool:
    """A v1 agent that answers on a web port. An agent that v2's Core sees proves that websockets pass."""
    proven = server.state == "Ok" and (version_of(server.version) or (0,)) >= FIRST_V2
    return agent_of(server.address).endswith((":443", ":80")) and not proven


def _finding(code: str, severity: Severity, subject: str, text: str, hint: str) -> Finding:
    return Finding(code=code, severity=severity, subject=subject, text=text, hint=hint)
