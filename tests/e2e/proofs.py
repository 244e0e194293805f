"""What a scenario looks at when all is over: the machines themselves, never the tool's own word."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.bed import install
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import NEW, OLD
from tests.e2e.person import NAME


def upgraded(bed: Bed, names: list[str] | None = None, version: str = NEW) -> None:
    """Every agent runs v2 with exactly Core's key pinned, proven by its own journal; Core agrees."""
    if names is None:
        bed.wait_ok(version, 30)
    key = core_key(bed)
    for name in names or [s.name for s in bed.servers]:
        assert bed.agent_version(name) == version
        log = bed.agent_log(name)
        assert f"Komodo Periphery version: v{version}" in log
        assert f'core_public_keys: Some(["{key}"])' in log, f"{name}: {log[:2000]}"
        assert "Logged in to Komodo Core" in log
        assert "Authenticating using Passkeys" not in log
        assert "Failed to parse" not in log
        assert bed.show(name, "ActiveState") == "active"
        assert bed.on(name, "systemctl", "is-enabled", "periphery") == "enabled"


def core_key(bed: Bed) -> str:
    """As Core's log tells it; the same at every start."""
    keys = set(re.findall(r"Public Key: (MCow\S+)", bed.core_log()))
    assert len(keys) == 1, keys
    return str(keys.pop())


def once_only(bed: Bed) -> None:
    """No step ran twice: every agent was started once in its new version, and so was Core."""
    for server in bed.servers:
        assert bed.starts(server.name, NEW) == 1, f"{server.name}: {bed.agent_log(server.name, this_run=False)[-3000:]}"
        assert bed.show(server.name, "NRestarts") == "0"
    assert bed.core_log().count(f"Komodo Core version: v{NEW}") == 1
    for name in ("core", *(s.name for s in bed.servers)):
        assert not [job for job in bed.jobs(name, NAME) if ".failed" in job], bed.jobs(name, NAME)


def as_before(bed: Bed, configs: dict[str, str], files: dict[str, str]) -> None:
    """All on v1 again, every file word for word as it was, and v1 Core can read its database."""
    bed.wait_ok(OLD, 120)
    assert bed.configs() == configs
    assert core_files(bed) == files
    for server in bed.servers:
        assert bed.agent_version(server.name) == OLD
        assert f"Komodo Periphery version: v{OLD}" in bed.agent_log(server.name)
    assert len(bed.updates()) > 0


def write_since(bed: Bed) -> None:
    """What a v2 Core writes: something to keep, and an Update of a kind that makes v1's ListUpdates fail."""
    known = {"name": "SINCE", "value": "v2", "description": "", "is_secret": False}
    install.post("write/CreateVariable", known, bed.headers)
    install.post("write/UpdateServerPublicKey", {"server": bed.servers[0].name, "public_key": ""}, bed.headers)
    assert any(u["operation"] == "UpdateServerKey" for u in bed.updates())


def variables(bed: Bed) -> list[str]:
    """Their names, as Core tells them."""
    found: list[dict[str, Any]] = install.post("read/ListVariables", {"limit": 0}, bed.headers)
    return sorted(v["name"] for v in found)


def core_files(bed: Bed) -> dict[str, str]:
    """Core's project, word for word."""
    names = (bed.project.file, "compose.env")
    return {name: bed.on("core", "cat", f"/opt/komodo/{name}") for name in names}
