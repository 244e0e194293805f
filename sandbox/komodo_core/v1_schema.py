"""Documents that make a list of v1.19.5 fail, with its words, as seen after v2.3.2 had written them."""

from __future__ import annotations

from typing import Any

from sandbox.mongo.store import Document, dig

_EXECUTIONS = frozenset({"RotateAllServerKeys", "RotateCoreKeys", "CancelAction", "CancelProcedure"})
"""Some of those that v2 alone has."""


def problem(collection: str, document: Document) -> str:
    """Why v1 cannot read it; empty: it can."""
    config: dict[str, Any] = document.get("config") or {}
    if collection == "Stack" and any(isinstance(file, dict) for file in config.get("additional_env_files") or ()):
        return "invalid type: map, expected a string"
    if collection == "Procedure":
        stages = config.get("stages") or ()
        kinds = [str(dig(e, "execution.type")) for stage in stages for e in stage.get("executions") or ()]
        unknown = next((kind for kind in kinds if kind in _EXECUTIONS), "")
        return f"unknown variant `{unknown}`, expected one of `None`, `RunAction`, …" if unknown else ""
    if collection == "Alerter" and "SwarmUnhealthy" in (config.get("alert_types") or ()):
        return "unknown variant `SwarmUnhealthy`, expected one of `None`, `Test`, `ServerUnreachable`, …"
    targets = [*(config.get("resources") or ()), *(config.get("except_resources") or ())]
    targets += [u.get("target") or {} for u in dig(document, "info.resource_updates") or ()]
    if collection in {"Alerter", "ResourceSync"} and any(t.get("type") == "Swarm" for t in targets):
        return "unknown variant `Swarm`, expected one of `System`, `Server`, `Stack`, …"
    return ""
