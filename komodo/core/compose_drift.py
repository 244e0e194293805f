"""Compares a service as compose resolves it now with the settings that its container was started with.

`~` and variables that no file sets come from the shell and the home of the user who runs compose. The upgrade runs as
another user: with the same files Core would start without its settings, or on empty folders. Other differences are
edits that were never applied with `up -d`, and that the upgrade would apply.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from komodo.core.containers import Container, refuse, warn
from model.facts import Finding

_OF_THE_IMAGE = frozenset(
    (
        "PATH", "DENO_DIR", "KOMODO_CLI_CONFIG_PATHS", "KOMODO_CLI_CONFIG_KEYWORDS", "PERIPHERY_CONFIG_PATHS",
        "PERIPHERY_PRIVATE_KEY",
    )
)  # fmt: skip
"""Set by Komodo's images, so they stay where a service only passes them through (v2.3.2:bin/*/aio.Dockerfile)."""


def resolved_services(output: str) -> Mapping[str, Mapping[str, Any]]:
    """Services by name from `config --format json`; volumes of a service with the names that docker knows."""
    try:
        data = json.loads(output)
        volumes = {k: (v or {}).get("name") or k for k, v in (data.get("volumes") or {}).items()}
        services = {str(name): dict(body) for name, body in (data.get("services") or {}).items()}
    except (ValueError, AttributeError, TypeError):
        return {}
    for body in services.values():
        body["volumes"] = [
            {**v, "source": volumes.get(v.get("source"), v.get("source"))} if v.get("type") == "volume" else v
            for v in body.get("volumes") or []
            if isinstance(v, dict)
        ]
    return services


def findings(container: Container, service: Mapping[str, Any]) -> list[Finding]:
    """Differences if this service is started again from the same files. They name variables, never their values."""
    moved = [f"{target} from {now} instead of {was}" for target, was, now in _moved(container, service)]
    lost, changed = _environment(container, service)
    found = []
    if moved or lost:
        what = "; ".join([*moved, *([f"without {', '.join(lost)}"] if lost else [])])
        found.append(
            refuse(
                "shell-settings",
                f"started again from its files, {container.name} would run with {what}: these come from a `~` or a "
                "variable of the shell that started it, or the files were edited since",
                "write whole paths into the compose file and the variables into its env file; or `up -d` once, if the "
                "files are right",
            )
        )
    if changed:
        found.append(
            warn(
                "not-brought-up",
                f"{container.name} runs with other values than its files set for: {', '.join(changed)}",
                "the upgrade starts it with the values of its files: run `up -d` before, to check that they are right",
            )
        )
    return found


def _moved(container: Container, service: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(target, source of the container, source in the files) where the two are different."""
    found = []
    for volume in service.get("volumes") or []:
        target, now = str(volume.get("target", "")), str(volume.get("source") or "")
        mount = container.mount_at(target.rstrip("/"))
        if mount is None or not now:
            continue
        was = mount.name if volume.get("type") == "volume" and mount.name else mount.source
        same = posixpath.normpath(was) == posixpath.normpath(now)
        if not same and (volume.get("type") == "volume") == (mount.kind == "volume"):
            found.append((target, was, now))
    return found


def _environment(container: Container, service: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Variables that would be empty, and those that would be different."""
    environment = service.get("environment")
    if not isinstance(environment, dict):
        return [], []
    lost, changed = [], []
    for name, value in sorted(environment.items()):
        was = container.env.get(name, "")
        if value is None and name in _OF_THE_IMAGE:
            continue
        now = "" if value is None else str(value).replace("$$", "$")
        if was and not now:
            lost.append(name)
        elif was != now:
            changed.append(name)
    return lost, changed
