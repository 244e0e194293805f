"""What Komodo's own log lines prove, v1 and v2: version, loaded config, login, and why something failed.

Every text that leaves this module was cleaned: the agent's parse warning prints its whole file, passkeys included
(v1.19.5:lib/config/src/load.rs and mogh_config in v2), and serde quotes the value that it could not read.

Sources: v2.3.2:bin/periphery/src/main.rs, connection/server.rs; v1.19.5:bin/periphery/src/main.rs; the captures in
tests/captures/logs, word for word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from komodo.public_key import understood

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
MASK = "***"
LONGEST = 400
"""Characters of one cleaned line; longer ones end in an ellipsis."""

_PARSE = re.compile(
    r"((?:Failed to (?:parse \w+|open|read contents of) file|Unsupported file type) at )(.+?)(?: \||$)"
    r"|(Types on field \S+ do not match|Parsed value is not object|Failed to parse (?:merged|\w+ (?:file|config)))"
)
"""Messages of the config loader about a file (or a field) that it skips: v1.19.5:lib/config/src/error.rs."""
_QUOTED_VALUE = re.compile(
    r"((?:invalid (?:type|value): (?:string|character|byte array)|unknown (?:variant|field)|invalid digit)\s*)"
    r"(\\*\"(?:[^\"\\]|\\.)*\\*\"|`[^`]*`|'[^']*')"
)
_ASSIGNMENT = re.compile(
    r"(?i)(\b[\w.\-]*(?:pass(?:key|phrase|word|wd)?s?|secrets?|tokens?|api_?keys?|private_?keys?|onboarding_?keys?)\b"
    r"[\"']?\s*[=:]\s*)"
    r"(?!None\b|Some\(\[\]\)|\[\])"
    r"(Some\(.*?\)|\[[^\]]*\]|\{[^}]*\}|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;}]+)"
)
_AUTHORIZATION = re.compile(r"(?i)(authorization:?\s*(?:bearer\s+|basic\s+)?)\S+")
_URI = re.compile(r"([a-z][a-z0-9+.\-]*://)[^\s/@]*@")
_TOKEN = re.compile(
    r"\b(?:K_[A-Za-z0-9]{16,}_K|S_[A-Za-z0-9]{16,}_S|O_[A-Za-z0-9]{16,}_O)\b|\beyJ[\w\-]+\.[\w\-]+\.[\w\-]+"
)
_PRIVATE_KEY = re.compile(r"MC4CAQAwBQYDK2VuBCIE[A-Za-z0-9+/=]+")
_SOURCE_LINE = re.compile(r"^\s*\d+\s\|.*$")
_TIME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)\s+")

_VERSION = re.compile(r"Komodo (Periphery|Core) version: v?(\S+)")
_PUBLIC_KEY = re.compile(r"(?:^|\s)Public Key: (\S+)")
_LISTENING = re.compile(r"(?:Server starting on|Komodo (?:Periphery|Core) starting on) (\S+)")
_LOGIN = re.compile(r"Logged in to Komodo Core (\S+) websocket(?: as Server (.+))?")
_LOGIN_FAILED = re.compile(
    r"((?:Core f|F)ailed to login(?: to connection)? \| .*|Onboarding failed: .*|Connection for \S+ is already active.*"
    r"|Failed to (?:run inbound connection server|start outbound connection) .*|CONNECTION ERROR: .*"
    r"|\d{3} (?:Not Found|Bad Request|Unauthorized): Server .*)"
)
_PASSKEYS_USED = "Authenticating using Passkeys"
_PANIC = re.compile(r"panicked at (\S+)")


def stripped(text: str) -> str:
    """Without colours. Both versions colour their logs even when piped."""
    return ANSI.sub("", text).replace("\r", "")


def cleaned(line: str) -> str:
    """One line that may be shown: no colours, no secret, not longer than LONGEST.

    What follows `Failed to parse toml file at PATH` is the file itself and is cut, never masked.
    """
    text = _unwrapped(stripped(line)).rstrip()
    if match := _PARSE.search(text):
        cut = match.end(2) if match.group(2) else match.end(3)
        return text[:cut] + " (the rest is cut: it holds the file's text)"
    if match := _CONFIG.search(text):
        return text[: match.start()] + str(_loaded(text[match.start() :]))
    text = _SOURCE_LINE.sub("(a line of the file, cut)", text)
    text = _QUOTED_VALUE.sub(rf"\1{MASK}", text)
    text = _ASSIGNMENT.sub(rf"\1{MASK}", text)
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    text = _URI.sub(rf"\1{MASK}@", text)
    text = _PRIVATE_KEY.sub(MASK, _TOKEN.sub(MASK, text))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def cleaned_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """Each line cleaned; empty ones left out."""
    return tuple(text for line in lines if (text := cleaned(line)))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings that a process logs at its start: of the line `PeripheryConfig {…}` or `CoreConfig {…}`."""

    core_public_keys: tuple[str, ...] | None = None
    """None: not set (v1 never has it). Empty: set to nothing, which accepts any Core. In one-line form."""
    passkeys: int | None = None
    """How many; None: not set. Never the values."""
    core_addresses: tuple[str, ...] = ()
    connect_as: str = ""
    root_directory: str = ""
    port: int = 0
    ssl: bool = True

    @property
    def pins(self) -> tuple[str, ...]:
        """What the agent checks Core's key against. An agent that connects by itself has a default.

        That is the file where it keeps the first key that it sees (v2.3.2:bin/periphery/src/state.rs).
        """
        if self.core_public_keys is None and self.core_addresses:
            return (f"file:{(self.root_directory or '/etc/komodo').rstrip('/')}/keys/core.pub",)
        return self.core_public_keys or ()

    def __str__(self) -> str:
        keys = "None" if self.core_public_keys is None else f"[{', '.join(self.core_public_keys)}]"
        return f"loaded config: core_public_keys {keys}, passkeys {'None' if self.passkeys is None else self.passkeys}"


