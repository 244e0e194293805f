"""From systemd's own words about a unit to the agent's binary, config files and PERIPHERY_ settings.

The official unit is `ExecStart=/bin/sh -lc "BIN --config-path CFG"` (v2.3.2:scripts/setup-periphery.py); people also
start the binary directly, with several configs, or through the environment (v2.3.2:bin/periphery/src/config.rs:
command line before environment before nothing). What is not understood is said, never guessed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

SHOW = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,ExecStart,Environment,EnvironmentFiles,"
    "MainPID,InvocationID,NRestarts,User,Group,WorkingDirectory,Restart,ExecMainStartTimestamp"
)
"""Properties to ask `systemctl show` for."""

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
    """A unit as systemd knows it. `refused` says why its command is not understood; empty: it is."""

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


def parse_unit(text: str, *, name: str = "periphery.service") -> Unit:
    """Reads the output of `systemctl show -p SHOW UNIT`."""
    shown = parse_show(text)

    def one(key: str) -> str:
        return shown.get(key, [""])[0].strip()

    if one("LoadState") in {"not-found", "", "masked"} and not one("FragmentPath"):
        return Unit(name=name, exists=False, active=False)
    environment = assignments(one("Environment"))
    argv, refused = _argv(shown.get("ExecStart", []))
    binary = ""
    configs: tuple[str, ...] = ()
    if not refused:
        binary, configs, refused = _agent(argv, environment)
    source = "ExecStart" if configs else ""
    if not configs and not refused and (listed := _from_environment(environment)):
        configs, source = listed, "Environment"
    return Unit(
        name=one("Id") or name,
        exists=True,
        active=one("ActiveState") == "active",
        sub_state=one("SubState"),
        enabled=one("UnitFileState"),
        path=one("FragmentPath"),
        drop_ins=tuple(_words(one("DropInPaths"))),
        main_pid=_number(one("MainPID")),
        invocation=one("InvocationID"),
        restarts=_number(one("NRestarts")),
        user=one("User"),
        folder=one("WorkingDirectory").lstrip("-!") or "/",
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
    for word in _words(text):
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
    """The words of the only ExecStart. systemd prints them joined by blanks, quotes gone."""
    commands = [m.group(1) for v in values if (m := re.search(r"argv\[\]=(.*?) ; ignore_errors=", v))]
    if not commands:
        return (), "systemd names no ExecStart"
    if len(commands) > 1:
        return (), f"it has {len(commands)} ExecStart lines"
    return tuple(commands[0].split(" ")), ""


def _agent(argv: tuple[str, ...], environment: Mapping[str, str]) -> tuple[str, tuple[str, ...], str]:
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
    else:
        words = [_expanded(w, environment) for w in words]
    if not words or not words[0].startswith("/"):
        return "", (), f"its command is no absolute path: {words[0] if words else '(nothing)'}"
    if not re.fullmatch(r"(komodo-)?periphery([-_.](?!sh$|py$).*)?", words[0].rsplit("/", 1)[-1]):
        return "", (), f"it starts the agent through {words[0]}"
    if any("$" in w for w in words):
        return "", (), "its command holds a variable that the unit does not set"
    return words[0], _configs(words[1:]), ""


def _configs(words: list[str]) -> tuple[str, ...]:
    found = []
    rest = iter(words)
    for word in rest:
        if word in {"--config-path", "-c"}:
            found.append(next(rest, ""))
        elif word.startswith("--config-path="):
            found.append(word.partition("=")[2])
        elif re.match(r"-c.", word):
            found.append(word[2:].removeprefix("="))
    return tuple(path for path in found if path)


def _from_environment(environment: Mapping[str, str]) -> tuple[str, ...]:
    value = environment.get("PERIPHERY_CONFIG_PATHS") or environment.get("PERIPHERY_CONFIG_PATH") or ""
    return tuple(path for path in value.split(",") if path)


def config_paths_from(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Config files that the environment names, comma-separated (envy); used where the command names none."""
    return _from_environment(environment)


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return environment.get(match.group(1) or match.group(2), match.group(0))

    return re.sub(r"\$\{(\w+)\}|\$(\w+)", value, text)


def _environment_file(value: str) -> str:
    """`EnvironmentFiles=/etc/x (ignore_errors=yes)` → the path."""
    return re.sub(r" \(ignore_errors=\w+\)$", "", value).lstrip("-")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
