"""How an agent reads its configuration: files merged, environment over files - and a file that does not parse skipped.

The loader's warning prints the whole file, secrets included, and the agent goes on with defaults: it accepts any Core
(v1.19.5:lib/config/src/load.rs; seen on v1.19.5 and v2.3.2). Two spellings of one setting, or a list where a secret's
text belongs, make it panic (v2.3.2:bin/periphery/src/config.rs).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.periphery.log import HIDDEN, TIMES, debug, panic

PLACE = "bin/periphery/src/config.rs"
_ALIASES = {
    "core_public_key": "core_public_keys",
    "core_address": "core_addresses",
    "disable_container_exec": "disable_container_terminals",
}
_LISTS = ("passkeys", "core_public_keys", "core_addresses", "allowed_ips", "include_disk_mounts", "exclude_disk_mounts")
_LOGGING = {"level", "stdio", "pretty", "location", "ansi", "timestamps", "otlp_endpoint",
            "opentelemetry_service_name", "opentelemetry_scope_name"}  # fmt: skip


@dataclass(slots=True)
class AgentConfig:
    """The settings in force, and what was said while reading them."""

    values: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    panicked: bool = False

    def get(self, key: str, default: Any = None) -> Any:
        """A setting."""
        return self.values.get(key, default)

    @property
    def core_public_keys(self) -> list[str] | None:
        """None: not set. Empty: any Core is accepted."""
        found: list[str] | None = self.values.get("core_public_keys")
        return found

    @property
    def passkeys(self) -> list[str] | None:
        """None: not set."""
        found: list[str] | None = self.values.get("passkeys")
        return found

    @property
    def port(self) -> int:
        """Of the agent's server."""
        return int(self.values.get("port", 8120))

    @property
    def ansi(self) -> bool:
        """Colours in the log."""
        return bool(self.values.get("logging", {}).get("ansi", True))


def load(
    major: int, paths: list[str], env: Mapping[str, str], locate: Callable[[str], Path], *, ignore_files: bool = False
) -> AgentConfig:
    """Read everything. `paths` as on the command line or in the environment."""
    config = AgentConfig()
    upper = {k.upper(): v for k, v in env.items()}
    if "PERIPHERY_CONFIG_PATH" in upper and "PERIPHERY_CONFIG_PATHS" in upper:
        message = "failed to parse periphery environment\n\nCaused by:\n    duplicate field `periphery_config_paths`"
        config.said, config.panicked = panic(f"{PLACE}:24:6", message), True
        return config
    merged: dict[str, Any] = {}
    for named in [] if ignore_files else paths:
        for path in _files(named, locate):
            _merge(merged, _read(path, locate, config, env))
    if major >= 2:
        problem = _problem(merged)
        if problem:
            text = f"failed at parsing config from paths: ParseFinalJson {{ e: Error({debug(problem)}, line: 1,"
            config.said += panic(f"{PLACE}:69:8", f"{text} column: {len(json.dumps(merged))}) }}", thread=19373)
            config.panicked = True
            return config
    for key, value in merged.items():
        config.values[_ALIASES.get(key, key)] = value
    for name in _LISTS:
        value = config.values.get(name)
        if isinstance(value, str):  # `parse_string_list`: commas or lines, trimmed, # comments dropped
            parts = [p.strip() for p in re.split(r"[,\n]", value)]
            config.values[name] = [p for p in parts if p and not p.startswith("#")]
    _environment(config, upper)
    return config


def _files(named: str, locate: Callable[[str], Path]) -> list[str]:
    """A folder stands for its files with the usual names, sorted, without links (v1.19.5:lib/config/src/load.rs)."""
    place = locate(named)
    if not place.is_dir():
        return [named]
    files = (file for file in sorted(place.glob("*config.*")) if file.is_file() and not file.is_symlink())
    return [f"{named.rstrip('/')}/{file.name}" for file in files]


