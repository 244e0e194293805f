"""What a compose file means, read without any of the code under test."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML

_INNERMOST = re.compile(r"\$\{(\w+)(?:(:?[-?+])([^${}]*))?\}|\$(\w+)")


def interpolate(text: str, env: dict[str, str]) -> str:
    """Compose's variables, innermost first."""

    def value(match: re.Match[str]) -> str:
        name, operator, argument = match[1] or match[4], match[2] or "", match[3] or ""
        present = name in env and (env[name] != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            return argument if present else ""
        if present:
            return env[name]
        if operator.endswith("?"):
            raise AssertionError(f"{name} is required")
        return argument

    while (new := _INNERMOST.sub(value, text)) != text:
        text = new
    return text


def load(text: str) -> list[Any]:
    """All documents as plain data, merges applied."""
    return [_plain(d) for d in YAML(typ="rt").load_all(re.sub(r"\t", " ", text.lstrip("\ufeff")))]


def _plain(node: Any) -> Any:
    if hasattr(node, "items"):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    return getattr(node, "value", node)


def komodo_services(text: str, env: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Services whose effective image is one of Komodo's."""
    found = {}
    for document in load(text):
        for name, service in (document or {}).get("services", {}).items():
            image = interpolate(str((service or {}).get("image", "")), env)
            if re.search(r"moghtech/komodo-(core|periphery)|mbecker20/(komodo|periphery)", image):
                found[name] = {**service, "image": image}
    return found


def mounts_keys(service: dict[str, Any], env: dict[str, str]) -> bool:
    """/config/keys, or /config, comes from outside of the container."""
    targets = []
    for mount in service.get("volumes") or []:
        if isinstance(mount, dict):
            targets.append(mount["target"])
        else:
            parts = re.sub(r"^[A-Za-z]:\\", "", interpolate(mount, env)).split(":")
            targets.append(parts[1] if len(parts) > 1 else parts[0])
    return any(t.rstrip("/") in ("/config/keys", "/config") for t in targets)


def rest(text: str, names: list[str]) -> list[Any]:
    """The data without what an edit may change, for comparing before and after."""
    documents = load(text)
    for document in documents:
        for name in names:
            service = (document or {}).get("services", {}).get(name)
            if service is None:
                continue
            service.pop("image", None)
            service.pop("init", None)
            service["volumes"] = [v for v in service.get("volumes") or [] if not _ours(v)]
            _drop_first_server(service)
        for extension in [k for k in document or {} if k.startswith("x-")]:
            document.pop(extension)
        volumes = (document or {}).get("volumes") or {}
        (document or {})["volumes"] = {k: v for k, v in volumes.items() if k != "keys"}
    return documents


def _ours(mount: Any) -> bool:
    return isinstance(mount, str) and mount in ("./keys:/config/keys", "keys:/config/keys")


def _drop_first_server(service: dict[str, Any]) -> None:
    environment = service.get("environment")
    if isinstance(environment, list):
        environment = [e for e in environment if not e.startswith("KOMODO_FIRST_SERVER")]
    elif environment is not None:
        environment = {k: v for k, v in environment.items() if not k.startswith("KOMODO_FIRST_SERVER")}
    service["environment"] = environment or None
