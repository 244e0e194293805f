"""A running v2 container whose key pair lies inside of it, where no mount is.

Re-creating the container makes another pair. Agents that pinned Core's key refuse Core then, and a Core that has an
agent's key refuses the agent (v2.3.2:bin/core/src/config.rs, bin/periphery/src/state.rs).
"""

from __future__ import annotations

from komodo.core.containers import Container, info, refuse
from komodo.public_key import from_pem
from model.errors import KeyRejected
from model.facts import Finding

KEYS = "/config/keys"
VARIABLES = {"core": "KOMODO_PRIVATE_KEY", "periphery": "PERIPHERY_PRIVATE_KEY"}
"""By the name of the pair's files."""


def is_inside(container: Container, name: str, version: str) -> bool:
    """Whether the pair `name` (core | periphery) may lie inside; a config file that names a key elsewhere is not read.

    `version`: of the program that runs in it; empty: unknown.
    """
    variable = VARIABLES[name]
    private = container.setting(variable) or container.setting(f"{variable}_FILE")
    if version.startswith("1.") or not (version or private):
        return False  # v2's agent image sets the variable, so it tells versions apart
    elsewhere = private and not private.removeprefix("file:").startswith(f"{KEYS}/")
    return not (elsewhere or container.host_path(f"{KEYS}/{name}.key"))


def pair_finding(container: Container, name: str, key: str, folder: str, there: str) -> Finding:
    """That the pair inside is copied to `folder`, or why it cannot be.

    `key`: its public part, as the running program says. `there`: the public part of the pair that is in the folder, in
    PEM; "?" where it is not known; empty where there is none.
    """
    if not folder:
        return refuse(
            "key-pair-inside",
            f"the key pair of {container.name} lies inside of the container, and its files mount no folder of the host "
            f"at {KEYS}: the upgrade would make another pair",
            f'mount a folder, "./keys:{KEYS}", and no volume ([core] keys_mount = "bind"): the pair is copied there',
        )
    if there and not _same(there, key):
        return refuse(
            "other-key-pair",
            f"the key pair of {container.name} lies inside of the container, and {folder}/{name}.key is another one, "
            "or cannot be compared with it",
            f"whose is it? Move {name}.key and {name}.pub out of {folder}: the pair of the container is copied there",
        )
    return info(
        "key-pair-inside",
        f"the key pair of {container.name} lies inside of the container: the upgrade copies it to {folder}, and a "
        "rollback copies it into the container again",
    )


def _same(pem: str, key: str) -> bool:
    try:
        return bool(key) and from_pem(pem) == key
    except KeyRejected:
        return False