def _read(path: str, locate: Callable[[str], Path], config: AgentConfig, env: Mapping[str, str]) -> dict[str, Any]:
    file = locate(path)
    if not file.is_file():
        return {}  # silently skipped
    if file.suffix != ".toml":
        config.said.append(f"WARN: Unsupported file type at {path}")
        return {}
    text = file.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
    filled = re.sub(r"\$\{(\w+)\}", lambda m: env.get(m.group(1), ""), text)
    try:
        return tomllib.loads(filled.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        message, start, end = _diagnose(filled, str(error))
        config.said.append(
            f"WARN: Failed to parse toml file at {path} | Error {{ message: {debug(message)},"
            f" input: Some({debug(filled)}), keys: [], span: Some({start}..{end}) }}"
        )
        return {}


def _diagnose(text: str, error: str) -> tuple[str, int, int]:
    """The Rust parser's message and span. Simplified: only the duplicate key is reported word for word."""
    place = re.search(r"at line (\d+), column (\d+)", error)
    lines = text.splitlines(keepends=True)
    number = int(place.group(1)) if place else len(lines)
    if "overwrite" in error or "twice" in error or "declare" in error:
        for row in range(min(number, len(lines)) - 1, -1, -1):
            key = re.match(r"\s*([\w.\"-]+)\s*=", lines[row])
            if key:
                start = len("".join(lines[:row]).encode()) + len(lines[row][: key.start(1)].encode())
                return "duplicate key", start, start + len(key.group(1).encode())
    row = min(max(number, 1), max(len(lines), 1)) - 1
    start = len("".join(lines[:row]).encode())
    bare = re.match(r"[^=]*=\s*([A-Za-z]\w*)", lines[row]) if lines else None
    if bare:
        begin = start + len(lines[row][: bare.start(1)].encode())
        return "string values must be quoted, expected literal string", begin, begin + len(bare.group(1))
    return "invalid value", start, start + len((lines[row] if lines else "").rstrip("\n").encode())


def _merge(base: dict[str, Any], more: dict[str, Any]) -> None:
    """Objects merged, arrays extended, the rest replaced."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif isinstance(value, list) and isinstance(base.get(key), list):
            base[key] = base[key] + value
        else:
            base[key] = value


def _problem(merged: dict[str, Any]) -> str:
    for old, new in _ALIASES.items():
        if old in merged and new in merged:
            return f"duplicate field `{new}`"
    for value in merged.get("secrets", {}).values():
        if not isinstance(value, str):
            kind = {list: "sequence", dict: "map", bool: f"boolean `{str(value).lower()}`"}.get(type(value))
            return f"invalid type: {kind or f'integer `{value}`'}, expected a string"
    return ""


def _environment(config: AgentConfig, env: Mapping[str, str]) -> None:
    for name, text in env.items():
        if not name.startswith("PERIPHERY_"):
            continue
        key = name.removeprefix("PERIPHERY_").lower()
        key = _ALIASES.get(key, key)
        if key.startswith("logging_") and key.removeprefix("logging_") in _LOGGING:
            logging = dict(config.values.get("logging", {}))
            logging[key.removeprefix("logging_")] = _plain(text)
            config.values["logging"] = logging
        elif key in _LISTS:  # split, not trimmed
            config.values[key] = text.split(",") if text else []
        elif key not in {"config_paths", "config_path", "secrets"}:
            config.values[key] = _plain(text)


def _plain(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), text)


def render(config: AgentConfig, version: str) -> str:
    """The `PeripheryConfig {…}` of the start-up log, secrets hidden."""
    major, minor = (int(n) for n in version.split(".")[:2])
    pairs = _pairs_v1(config) if major == 1 else _pairs_v2(config, minor)
    return "PeripheryConfig { " + ", ".join(f"{k}: {v}" for k, v in pairs) + " }"


def _some(value: Any) -> str:
    return "None" if value is None else f"Some({debug(value)})"


def _hidden(values: list[str] | None) -> list[str] | None:
    return None if values is None else [HIDDEN for _ in values]


def _forgiving(values: Any) -> str:
    return f"ForgivingVec({debug(values or [])})"


def _time(config: AgentConfig, key: str, default: str) -> str:
    return TIMES.get(str(config.get(key, default)), "FiveSeconds")


def _providers(config: AgentConfig, *keys: str) -> str:
    shown = []
    for key in keys:
        for entry in config.get(key) or []:
            accounts = ", ".join(
                f"ProviderAccount {{ username: {debug(a.get('username', ''))}, token: {debug(HIDDEN)} }}"
                for a in entry.get("accounts", [])
            )
            domain, https = debug(entry.get("domain", "")), debug(entry.get("https", True))
            if key.startswith("git"):
                shown.append(f"GitProvider {{ domain: {domain}, https: {https}, accounts: [{accounts}] }}")
            else:
                organizations = debug(entry.get("organizations", []))
                shown.append(
                    f"DockerRegistry {{ domain: {domain}, accounts: [{accounts}], organizations: {organizations} }}"
                )
    return f"ForgivingVec([{', '.join(shown)}])"


def _logging(config: AgentConfig, *, major: int, minor: int) -> str:
    found = config.get("logging") or {}
    pairs = [
        ("level", str(found.get("level", "info")).capitalize()),
        ("stdio", str(found.get("stdio", "standard")).capitalize()),
        ("pretty", debug(found.get("pretty", False))),
        ("location", debug(found.get("location", major == 1))),
    ]
    if major >= 2:
        pairs.append(("ansi", debug(found.get("ansi", True))))
        if minor >= 3:
            pairs.append(("timestamps", debug(found.get("timestamps", True))))
    pairs.append(("otlp_endpoint", debug(found.get("otlp_endpoint", ""))))
    pairs.append(("opentelemetry_service_name", debug(found.get("opentelemetry_service_name", "Komodo"))))
    if major >= 2:
        pairs.append(("opentelemetry_scope_name", debug(found.get("opentelemetry_scope_name", "Komodo"))))
    return "LogConfig { " + ", ".join(f"{k}: {v}" for k, v in pairs) + " }"


def _pairs_v1(config: AgentConfig) -> list[tuple[str, str]]:
    return [
        ("port", debug(config.port)),
        ("bind_ip", debug(config.get("bind_ip", "[::]"))),
        ("root_directory", debug(config.get("root_directory", "/etc/komodo"))),
        *((key, _some(config.get(key))) for key in ("repo_dir", "stack_dir", "build_dir")),
        ("disable_terminals", debug(config.get("disable_terminals", False))),
        ("disable_container_exec", debug(config.get("disable_container_terminals", False))),
        ("stats_polling_rate", _time(config, "stats_polling_rate", "5-sec")),
        ("container_stats_polling_rate", _time(config, "container_stats_polling_rate", "30-sec")),
        ("legacy_compose_cli", debug(config.get("legacy_compose_cli", False))),
        ("logging", _logging(config, major=1, minor=19)),
        ("pretty_startup_config", debug(config.get("pretty_startup_config", False))),
        ("allowed_ips", _forgiving(config.get("allowed_ips"))),
        ("passkeys", debug(_hidden(config.passkeys) or [])),
        ("include_disk_mounts", _forgiving(config.get("include_disk_mounts"))),
        ("exclude_disk_mounts", _forgiving(config.get("exclude_disk_mounts"))),
        ("secrets", debug(dict.fromkeys(config.get("secrets") or {}, HIDDEN))),
        ("git_providers", _providers(config, "git_provider", "git_providers")),
        ("docker_registries", _providers(config, "docker_registry", "docker_registries")),
        ("ssl_enabled", debug(config.get("ssl_enabled", True))),
        ("ssl_key_file", _some(config.get("ssl_key_file"))),
        ("ssl_cert_file", _some(config.get("ssl_cert_file"))),
    ]


def _pairs_v2(config: AgentConfig, minor: int) -> list[tuple[str, str]]:
    registries = ("image_registry", "image_registries") if minor >= 3 else ()
    return [
        ("private_key", "None" if config.get("private_key") is None else _some(_shown_key(config.get("private_key")))),
        ("onboarding_key", "None" if config.get("onboarding_key") is None else _some(HIDDEN)),
        ("core_public_keys", _some(config.core_public_keys)),
        ("passkeys", _some(_hidden(config.passkeys))),
        ("core_addresses", debug(config.get("core_addresses") or [])),
        ("core_tls_insecure_skip_verify", debug(config.get("core_tls_insecure_skip_verify", False))),
        ("connect_as", debug(config.get("connect_as", ""))),
        ("server_enabled", _some(config.get("server_enabled"))),
        ("port", debug(config.port)),
        ("bind_ip", debug(config.get("bind_ip", "[::]"))),
        ("allowed_ips", _forgiving(config.get("allowed_ips"))),
        ("ssl_enabled", debug(config.get("ssl_enabled", True))),
        ("ssl_key_file", _some(config.get("ssl_key_file"))),
        ("ssl_cert_file", _some(config.get("ssl_cert_file"))),
        ("root_directory", debug(config.get("root_directory", "/etc/komodo"))),
        *((key, _some(config.get(key))) for key in ("repo_dir", "stack_dir", "build_dir")),
        ("default_terminal_command", debug(config.get("default_terminal_command", "bash"))),
        ("disable_terminals", debug(config.get("disable_terminals", False))),
        ("disable_container_terminals", debug(config.get("disable_container_terminals", False))),
        ("stats_polling_rate", _time(config, "stats_polling_rate", "5-sec")),
        ("container_stats_polling_rate", _time(config, "container_stats_polling_rate", "30-sec")),
        ("legacy_compose_cli", debug(config.get("legacy_compose_cli", False))),
        ("logging", _logging(config, major=2, minor=minor)),
        ("pretty_startup_config", debug(config.get("pretty_startup_config", False))),
        ("include_disk_mounts", _forgiving(config.get("include_disk_mounts"))),
        ("exclude_disk_mounts", _forgiving(config.get("exclude_disk_mounts"))),
        ("secrets", debug(dict.fromkeys(config.get("secrets") or {}, HIDDEN))),
        ("git_providers", _providers(config, "git_provider", "git_providers")),
        (
            "image_registries" if minor >= 3 else "docker_registries",
            _providers(config, "docker_registry", "docker_registries", *registries),
        ),
    ]


def _shown_key(value: str) -> str:
    return value if value.startswith("file:") else HIDDEN
