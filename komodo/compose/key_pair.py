"""The key pair of a v2 service that lies inside its container: re-creating the container makes another one.

Core's agents pin its public key, and Core may pin that of an agent, so both refuse each other then. v2 reads the pair
from /config/keys (v2.3.2:bin/core/src/config.rs, bin/periphery/*.Dockerfile) unless a variable names another place.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from ruamel.yaml.nodes import ScalarNode, SequenceNode

from komodo.compose.environment import settings
from komodo.compose.interpolation import resolve
from komodo.compose.mounts import KEYS, mounts
from komodo.compose.services import Service
from komodo.compose.yaml_nodes import effective
from model.errors import EditRefused

_VARIABLES = {"core": "KOMODO_PRIVATE_KEY", "periphery": "PERIPHERY_PRIVATE_KEY"}


def refuse_lost_key(service: Service, given: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Raise EditRefused where a variable names a key file in a place that no mount covers.

    `given`: what `env_file:` gives to the service; `env`: what Compose fills in.
    """
    path = posixpath.normpath(_private_key(service, given, env).removeprefix("file:"))
    if not path.startswith("/") or path.startswith(f"{KEYS}/"):
        return
    volumes = service.everywhere("volumes")
    readable = list(mounts(volumes, env))
    kept = [m.target.rstrip("/") for m in readable if m.keeps]
    unknown = len(readable) < sum(len(v.value) for v in volumes if isinstance(v, SequenceNode))
    if unknown or path.startswith(("/run/", *(f"{target}/" for target in kept))) or path in kept:
        return
    copy = _copy_out(service, path, f"./keys/{service.kind}.key")
    raise EditRefused(
        f"{service.name} runs v2 with its private key in {path}, which no volume covers: the upgrade re-creates the "
        "container, and the key pair is lost",
        snippet=_snippet(service),
        hint=f"while the old container exists, run: mkdir -p keys && {copy} ; take {_VARIABLES[service.kind]} out, add "
        "the mount below, `up -d` once, then try again",
    )


def refuse_new_pair(service: Service, given: Mapping[str, str], env: Mapping[str, str], source: str) -> str:
    """Raise EditRefused where a mount of `source` at /config/keys gives a v2 service another pair than it has.

    Returns a note where that matters only if Core has the agent's key, else an empty string.
    """
    own = _private_key(service, given, env)
    if own and not own.startswith((f"file:{KEYS}", KEYS)):
        return ""
    copy = _copy_out(service, KEYS, source if "/" in source else "./keys")
    lost = "every agent that pinned Core's key refuses Core then"
    if service.kind == "periphery":
        lost = "a Core that has this agent's key refuses it then"
        values = _values(service, given, env)
        if not any(values.get(n) for n in ("PERIPHERY_CORE_ADDRESS", "PERIPHERY_CORE_ADDRESSES")):
            return (
                f"{service.name}: its key pair is inside of the container and will be a new one: if the Server in "
                f"Komodo has a public key, run first: {copy}"
            )
    raise EditRefused(
        f"{service.name} runs v2 without a mount at {KEYS}: its key pair is inside of the container, a mount gives it "
        f"a new one, and {lost}",
        snippet=_snippet(service),
        hint=f"while the old container exists, run: {copy} ; add the mount below, `up -d` once, then try again",
    )


def _values(service: Service, given: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    return {**given, **{s.name: resolve(s.value, env) for s in settings(service.node)}}


def _private_key(service: Service, given: Mapping[str, str], env: Mapping[str, str]) -> str:
    """Where the service is configured to have its private key; empty: in the default place below /config/keys."""
    name = _VARIABLES[service.kind]
    return next((v for n, v in _values(service, given, env).items() if n in (name, f"{name}_FILE")), "")


def _copy_out(service: Service, inside: str, folder: str) -> str:
    """The command that copies something out of the service's container."""
    name = effective(service.node, "container_name")
    literal = name is not None and isinstance(name[2], ScalarNode) and "$" not in name[2].value
    container = name[2].value if name and literal else f'"$(docker compose ps -q {service.name})"'
    return f"docker cp {container}:{inside} {folder}"


def _snippet(service: Service) -> str:
    return f"services:\n  {service.name}:\n    volumes:\n      - ./keys:{KEYS}"
