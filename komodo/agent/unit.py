"""From systemd's own words about a unit to the agent's binary, config files and PERIPHERY_ settings.

The official unit is `ExecStart=/bin/sh -lc "BIN --config-path CFG"` (v2.3.2:scripts/setup-periphery.py); people also
start the binary directly, with several configs, or through the environment (v2.3.2:bin/periphery/src/config.rs:
command line before environment before nothing). A command that is not understood is reported, never guessed.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

SHOW = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,ExecStart,Environment,EnvironmentFiles,"
    "MainPID,InvocationID,NRestarts,User,Group,WorkingDirectory,Restart,ExecMainStartTimestamp"
)
"""Properties to ask `systemctl show` for."""

_ROOT_HOME = {"": "/root", "root": "/root"}
_KEYWORDS = {"PERIPHERY_CONFIG_KEYWORD", "PERIPHERY_CONFIG_KEYWORDS"}
"""They choose files of a folder by name; without them it is `*config.*` (v2.3.2:…/entities/config/mod.rs)."""

SHELLS = ("sh", "bash", "dash", "ash", "busybox", "zsh")
ALIASES = (
    ("PERIPHERY_CONFIG_PATH", "PERIPHERY_CONFIG_PATHS"),
    ("PERIPHERY_CONFIG_KEYWORD", "PERIPHERY_CONFIG_KEYWORDS"),
    ("PERIPHERY_CORE_PUBLIC_KEY", "PERIPHERY_CORE_PUBLIC_KEYS"),
    ("PERIPHERY_CORE_ADDRESS", "PERIPHERY_CORE_ADDRESSES"),
    ("PERIPHERY_DISABLE_CONTAINER_EXEC", "PERIPHERY_DISABLE_CONTAINER_TERMINALS"),
)
"""Two spellings of one setting: an agent that finds both exits (v2.3.2 client/core/rs/…/config/periphery.rs, Env)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd knows it. `refused`: why its command is not understood; empty: it is understood."""

    name: str
    exists: bool
    active: bool
    sub_state: str = ""
    enabled: str = ""
    """UnitFileState: enabled, disabled, static, …"""
    path: str = ""
    drop_ins: tuple[str, ...] = ()
    main_pid: int = 0
    invocation: str = ""
    restarts: int = 0
    user: str = ""
    scope: str = ""
    """"user": a unit of that user's own service manager; empty: of the system's."""
    folder: str = "/"
    """WorkingDirectory: a `.env` there is read by the agent (dotenvy)."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment= of the unit. Never shown: it may hold passkeys."""
    environment_files: tuple[str, ...] = ()
    command: tuple[str, ...] = field(default=(), repr=False)
    binary: str = ""
    config_paths: tuple[str, ...] = ()
    """In the order in which the agent merges them; may be folders."""
    config_source: str = ""
    """"ExecStart" or "Environment" or "" (none is named)."""
    refused: str = ""


def parse_show(text: str) -> dict[str, list[str]]:
    """`systemctl show` as a mapping; a key may come several times (ExecStart, EnvironmentFiles)."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and re.fullmatch(r"[A-Za-z0-9]+", key):
            values.setdefault(key, []).append(value)
    return values


def parse_unit(text: str, *, name: str = "periphery.service", user: str = "", home: str = "") -> Unit:
    """Reads the output of `systemctl show -p SHOW UNIT`. `user`, `home`: of a user's own service manager."""
    shown = parse_show(text)

    def one(key: str) -> str:
        return shown.get(key, [""])[0].strip()

    if one("LoadState") in {"not-found", "", "masked"} and not one("FragmentPath"):
        return Unit(name=name, exists=False, active=False)
    environment = assignments(one("Environment"))
    folder, home = (
        one("WorkingDirectory").lstrip("-!") or home or "/",
        environment.get("HOME") or home or _ROOT_HOME.get(one("User"), ""),
    )
    argv, refused = _argv(shown.get("ExecStart", []))
    binary = ""
    options: tuple[str, ...] = ()
    if not refused:
        binary, options, refused = _agent(argv, environment, home)
    configs = _values(options, "--config-path", "-c")
    source = "ExecStart" if configs else ""
    if not configs and not refused and (listed := _from_environment(environment)):
        configs, source = listed, "Environment"
    configs = tuple(posixpath.join(folder, path) for path in configs)
    if not refused and (_values(options, "--config-keyword", "-m") or _KEYWORDS & {n.upper() for n in environment}):
        refused = _chosen_by_keywords(configs)
    return Unit(
        name=one("Id") or name,
        exists=True,
        active=one("ActiveState") == "active",
        sub_state=one("SubState"),
        enabled=one("UnitFileState"),
        path=one("FragmentPath"),
        drop_ins=tuple(_describe(one("DropInPaths"))),
        main_pid=_number(one("MainPID")),
        invocation=one("InvocationID"),
        restarts=_number(one("NRestarts")),
        user=user or one("User"),
        scope="user" if user else "",
        folder=folder,
        environment=environment,
        environment_files=tuple(_environment_file(v) for v in shown.get("EnvironmentFiles", []) if v),
        command=argv,
        binary=binary,
        config_paths=configs,
        config_source=source,
        refused=refused,
    )


def assignments(text: str) -> dict[str, str]:
    """`Environment=` as `systemctl show` prints it: words A=B, quoted where needed."""
    found = {}
    for word in _describe(text):
        key, equals, value = word.partition("=")
        if equals:
            found[key] = value
    return found


