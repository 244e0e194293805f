"""Agents that connect to Core by themselves: which one comes as a Server, and whether both sides accept it.

As in v2.3.2:bin/core/src/connection/server.rs `existing_server_handler`: a Server without an address takes the agent
that names it, if its key is the Server's or, where the Server has none, one of Core's `periphery_public_keys`. Without
that an agent gets no answer that it would log. Simplified: whether a proxy forwards a websocket is not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from sandbox import keys
from sandbox.docker.engine import Container, Engine
from sandbox.mongo.store import Document
from sandbox.periphery.agent import Agent, CoreSide


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The Core that agents connect to."""

    engine: Engine
    container: Container
    host_part: str
    """Of KOMODO_HOST: agents may come through a proxy of that name."""
    public_key: str


def take(core: Here, server: Document) -> Agent | None:
    """The agent that is logged in as this Server now, if one dials and is accepted."""
    for agent in core.engine.host.world.dialling:
        if not isinstance(agent, Agent) or not agent.running or agent.name != server["name"]:
            continue
        address = next((a for a in agent.core_addresses if _leads_here(core, agent, a)), "")
        if not address or not _knows(core, server, agent):
            continue
        side = CoreSide(
            server_id=str(server["_id"]),
            host=core.host_part,
            public_key=core.public_key,
            passkey="",
            address=core.engine.host.address,
            url_host=urlsplit(address).netloc,
        )
        if agent.dial(side):
            return agent
    return None


def _leads_here(core: Here, agent: Agent, address: str) -> bool:
    parts = urlsplit(address if "://" in address else f"wss://{address}")
    name = parts.hostname or ""
    host = core.engine.host
    if name in {host.name, host.address, core.host_part}:
        return True
    return agent.with_core and core.engine.resolve(name, core.container.spec.network) is core.container


def _knows(core: Here, server: Document, agent: Agent) -> bool:
    expected = str((server.get("info") or {}).get("public_key") or "")
    if expected:
        return agent.public_key == expected
    env = core.container.environment
    listed = env.get("KOMODO_PERIPHERY_PUBLIC_KEYS") or env.get("KOMODO_PERIPHERY_PUBLIC_KEY", "")
    known = [keys.check_core_key(text, core.container.locate)[0] for text in listed.split(",") if text]
    return agent.public_key in known
