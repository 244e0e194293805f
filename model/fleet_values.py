"""The values of a fleet file: each parser refuses with what is wrong and the cure, and never repeats a secret."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from model.fleet import SecretRef, Sudo

RELEASES = ("2.0.0", "2.1.0", "2.1.1", "2.1.2", "2.2.0", "2.3.0", "2.3.1", "2.3.2")
"""Komodo's v2 releases known to this version, oldest first (github.com/moghtech/komodo/releases)."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JUMP = re.compile(r"(?:[^\s@:]+@)?(?:[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
REFERENCES = ("env", "file", "command")
MODES = ("waves", "together")


def refuse(what: str, cure: str) -> PydanticCustomError:
    """One error of our own; the cure travels in its context."""
    return PydanticCustomError("fleet", "{what}", {"what": what, "cure": cure})


def duration(value: Any) -> timedelta:
    """ "4h", "3d", "90s", "1h30m", "500ms". A bare number has no unit and is refused."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise refuse("is a number without a unit", f'write "{value}s" for seconds, or use m, h, d')
    if not isinstance(value, str) or not value:
        raise refuse("is no duration", 'write a duration in quotes: "90s", "4h", "3d"')
    text = value.replace(" ", "")
    parts = _DURATION.findall(text)
    if "".join(n + u for n, u in parts) != text:
        raise refuse(f'"{value}" is no duration', 'write a number and a unit: "90s", "15m", "4h", "3d", "1h30m"')
    seconds = sum(float(n) * _UNITS[u] for n, u in parts)
    if seconds <= 0:
        raise refuse(f'"{value}" is no time at all', 'write more than zero, such as "90s"')
    if seconds > 366 * 86400:
        raise refuse(f'"{value}" is longer than a year', 'write at most "366d"')
    return timedelta(seconds=seconds)


def duration_or_off(value: Any) -> timedelta:
    """A duration, or "off": zero."""
    return timedelta() if value == "off" else duration(value)


def target(value: Any) -> str:
    """An exact v2 version. "2" and "2.3" become the newest known release of that line."""
    if not isinstance(value, str):
        raise refuse("is no text", f'write the version in quotes: target = "{RELEASES[-1]}"')
    text = value.strip().removeprefix("v")
    if not re.fullmatch(r"\d+(\.\d+){0,2}", text):
        raise refuse(f'"{value}" is no version', f'write an exact one: target = "{RELEASES[-1]}"')
    if text.split(".")[0] != "2":
        raise refuse(f'"{value}" is not a v2 version', f'this tool takes Komodo to v2: target = "{RELEASES[-1]}"')
    if text.count(".") == 2:
        return text
    line = [r for r in RELEASES if r == text or r.startswith(f"{text}.")]
    if not line:
        raise refuse(f'no release of "{value}" is known here', f'write an exact one: target = "{RELEASES[-1]}"')
    return line[-1]


def host(value: str) -> str:
    """A name or an address, without user and port."""
    if "@" in value:
        user, _, rest = value.rpartition("@")
        raise refuse("holds a user name", f'write host = "{rest}" and user = "{user}"')
    if re.fullmatch(r"[^:]+:\d+", value):
        name, _, port = value.partition(":")
        raise refuse("holds a port", f'write host = "{name}" and port = {port}')
    if value.startswith("["):
        raise refuse("stands in brackets", "write the IPv6 address without brackets, the port as port = 22")
    if "://" in value:
        raise refuse("is a URL", "write the name or address that SSH connects to")
    if not _HOST.fullmatch(value):
        raise refuse(f'"{value}" is no host name or address', 'write a name or an address: host = "10.0.0.11"')
    return value


def jump(value: str) -> str:
    """`[user@]host[:port]`, or "none" where a host needs no jump host."""
    if value != "none" and not _JUMP.fullmatch(value):
        raise refuse(f'"{value}" is no jump host', 'write jump = "user@bastion.example.net:22", or "none"')
    return value


def remote_path(value: str) -> str:
    """A path on a host: absolute, because nobody knows what a relative one would mean there."""
    if not value.startswith("/"):
        raise refuse(f'"{value}" is no absolute path', "this is a path on the host: begin it with /")
    return value


def fleet_name(value: str) -> str:
    """Part of ids and paths."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        cure = "use at most 63 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise refuse(f'"{value}" cannot be the name of a fleet', cure)
    return value


def server_name(value: str) -> str:
    """Komodo's own name of the Server."""
    if not value.strip() or value != value.strip() or any(ord(c) < 32 for c in value):
        raise refuse("is empty or has blanks at its ends", "write the Server's name exactly as Komodo shows it")
    return value


