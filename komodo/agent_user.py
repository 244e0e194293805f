"""An agent that does not run as root has to make its key in `<root_directory>/keys`, which v1 never needed.

v2 ends where it cannot: "Failed to write private key pem to …" (v2.3.2:bin/periphery/src/state.rs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from komodo.agent_survey import ConfigFile, Survey, one
from komodo.periphery_config import inspect
from komodo.releases import version_said
from komodo.unit import Unit
from model.facts import Finding, Severity

ROOT_DIRECTORY = "/etc/komodo"


def keys_folder(
    unit: Unit, settings: Mapping[str, str], configs: Sequence[ConfigFile], said: Mapping[str, Sequence[str]]
) -> str:
    """Where v2 will want to write a key for the first time; empty for root, and where a v2 agent has written it."""
    if unit.user in ("", "root", "0") or not version_said(one(said, "binary_version")).startswith("1."):
        return ""
    named = [inspect(c.text).root_directory for c in configs if c.text is not None]
    root = settings.get("PERIPHERY_ROOT_DIRECTORY") or next((n for n in reversed(named) if n != ROOT_DIRECTORY), "")
    return f"{(root or ROOT_DIRECTORY).rstrip('/')}/keys"


def findings(survey: Survey) -> Iterator[Finding]:
    """What preflight says of it. `survey.not_writable`: the place where its user may not write."""
    if not survey.not_writable:
        return
    user, folder = survey.unit.user, survey.keys_folder
    yield Finding(
        code="keys-not-writable",
        severity=Severity.REFUSE,
        subject=survey.server.name,
        text=f"its agent runs as {user}, who cannot write to {survey.not_writable}: v2 keeps its key in {folder} and "
        "does not start without",
        cure=f"sudo install -d -m 700 -o {user} {folder}",
    )