@dataclass(frozen=True, slots=True)
class Login:
    """One `Logged in to Komodo Core HOST websocket`, of an agent that connects by itself with ` as Server NAME`."""

    core: str
    """Of an agent that connects by itself: host and port of the address that it uses."""
    line: str
    at: str
    """The line's own UTC time; empty where timestamps are off."""
    server: str = ""
    """Empty: Core has connected to the agent."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of one run of an agent (or of Core). Every text in here was cleaned."""

    version: str = ""
    config: LoadedConfig | None = None
    public_key: str = ""
    listening: str = ""
    logins: tuple[Login, ...] = ()
    passkeys_used: bool = False
    failures: tuple[str, ...] = ()
    """Logins that failed and connections that were refused, oldest first."""
    unparsed: tuple[str, ...] = ()
    """Config files (or fields) that were skipped: no TOML, not readable, of the wrong type."""
    errors: tuple[str, ...] = ()
    """Panics and lines of level ERROR."""
    proof: tuple[str, ...] = ()
    """Version, config, listening and login lines, for the report."""

    @property
    def reason(self) -> str:
        """Why it does not run or is not connected, in Komodo's words; empty: the log gives no reason."""
        if self.unparsed:
            return (
                f"the config was not loaded: {self.unparsed[-1]} was skipped (it cannot be read, or is no valid TOML)"
            )
        if self.errors:
            return self.errors[-1]
        return self.failures[-1] if self.failures else ""


def is_listening(line: str) -> bool:
    """Whether a line of `proof` says that the agent listens."""
    return _LISTENING.search(line) is not None


def last_run(text: str) -> str:
    """The lines of the youngest start only: a container's log holds all of them.

    A run begins at its version line; warnings about the config and the list of paths precede it.
    """
    lines = stripped(text).splitlines()
    starts = [i for i, line in enumerate(lines) if _VERSION.search(line)]
    if not starts:
        return "\n".join(lines)
    start = starts[-1]
    while start > 0 and (lines[start - 1].startswith(("[", "WARN:", "INFO:")) or "Failed to parse" in lines[start - 1]):
        start -= 1
    return "\n".join(lines[start:])


def parse_run(text: str) -> RunLog:
    """Reads the log of one run. Accepts plain, coloured, pretty and JSON logs, v1 and v2."""
    lines = [_unwrapped(line) for line in stripped(text).splitlines()]
    joined = "\n".join(lines)
    version = public_key = listening = ""
    logins: list[Login] = []
    failures: list[str] = []
    unparsed: list[str] = []
    errors: list[str] = []
    proof: list[str] = []
    config_match = _CONFIG.search(joined)
    config = _loaded(joined[config_match.start() :]) if config_match else None
    for number, line in enumerate(lines):
        if match := _VERSION.search(line):
            version = match.group(2)
            proof.append(cleaned(line))
        elif _CONFIG.search(line):
            proof.append(f"{_stamp(line)}{config}")
        elif match := _PUBLIC_KEY.search(line):
            public_key = match.group(1)
        elif match := _LISTENING.search(line):
            listening = match.group(1)
            proof.append(cleaned(line))
        elif match := _LOGIN.search(line):
            logins.append(Login(match[1], cleaned(line), _stamp(line).strip(), (match[2] or "").strip()))
            proof.append(cleaned(line))
        elif match := _PARSE.search(line):
            unparsed.append(match.group(2) or match.group(3))
        elif match := _LOGIN_FAILED.search(line):
            failures.append(cleaned(match.group(1)))
        elif _PANIC.search(line):
            errors.append(cleaned(lines[number + 1]) if number + 1 < len(lines) else cleaned(line))
        elif re.match(r"^(?:\S+\s+)?\s*(?:ERROR|FATAL)\b", line):
            errors.append(cleaned(_TIME.sub("", line)))
    return RunLog(
        version=version,
        config=config,
        public_key=public_key,
        listening=listening,
        logins=tuple(logins),
        passkeys_used=_PASSKEYS_USED in joined,
        failures=tuple(failures),
        unparsed=tuple(unparsed),
        errors=tuple(errors),
        proof=tuple(proof),
    )


