"""What kind of file a text is, and whether it may be edited as text at all."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Literal

from model.errors import EditRefused

FileKind = Literal["compose", "env", "periphery-config", "core-config", "unknown"]

_ENV_LINE = re.compile(r"^[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_.]*[ \t]*=", re.MULTILINE)
_TOML_LINE = re.compile(r"^[ \t]*(?:\[\[?[\w\".-]+\]?\]|[a-z_][\w.]*[ \t]*=)", re.MULTILINE)
_YAML_SERVICES = re.compile(r"^\ufeff?[ \t]*[\"']?services[\"']?[ \t]*:", re.MULTILINE)
_FLOW_SERVICES = re.compile(r"^\ufeff?\s*\{\s*[\"']?\w+[\"']?\s*:")
_PERIPHERY_KEYS = re.compile(
    r"^[ \t]*#?[ \t]*(?:stats_polling_rate|passkeys|core_public_keys?|root_directory|include_disk_mounts"
    r"|core_address(?:es)?|disable_terminals|ssl_enabled|legacy_compose_cli|allowed_ips)[ \t]*=",
    re.MULTILINE,
)
_CORE_KEYS = re.compile(
    r"^[ \t]*(?:database\.|mongo\.|\[database\]|\[mongo\]|first_server|jwt_secret|local_auth|webhook_secret)",
    re.MULTILINE,
)


def kind_of(path: str, text: str) -> FileKind:
    """The kind by name and content together. `unknown` means: leave it alone."""
    name = PurePath(path.replace("\\", "/")).name.lower()
    for backup in (".bak", ".orig", ".old"):
        name = name.split(backup)[0]
    if name.endswith((".yaml", ".yml")):
        return "compose" if _YAML_SERVICES.search(text) or "compose" in name else _config_by_name(name)
    if name.endswith(".json"):
        return "compose" if '"services"' in text else "unknown"
    if name.endswith(".toml"):
        return _toml_kind(name, text)
    if name.endswith(".env") or name.startswith(".env") or name in ("env", "environment"):
        return "env"
    if _YAML_SERVICES.search(text) or (_FLOW_SERVICES.search(text) and "services" in text):
        return "compose"
    if _TOML_LINE.search(text) and (_PERIPHERY_KEYS.search(text) or _CORE_KEYS.search(text)):
        return _toml_kind(name, text)
    return "env" if _ENV_LINE.search(text) and describe(path, text) == "this file" else "unknown"


def _config_by_name(name: str) -> FileKind:
    return "periphery-config" if name.startswith("periphery") else "unknown"


def _toml_kind(name: str, text: str) -> FileKind:
    if "periphery" in name:
        return "periphery-config"
    if name.startswith("core") or _CORE_KEYS.search(text):
        return "core-config"
    return "periphery-config" if _PERIPHERY_KEYS.search(text) else "unknown"


def is_sops(text: str) -> bool:
    """Whether sops encrypted the file, or a value in it."""
    if re.search(r"ENC\[[A-Z0-9_]+,", text):
        return True
    name = re.search(r"^[ \t]*[\"']?sops(?:_mac|_version|_lastmodified)?[\"']?[ \t]*[=:]", text, re.MULTILINE)
    mac = re.search(r"^(?:sops_mac|[ \t]+[\"']?mac[\"']?[ \t]*[:=])", text, re.MULTILINE)
    return name is not None and ("ENC[" in text or mac is not None)


def describe(path: str, text: str) -> str:
    """Words for a file of a kind that is not edited."""
    name = PurePath(path.replace("\\", "/")).name.lower()
    if name.endswith(".container") or re.search(r"^\[Container\]", text, re.MULTILINE):
        return "a Quadlet"
    if re.search(r"^apiVersion:", text, re.MULTILINE) and re.search(r"^kind:", text, re.MULTILINE):
        return "a Kubernetes manifest"
    if re.search(r"^FROM[ \t]", text, re.MULTILINE):
        return "a Dockerfile"
    if re.search(r"docker[ \t]+(?:run|create|service|pull)\b", text):
        return "a script"
    if name.endswith(".nix"):
        return "a Nix file"
    if re.search(r"^[ \t]*services:[ \t]*\r?\n[ \t]*-", text, re.MULTILINE):
        return "a file whose services are a list"
    if "{{" in text or "{%" in text:
        return "a template"
    return "a YAML file" if name.endswith((".yaml", ".yml")) else "this file"


def template_line(text: str) -> int:
    """The first line with `{{ … }}` outside of quotes; 0: there is none."""
    for number, line in enumerate(text.splitlines(), 1):
        if "{{" in re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", line):
            return number
    return 0


def refuse_unreadable(text: str, *, snippet: str) -> None:
    """Raise EditRefused for encrypted files, templates and odd line breaks: the machine reads something else."""
    if is_sops(text):
        raise EditRefused(
            "this file is encrypted by sops: any edit from outside breaks its checksum (MAC), and sops refuses it then",
            snippet=snippet,
            hint="open it with `sops edit FILE` and make these changes there",
        )
    if text.lstrip("\ufeff").startswith("$ANSIBLE_VAULT;"):
        raise EditRefused(
            "this file is encrypted by ansible-vault",
            snippet=snippet,
            hint="make these changes with `ansible-vault edit`",
        )
    template = re.search(r"^[ \t]*\{[%#]|\{%.*%\}", text, re.MULTILINE)
    if template:
        line = text.count("\n", 0, template.start()) + 1
        raise EditRefused(
            f"line {line} is a template ({{% … %}}): another tool renders this file and would undo an edit",
            snippet=snippet,
            hint="make these changes in the template and render it again",
        )
    if "\0" in text or re.search(r"\r(?!\n)", text):
        raise EditRefused(
            "this file has a NUL byte, or a carriage return without line feed",
            snippet=snippet,
            hint="save it as UTF-8 text with LF or CRLF line ends, then try again",
        )
