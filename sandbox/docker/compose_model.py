"""Compose files as Compose v2 reads them: several files merged, `${VAR}` filled in, env files, a hash per service.

Simplified: no profiles, `include` or `extends`; `!reset` and `!override` tags are not known; long syntax of ports and
volumes is.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError


class ComposeError(Exception):
    """What compose says before it gives up; `code` is its exit code."""

    def __init__(self, text: str, code: int = 15) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Service:
    """One service, resolved."""

    name: str
    image: str
    environment: dict[str, str]
    raw: dict[str, Any]
    depends: list[str]

    @property
    def hash(self) -> str:
        """Like com.docker.compose.config-hash: changes when anything that makes a container changes."""
        kept = {k: v for k, v in self.raw.items() if k not in {"build", "depends_on", "scale", "env_file"}}
        text = json.dumps({**kept, "environment": self.environment}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Project:
    """A loaded project."""

    name: str
    directory: Path
    files: list[Path]
    env_files: list[Path]
    services: dict[str, Service] = field(default_factory=dict)
    volumes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    """The files as they were given."""
    old: bool = False
    """It is handled by docker-compose 1.29."""


_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-?+])(?P<arg>(?:[^{}]|\{[^{}]*\})*))?\})"
)


def interpolate(text: str, env: Mapping[str, str], warn: list[str] | None = None) -> str:
    """`${VAR}`, `${VAR:-x}`, `${VAR:?x}`, `${VAR:+x}`, `$$`."""

    def fill(match: re.Match[str]) -> str:
        if match.group("dollar"):
            return "$"
        name = match.group("plain") or match.group("name")
        operator, argument = match.group("op") or "", match.group("arg") or ""
        value = env.get(name)
        empty = not value if operator.startswith(":") else value is None
        if operator.endswith("-") and empty:
            return interpolate(argument, env, warn)
        if operator.endswith("?") and empty:
            raise ComposeError(f"required variable {name} is missing a value: {argument}", 1)
        if operator.endswith("+"):
            return "" if empty else interpolate(argument, env, warn)
        if value is None and warn is not None and not operator:
            text = f'The \\"{name}\\" variable is not set. Defaulting to a blank string.'
            if text not in warn:
                warn.append(text)
        return value or ""

    return _VARIABLE.sub(fill, text)


def read_env(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """An env file: quotes, `export`, inline comments, `${VAR}` of earlier lines and of `env`."""
    found: dict[str, str] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            if key in env:
                found[key] = env[key]
            continue
        if value[:1] == "'" and "'" in value[1:]:
            found[key] = value[1 : value.index("'", 1)]
            continue
        if value[:1] == '"':
            closing = re.match(r'"((?:[^"\\]|\\.)*)"', value)
            value = closing.group(1).replace('\\"', '"') if closing else value
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
        found[key] = interpolate(value, {**found, **env})
    return found


def load(
    *, cwd: Path, files: list[str], env_files: list[str], name: str, directory: str, env: Mapping[str, str]
) -> Project:
    """Read a project. Raises ComposeError with compose's own words."""
    paths = [(cwd / f).resolve() for f in files]
    if not paths:
        defaults = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
        paths = [cwd / n for n in defaults if (cwd / n).is_file()][:1]
    if not paths:
        raise ComposeError("no configuration file provided: not found", 1)
    base = (cwd / directory).resolve() if directory else paths[0].parent
    chosen = [(cwd / f).resolve() for f in env_files]
    for path in chosen:
        if not path.is_file():
            raise ComposeError(f"couldn't find env file: {path}", 1)
    if not chosen and (base / ".env").is_file():
        chosen = [base / ".env"]
    variables = dict(env)
    for path in chosen:
        variables = {**read_env(path, env), **variables}
    merged: dict[str, Any] = {}
    warnings: list[str] = []
    for path in paths:
        merged = _merge(merged, _fill(_parse(path), variables, warnings))
    title = name or variables.get("COMPOSE_PROJECT_NAME", "") or str(merged.get("name") or "")
    title = title or re.sub(r"[^a-z0-9_-]", "", base.name.lower())
    project = Project(title, base, paths, chosen if env_files else [], warnings=warnings, typed=files)
    project.volumes = merged.get("volumes") or {}
    for service, raw in (merged.get("services") or {}).items():
        project.services[service] = _service(project, str(service), raw, variables)
    return project


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ComposeError(f"open {path}: no such file or directory", 14)
    try:
        found = copy.deepcopy(_loaded(path.read_text(encoding="utf-8")))
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        key = re.search(r'found duplicate key "([^"]*)"', str(error))
        name = key.group(1) if key else "?"
        text = f'yaml: unmarshal errors:\n  line {line}: mapping key "{name}" already defined'
        raise ComposeError(f"failed to parse {path}: {text}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        text = f"yaml: line {mark.line + 1 if mark else 0}: {getattr(error, 'problem', 'did not parse')}"
        raise ComposeError(f"failed to parse {path}: {text}") from error
    if not isinstance(found, dict):
        raise ComposeError("empty compose file")
    return found


@functools.lru_cache(maxsize=64)
def _loaded(text: str) -> Any:
    """The same few files are read again and again, and the pure parser is slow."""
    return YAML(typ="safe", pure=True).load(text)


def _fill(value: Any, env: Mapping[str, str], warn: list[str]) -> Any:
    if isinstance(value, str):
        return interpolate(value, env, warn)
    if isinstance(value, dict):
        return {k: _fill(v, env, warn) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, env, warn) for v in value]
    return value


def _merge(base: Any, more: Any) -> Any:
    if isinstance(base, dict) and isinstance(more, dict):
        out = dict(base)
        for key, value in more.items():
            out[key] = _merge(base[key], value) if key in base and key not in {"command", "entrypoint"} else value
        return out
    if isinstance(base, list) and isinstance(more, list):
        return base + [v for v in more if v not in base]
    return more


def as_map(value: Any) -> dict[str, str | None]:
    """`environment` and `labels`: a map or a list."""
    if isinstance(value, list):
        pairs = [str(v).partition("=") for v in value]
        return {k: (v if equals else None) for k, equals, v in pairs}
    return {str(k): None if v is None else _scalar(v) for k, v in (value or {}).items()}


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _service(project: Project, name: str, raw: dict[str, Any], variables: Mapping[str, str]) -> Service:
    environment: dict[str, str] = {}
    listed = raw.get("env_file") or []
    for entry in listed if isinstance(listed, list) else [listed]:
        required = True
        if isinstance(entry, dict):
            required, entry = bool(entry.get("required", True)), entry["path"]
        path = project.directory / str(entry)
        if path.is_file():
            environment.update(read_env(path, variables))
        elif required:
            raise ComposeError(f"env file {path} not found: stat {path}: no such file or directory", 14)
    for key, value in as_map(raw.get("environment")).items():
        if value is not None:
            environment[key] = value
        elif key in variables:
            environment[key] = variables[key]
    depends = raw.get("depends_on") or []
    image = str(raw.get("image") or f"{project.name}-{name}")
    if "image" not in raw and "build" not in raw:
        raise ComposeError(
            f'service "{name}" has neither an image nor a build context specified: invalid compose project'
        )
    return Service(name, image, environment, raw, [str(d) for d in depends])