_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Periphery requires passkey auth|Invalid passkey",
        "the agent still logs in by passkey: its config has no core_public_keys; pin Core's key, then retry",
    ),
    (
        r"failed to validate Core public key|'core_public_keys' in periphery config",
        "another Core's key is pinned: put the key that Core shows in Settings into core_public_keys, then retry",
    ),
    (
        r"failed to validate Periphery public key|configured Periphery Public Key",
        "Core expects another key of this agent: clear or update the Server's public key in Komodo, then retry",
    ),
    (
        r"handshake_m2|decrypt error",
        (
            "Core and the agent disagree about the host name: write the Server's address in lower case and without its "
            "default port, and let a proxy pass Host or X-Forwarded-Host unchanged"
        ),
    ),
    (
        r"//\?core=|404 Not Found",
        "the Server's address ends in a slash or a proxy does not forward the path: remove the slash in Komodo",
    ),
    (r"405 Method Not Allowed|401 Unauthorized", "a v1 agent (or something else) answers at the Server's address"),
    (
        r"already active|500 Internal Server Error",
        "two Servers of Komodo use this one agent: disable or delete the other one",
    ),
    (r"Connection refused", "nothing listens at the Server's address: read the agent's journal on that host"),
    (
        r"timed? ?out|No route to host|unreachable|dns error|failed to lookup",
        "Core does not reach the Server's address: check firewall, DNS and the address in Komodo",
    ),
    (r"server not enabled", "the Server is disabled in Komodo: enable it there, then retry"),
    (
        r"core_public_keys.*Ed25519|not X25519|Invalid hardcoded public key",
        "the pinned key is no X25519 public key (MCowBQYDK2VuAyEA…): copy it again from Core",
    ),
    (r"Failed to read public key at", "core_public_keys names a file that is not there: pin the key itself"),
    (
        r"duplicate field",
        "one setting is there in two spellings: remove the old one (disable_container_exec, PERIPHERY_CONFIG_PATH)",
    ),
    (
        r"expected a string",
        "core_public_keys is below a [table] of the config: move it above the first table",
    ),
    (r"failed to parse periphery environment", "an environment variable PERIPHERY_… of the unit has a bad value"),
    (r"no valid TOML|Failed to parse toml", "correct the file: a skipped config leaves the agent open to any Core"),
    (
        r"libssl|GLIBC",
        "this system is too old for v2's binary: upgrade it, run the agent as a container, or leave it behind",
    ),
    (r"Address already in use", "something else listens on the agent's port"),
    (r"Onboarding key not able", "use a privileged onboarding key, or another name in connect_as"),
)


def hint(reason: str) -> str:
    """What to do about an error text of Core (Server `err`) or a line of the agent's log; empty: unknown."""
    for pattern, text in _HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            return text
    return ""


_CONFIG = re.compile(r"\b(?:Periphery|Core)Config \{")
_STRINGS = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _loaded(text: str) -> LoadedConfig:
    """From Rust's Debug form, `{:?}` or `{:#?}` (pretty_startup_config = true)."""
    port = re.search(r"\bport: (\d+)", text)
    keys = _strings(text, "core_public_keys")
    return LoadedConfig(
        core_public_keys=None if keys is None else tuple(understood(key) or key for key in keys),
        passkeys=None if (found := _strings(text, "passkeys")) is None else len(found),
        core_addresses=_strings(text, "core_addresses") or (),
        connect_as=_string(text, "connect_as"),
        root_directory=_string(text, "root_directory"),
        port=int(port.group(1)) if port else 0,
        ssl="ssl_enabled: false" not in text,
    )


def _strings(text: str, field: str) -> tuple[str, ...] | None:
    match = re.search(rf"\b{field}: (None|(?:Some\(\s*)?\[((?:\s*\"(?:[^\"\\]|\\.)*\",?)*)\s*\])", text)
    if match is None or match.group(1) == "None":
        return None
    return tuple(_unescaped(written) for written in _STRINGS.findall(match.group(2)))


def _string(text: str, field: str) -> str:
    match = re.search(rf'\b{field}: "((?:[^"\\]|\\.)*)"', text)
    return _unescaped(match[1]) if match else ""


def _unescaped(written: str) -> str:
    """A key in PEM form is shown on one line."""
    return re.sub(r"\\([nrt\"'\\])", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), written)


def _unwrapped(line: str) -> str:
    """The plain form of a line of `logging.stdio = "json"`; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
        message = record["fields"]["message"]
    except (ValueError, KeyError, TypeError):
        return line
    spans = record.get("spans") or ([record["span"]] if record.get("span") else [])
    names = ":".join(str(s.get("name", "")) for s in spans if isinstance(s, dict))
    return f"{record.get('timestamp', '')}  {record.get('level', 'INFO')} {names}{': ' if names else ''}{message}"


def _stamp(line: str) -> str:
    match = _TIME.match(line)
    return f"{match.group(1)} " if match else ""
