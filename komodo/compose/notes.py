"""What an operator should know before Komodo's services start in v2, and what no edit can decide."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ruamel.yaml.nodes import MappingNode, ScalarNode

from komodo.compose.environment import settings
from komodo.compose.interpolation import names, resolve
from komodo.compose.mounts import KEYS
from komodo.compose.services import Found, Service
from komodo.compose.yaml_nodes import effective, walk

_RENAMED = {
    "KOMODO_DB_USERNAME": "KOMODO_DATABASE_USERNAME",
    "KOMODO_DB_PASSWORD": "KOMODO_DATABASE_PASSWORD",
    "DB_USERNAME": "KOMODO_DATABASE_USERNAME",
    "DB_PASSWORD": "KOMODO_DATABASE_PASSWORD",
    "PASSKEY": "KOMODO_PASSKEY",
}
"""Variables of Komodo's own compose files before v2 (v1.15.0 to v1.19.5:compose/compose.env) and what v2's read."""
_SWARM_KEYS = ("mode", "replicas", "placement", "update_config", "endpoint_mode")


def notes_of(
    found: Found, env: Mapping[str, str], given: Mapping[str, Mapping[str, str]], v1: Collection[str]
) -> Iterator[str]:
    """Sentences, by service. `env` fills in `${…}`, `given` is what `env_file:` gives to each service.

    `v1`: the services that run v1 today.
    """
    yield from found.own_builds
    for service in found.services:
        values = {**given.get(service.name, {}), **{s.name: resolve(s.value, env) for s in settings(service.node)}}
        yield from _user(service, env)
        yield from _swarm(service)
        yield from (
            _core(service, values) if service.kind == "core" else _agent(service, values, from_v1=service.name in v1)
        )
    yield from _renamed(found, env)


def _user(service: Service, env: Mapping[str, str]) -> Iterator[str]:
    user = _text(service, "user", env)
    if user and user.split(":")[0] not in ("0", "root"):
        yield f"{service.name}: it runs as user {user}, which has to own the folder at {KEYS}"


def _swarm(service: Service) -> Iterator[str]:
    deploy = effective(service.node, "deploy")
    if deploy and any(effective(deploy[2], key) for key in _SWARM_KEYS):
        yield (
            f"{service.name}: in a Swarm a relative folder is that of the node on which it runs: "
            "keep its keys on a volume or path that every node has"
        )


def _core(service: Service, values: Mapping[str, str]) -> Iterator[str]:
    host = values.get("KOMODO_HOST", "").strip()
    if host and "://" not in host:
        yield f"{service.name}: KOMODO_HOST is {host}, without https://: v2 then connects to no server at all"


def _agent(service: Service, values: Mapping[str, str], *, from_v1: bool) -> Iterator[str]:
    address = next((n for n in ("PERIPHERY_CORE_ADDRESSES", "PERIPHERY_CORE_ADDRESS") if values.get(n)), "")
    if address and from_v1:
        yield (
            f"{service.name}: with {address} a v2 agent connects to Core and no longer listens: "
            "its Server in Komodo must have no address, or remove this variable"
        )
    if values.get("PERIPHERY_PASSKEYS", "set") == "" and not values.get("PERIPHERY_CORE_PUBLIC_KEYS"):
        yield f"{service.name}: PERIPHERY_PASSKEYS is empty: v2 then accepts no passkey, so pin Core's key"


def _renamed(found: Found, env: Mapping[str, str]) -> Iterator[str]:
    read: set[str] = set()
    for service in found.services:
        read |= {n for node in walk(service.node) if isinstance(node, ScalarNode) for n in names(node.value)}
    for old, new in _RENAMED.items():
        if new in read and new not in env and old in env:
            yield f"the compose file reads {new}, the env file sets {old}: what is read is empty; add {new} there"
        elif old in read and old not in env and new in env:
            yield f"the compose file reads {old}, the env file sets {new}: what is read is empty; add {old} there"


def _text(service: Service, key: str, env: Mapping[str, str]) -> str:
    found = effective(service.node, key) if isinstance(service.node, MappingNode) else None
    return resolve(found[2].value, env).strip() if found and isinstance(found[2], ScalarNode) else ""
