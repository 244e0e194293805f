"""Proofs that are read from the machines, never from the output of the tool."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.bed import install
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.operator import NAME

KEY_FILE = "/etc/komodo/keys/core.pub"
"""Where an agent keeps Core's key, as Komodo writes it."""


def upgraded(bed: Bed, names: list[str] | None = None, version: str = NEW) -> None:
    """Assert from the journals that every agent runs the version with exactly Core's key, and that Core agrees."""
    if names is None:
        bed.wait_ok(version, 30)
    key = core_key(bed)
    for name in names or [s.name for s in bed.servers]:
        assert bed.agent_version(name) == version
        log = bed.agent_log(name)
        assert f"Komodo Periphery version: v{version}" in log
        assert f'core_public_keys: Some(["file:{KEY_FILE}"])' in log, f"{name}: {log[:2000]}"
        assert key in bed.on(name, "cat", KEY_FILE)
        assert "Logged in to Komodo Core" in log
        assert "Authenticating using Passkeys" not in log
        assert "Failed to parse" not in log
        assert bed.show(name, "ActiveState") == "active"
        assert bed.on(name, "systemctl", "is-enabled", "periphery") == "enabled"


def core_key(bed: Bed) -> str:
    """Core's public key from its log, which must be the same at every start."""
    keys = set(re.findall(r"Public Key: (MCow\S+)", bed.core_log()))
    assert len(keys) == 1, keys
    return str(keys.pop())


def once_only(bed: Bed) -> None:
    """Assert that no step ran twice: Core and every agent were started once in the new version."""
    for server in bed.servers:
        assert bed.starts(server.name, NEW) == 1, f"{server.name}: {bed.agent_log(server.name, this_run=False)[-3000:]}"
        assert bed.show(server.name, "NRestarts") == "0"
    assert bed.core_log().count(f"Komodo Core version: v{NEW}") == 1
    for name in ("core", *(s.name for s in bed.servers)):
        assert not [job for job in bed.jobs(name, NAME) if ".failed" in job], bed.jobs(name, NAME)


def as_before(bed: Bed, configs: dict[str, str], files: dict[str, str]) -> None:
    """Assert that v1 runs everywhere with unchanged files, and that v1 Core can read its database."""
    bed.wait_ok(OLD, 120)
    assert bed.configs() == configs
    assert core_files(bed) == files
    for server in bed.servers:
        assert bed.agent_version(server.name) == OLD
        assert f"Komodo Periphery version: v{OLD}" in bed.agent_log(server.name)
    assert len(bed.updates()) > 0


def write_since(bed: Bed) -> None:
    """Write with v2 Core: a variable to keep, and an Update of an operation that breaks v1's ListUpdates."""
    known = {"name": "SINCE", "value": "v2", "description": "", "is_secret": False}
    install.post("write/CreateVariable", known, bed.headers)
    install.post("write/UpdateServerPublicKey", {"server": bed.servers[0].name, "public_key": ""}, bed.headers)
    assert any(u["operation"] == "UpdateServerKey" for u in bed.updates())


def variables(bed: Bed) -> list[str]:
    """The names of the variables that Core lists."""
    found: list[dict[str, Any]] = install.post("read/ListVariables", {"limit": 0}, bed.headers)
    return sorted(v["name"] for v in found)


def core_files(bed: Bed) -> dict[str, str]:
    """The content of the files of Core's project."""
    names = (bed.project.file, "compose.env")
    return {name: bed.on("core", "cat", f"/opt/komodo/{name}") for name in names}