def wave(value: Any) -> str:
    """A count, or a share of the fleet: 3, "3", "25%"."""
    cure = 'write a count (wave = 2) or a share (wave = "25%")'
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise refuse("is neither a count nor a share", cure)
    text = str(value)
    if not re.fullmatch(r"\d{1,4}%?", text):
        raise refuse(f'"{text}" is neither a count nor a share', cure)
    number = int(text.rstrip("%"))
    if number == 0 or (text.endswith("%") and number > 100):
        raise refuse(f'"{text}" holds no server or more than all', cure)
    return text


def mode(value: Any) -> str:
    """In portions with people between them, or all with Core."""
    if value not in MODES:
        raise refuse(f'"{value}" is no mode', 'write mode = "waves" or "together"')
    return str(value)


def sudo(value: Any) -> tuple[Sudo, SecretRef | None]:
    """ "passwordless", "none", or a table with one reference to the password."""
    cure = 'write sudo = "passwordless", "none", or { password_env = "NAME" } (or _file, _command)'
    if value in ("passwordless", "none"):
        return Sudo(value), None
    if not isinstance(value, dict):
        raise refuse("is no way to become root", cure)
    known = {f"password_{kind}": kind for kind in REFERENCES}
    if "password" in value:
        raise refuse("holds a password in the clear", 'refer to it: sudo = { password_env = "NAME" }')
    if len(value) != 1 or next(iter(value)) not in known:
        raise refuse("needs exactly one of password_env, password_file, password_command", cure)
    key, reference = next(iter(value.items()))
    if not isinstance(reference, str) or not reference:
        raise refuse(f"{key} is no text", cure)
    if known[key] == "env":
        env_name(reference)
    return Sudo.PASSWORD, SecretRef(**{known[key]: reference})


def env_name(value: str) -> str:
    """The name of a variable. What is refused is not repeated: it may be the secret itself."""
    if not _ENV.fullmatch(value):
        cure = "write the variable's name, such as KOMODO_API_KEY; never the secret itself"
        raise refuse("is not the name of an environment variable", cure)
    return value


def url(value: str) -> str:
    """http or https, without credentials, query or path."""
    if not re.fullmatch(r"https?://[^\s/@?#]+/?", value):
        cure = 'write url = "https://komodo.example.net"; leave it out to go through the SSH connection'
        raise refuse("is not a plain http or https address", cure)
    return value.rstrip("/")


def digest(value: str) -> str:
    """SHA-256 in hex."""
    text = value.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise refuse("is no SHA-256 digest", "write 64 hexadecimal digits, as sha256sum prints them")
    return text


def download_url(value: str) -> str:
    """Where an artifact comes from; {version} and {arch} are filled in."""
    if not re.match(r"(https?|file)://\S+$", value):
        raise refuse("is no address", 'write "https://mirror.example.net/periphery-{version}-{arch}"')
    unknown = set(re.findall(r"\{(\w*)\}", value)) - {"version", "arch"}
    if unknown:
        raise refuse(f"has the unknown part {{{sorted(unknown)[0]}}}", "only {version} and {arch} are filled in")
    return value


def file_list(value: Any) -> list[str]:
    """One path or several."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise refuse("is neither a path nor a list of paths", 'write key_files = ["~/.ssh/id_ed25519"]')
    return items


def _string(pattern: str = "", description: str = "") -> WithJsonSchema:
    schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return WithJsonSchema(schema | ({"description": description} if description else {}))


_PASSWORD = {
    "type": "object",
    "properties": {f"password_{kind}": {"type": "string"} for kind in REFERENCES},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}

Text = Annotated[str, StringConstraints(min_length=1)]
Duration = Annotated[timedelta, BeforeValidator(duration), _string(r"^(\d+(\.\d+)?(ms|s|m|h|d))+$")]
DurationOrOff = Annotated[timedelta, BeforeValidator(duration_or_off), _string(r"^(off|(\d+(\.\d+)?(ms|s|m|h|d))+)$")]
Target = Annotated[str, PlainValidator(target), _string(r"^v?2(\.\d+){0,2}$")]
HostName = Annotated[Text, AfterValidator(host)]
Jump = Annotated[Text, AfterValidator(jump)]
RemotePath = Annotated[Text, AfterValidator(remote_path)]
FleetName = Annotated[Text, AfterValidator(fleet_name)]
ServerName = Annotated[Text, AfterValidator(server_name)]
WaveSize = Annotated[
    str,
    PlainValidator(wave),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d{1,4}%?$"}]}),
]
Mode = Annotated[str, PlainValidator(mode), WithJsonSchema({"enum": [*MODES]})]
SudoSetting = Annotated[
    tuple[Sudo, SecretRef | None],
    PlainValidator(sudo),
    WithJsonSchema({"anyOf": [{"enum": ["passwordless", "none"]}, _PASSWORD]}),
]
EnvName = Annotated[Text, AfterValidator(env_name)]
Url = Annotated[Text, AfterValidator(url)]
DownloadUrl = Annotated[Text, AfterValidator(download_url)]
Digest = Annotated[Text, AfterValidator(digest)]
FileList = Annotated[
    list[str],
    PlainValidator(file_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