def file_assignments(text: str) -> dict[str, str]:
    """The PERIPHERY_ settings of an environment file or of `.env`: `export`, quotes and comments understood."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"^\s*(?:export\s+)?(PERIPHERY_\w+)\s*=\s*(.*?)\s*$", line, re.IGNORECASE)
        if match:
            value = match.group(2)
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[match.group(1).upper()] = value
    return found


def alias_pairs(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Pairs of spellings that are both set: the agent refuses to start with them."""
    names = {name.upper() for name in environment}
    return tuple(pair for pair in ALIASES if pair[0] in names and pair[1] in names)


def _argv(values: list[str]) -> tuple[tuple[str, ...], str]:
    """The words of the only ExecStart, the program's path first. systemd prints them joined by blanks, quotes gone."""
    shown = (re.search(r"path=(.*?) ; argv\[\]=(.*?) ; ignore_errors=", v) for v in values)
    commands = [(m.group(1), m.group(2)) for m in shown if m]
    if not commands:
        return (), "systemd names no ExecStart"
    if len(commands) > 1:
        return (), f"it has {len(commands)} ExecStart lines"
    path, line = commands[0]
    if line.startswith(path):
        return (path, *line.removeprefix(path).strip().split(" ")), ""
    if line.startswith("/"):
        return tuple(line.split(" ")), ""
    # With `@` the first word is only the name of the process.
    return (path, *line.split(" ")[1:]), ""


def _agent(argv: tuple[str, ...], environment: Mapping[str, str], home: str) -> tuple[str, tuple[str, ...], str]:
    """The binary, its options, and why it is not understood."""
    words = [w for w in argv if w]
    if not words:
        return "", (), "its ExecStart is empty"
    if words[0].rsplit("/", 1)[-1] in SHELLS:
        flag = next((i for i, w in enumerate(words[1:], 1) if re.fullmatch(r"-[a-z]*c", w)), 0)
        if not flag or any(not w.startswith("-") for w in words[1:flag]):
            return "", (), f"it starts a script: {' '.join(words[:3])}"
        inner = _expanded(" ".join(argv[argv.index(words[flag]) + 1 :]), environment)
        if re.search(r"[;&|<>`$(){}*?\n]", inner):
            return "", (), "its shell command does more than start the agent"
        try:
            words = shlex.split(inner)
        except ValueError:
            return "", (), "its shell command has an open quote"
        if words[:1] == ["exec"]:
            words = words[1:]
        words = [home + w[1:] if w.startswith("~/") and home else w for w in words]
        if any(w.startswith("~") for w in words):
            return "", (), "its shell command names a home folder (~)"
    else:
        words = [words[0], *_joined(words[1:], environment)]
    if not words or not words[0].startswith("/"):
        return "", (), f"its command is no absolute path: {words[0] if words else '(nothing)'}"
    if not re.fullmatch(r"(komodo-)?periphery([-_.](?!sh$|py$).*)?", words[0].rsplit("/", 1)[-1]):
        return "", (), f"it starts the agent through {words[0]}"
    if any("$" in w for w in words):
        return "", (), "its command holds a variable that the unit does not set"
    return words[0], tuple(words[1:]), ""


def _joined(words: list[str], environment: Mapping[str, str]) -> list[str]:
    """Variables filled in as systemd does: `$VAR` alone becomes words. An option's value gets its blanks back."""
    filled: list[str] = []
    for word in words:
        alone = re.fullmatch(r"\$\w+", word)
        filled += _expanded(word, environment).split() if alone else [_expanded(word, environment)]
    found: list[str] = []
    for number, word in enumerate(filled):
        if number and not word.startswith("-") and not filled[number - 1].startswith("-"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _values(words: Sequence[str], name: str, short: str) -> tuple[str, ...]:
    """The values of an option, one for each time it occurs."""
    found = []
    rest = iter(words)
    for word in rest:
        if word in {name, short}:
            found.append(next(rest, ""))
        elif word.startswith(f"{name}="):
            found.append(word.partition("=")[2])
        elif re.match(rf"{short}.", word):
            found.append(word[2:].removeprefix("="))
    return tuple(value for value in found if value)


def _from_environment(environment: Mapping[str, str]) -> tuple[str, ...]:
    value = environment.get("PERIPHERY_CONFIG_PATHS") or environment.get("PERIPHERY_CONFIG_PATH") or ""
    return tuple(path for path in value.split(",") if path)


def with_settings(found: Unit, settings: Mapping[str, str]) -> Unit:
    """The unit with settings of its environment files: config files, if the command names none, and keywords."""
    if not found.config_paths and (listed := _from_environment(settings)):
        paths = tuple(posixpath.join(found.folder, path) for path in listed)
        found = replace(found, config_paths=paths, config_source="the environment")
    if not found.refused and found.config_source != "the fleet file" and _KEYWORDS & settings.keys():
        found = replace(found, refused=_chosen_by_keywords(found.config_paths))
    return found


def _chosen_by_keywords(configs: Sequence[str]) -> str:
    folders = [path for path in configs if not posixpath.splitext(path)[1]]
    return f"keywords select the files of {folders[0]} that it reads" if folders else ""


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return environment.get(match.group(1) or match.group(2), match.group(0))

    return re.sub(r"\$\{(\w+)\}|\$(\w+)", value, text)


def _environment_file(value: str) -> str:
    """`EnvironmentFiles=/etc/x (ignore_errors=yes)` → the path."""
    return re.sub(r" \(ignore_errors=\w+\)$", "", value).lstrip("-")


def _describe(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
