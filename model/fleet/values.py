"""The values of a fleet file. Each parser refuses with what is wrong and what to write; none repeats a secret."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from model.fleet.bounds import printable
from model.fleet.spec import SecretRef, Sudo
from model.fleet.windows import EXAMPLE, MOST_WINDOWS, parse_window

RELEASES = ("2.0.0", "2.1.0", "2.1.1", "2.1.2", "2.2.0", "2.3.0", "2.3.1", "2.3.2", "2.3.3")
"""Komodo's v2 releases known to this version, oldest first (github.com/moghtech/komodo/releases)."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JUMP = re.compile(r"(?:[^\s@:-][^\s@:]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LOGIN = re.compile(r"^((?:[a-z]+://)?[^\s@:/]*):.*@")
_SECRET_IN_QUERY = re.compile(r"(?i)[?&][^=&#]*(?:token|secret|sig|pass|key|auth|cred)[^=&#]*=")
REFERENCES = ("env", "file", "command")
MODES = ("waves", "all-at-once")


def refuse(what: str, hint: str) -> PydanticCustomError:
    """An error of this module; the hint is in its context."""
    return PydanticCustomError("fleet", "{what}", {"what": printable(what, 200), "hint": printable(hint, 300)})


def duration(value: Any) -> timedelta:
    """ "4h", "3d", "90s", "1h30m", "500ms". A number without a unit is refused."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise refuse("is a number without a unit", f'write "{printable(value, 30)}s" for seconds, or use m, h, d')
    if not isinstance(value, str) or not value:
        raise refuse("is no duration", 'write a duration in quotes: "90s", "4h", "3d"')
    text = value.replace(" ", "") if len(value) < 50 else ""
    parts = _DURATION.findall(text)
    if not text or "".join(n + u for n, u in parts) != text:
        raise refuse(f'"{value}" is no duration', 'write a number and a unit: "90s", "15m", "4h", "3d", "1h30m"')
    seconds = sum(float(n) * _UNITS[u] for n, u in parts)
    if seconds <= 0:
        raise refuse(f'"{value}" is zero', 'write more than zero, such as "90s"')
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
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6}){0,2}", text):
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
        login, _, rest = value.rpartition("@")
        name, password, _ = login.partition(":")
        what = "holds a user name and a password" if password else "holds a user name"
        raise refuse(what, f'write host = "{rest}" and user = "{name}"')
    if re.fullmatch(r"[^:]+:[0-9]+", value):
        name, _, port = value.partition(":")
        raise refuse("holds a port", f'write host = "{name}" and port = {port}')
    if value.startswith("["):
        raise refuse("is in brackets", "write the IPv6 address without brackets, the port as port = 22")
    if "://" in value:
        raise refuse("is a URL", "write the name or address that SSH connects to")
    if not _HOST.fullmatch(value):
        raise refuse(f'"{value}" is no host name or address', 'write a name or an address: host = "10.0.0.11"')
    return value


def jump(value: str) -> str:
    """`[user@]host[:port]`, or "none" where a host needs no jump host."""
    if value != "none" and not _JUMP.fullmatch(value):
        raise refuse(
            f'"{_without_password(value)}" is no jump host', 'write jump = "user@bastion.example.net:22", or "none"'
        )
    return value


def _without_password(value: str) -> str:
    return _LOGIN.sub(r"\1:•••@", value)


def user(value: str) -> str:
    """A user of a host. The hints show `ssh` commands, so the name must not be an option of ssh."""
    if not re.fullmatch(r"[^\s@:-][^\s@:]*", value):
        # A refused value is not repeated: it may hold a password.
        raise refuse("is no user name", 'write user = "ops"')
    return value


def remote_path(value: str) -> str:
    """A path on a host: absolute, because there is no folder that a relative one could start from."""
    if not value.startswith("/"):
        raise refuse(f'"{value}" is no absolute path', "this is a path on the host: begin it with /")
    return value


def fleet_name(value: str) -> str:
    """Part of ids and paths."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        hint = "use at most 63 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise refuse(f'"{value}" cannot be the name of a fleet', hint)
    return value


def server_name(value: str) -> str:
    """Komodo's own name of the Server."""
    if not value.strip() or value != value.strip():
        raise refuse("is empty, or begins or ends with a blank", "write the Server's name exactly as Komodo shows it")
    return value


def wave(value: Any) -> str:
    """A count, or a share of the fleet: 3, "3", "25%"."""
    hint = 'write a count (wave = 2) or a share (wave = "25%")'
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise refuse("is neither a count nor a share", hint)
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,4}%?", text):
        raise refuse(f'"{text}" is neither a count nor a share', hint)
    number = int(text.rstrip("%"))
    if number == 0 or (text.endswith("%") and number > 100):
        raise refuse(f'"{text}" is no server or more than all', hint)
    return text


def windows(value: Any) -> list[str]:
    """One maintenance window or several."""
    hint = f'write window = "{EXAMPLE}"'
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise refuse("is no maintenance window", hint)
    if len(items) > MOST_WINDOWS:
        raise refuse(f"has {len(items)} windows", f"write at most {MOST_WINDOWS}")
    for item in items:
        try:
            parse_window(item)
        except ValueError as error:
            raise refuse(f'"{item}" is no maintenance window: {error}', hint) from None
    return items


def label(value: str) -> str:
    """A word that groups servers."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        hint = "use at most 63 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise refuse(f'"{value}" cannot be a label', hint)
    return value


def mode(value: Any) -> str:
    """In waves with gates between them, or all servers with Core."""
    if value not in MODES:
        hint = 'write mode = "all-at-once", its new name' if value == "together" else 'write "waves" or "all-at-once"'
        raise refuse(f'"{printable(value)}" is no mode', hint)
    return str(value)


def sudo(value: Any) -> tuple[Sudo, SecretRef | None]:
    """ "passwordless", "none", or a table with one reference to the password."""
    hint = 'write sudo = "passwordless", "none", or { password_env = "NAME" } (or _file, _command)'
    if value in ("passwordless", "none"):
        return Sudo(value), None
    if not isinstance(value, dict):
        raise refuse("is no way to become root", hint)
    known = {f"password_{kind}": kind for kind in REFERENCES}
    if "password" in value:
        raise refuse("holds a password in the clear", 'refer to it: sudo = { password_env = "NAME" }')
    if len(value) != 1 or next(iter(value)) not in known:
        raise refuse("needs exactly one of password_env, password_file, password_command", hint)
    key, reference = next(iter(value.items()))
    if not isinstance(reference, str) or not reference:
        raise refuse(f"{key} is no text", hint)
    if known[key] == "env":
        env_name(reference)
    return Sudo.PASSWORD, SecretRef(**{known[key]: reference})


def env_name(value: str) -> str:
    """The name of a variable. A refused value is not repeated: it may be the secret itself."""
    if not _ENV.fullmatch(value):
        hint = "write the variable's name, such as KOMODO_API_KEY; never the secret itself"
        raise refuse("is not the name of an environment variable", hint)
    return value


def url(value: str) -> str:
    """http or https, without credentials, query or path."""
    if not re.fullmatch(r"https?://[^\s/@?#]+/?", value):
        hint = 'write url = "https://komodo.example.net"; leave it out to go through the SSH connection'
        raise refuse("is not a plain http or https address", hint)
    return value.rstrip("/")


def agents_url(value: str) -> str:
    """ws, wss, http or https, without credentials, query or path; as agents write it, with ws or wss."""
    if not re.fullmatch(r"(?:ws|http)s?://[^\s/@?#\"\\]+/?", value):
        raise refuse("is not a plain ws or wss address", 'write agents_url = "wss://komodo.example.net"')
    return re.sub(r"^http", "ws", value.rstrip("/"))


def digest(value: str) -> str:
    """SHA-256 in hex."""
    text = value.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise refuse("is no SHA-256 digest", "write 64 hexadecimal digits, as sha256sum prints them")
    return text


def download_url(value: str) -> str:
    """Where an artifact comes from; {version} and {arch} are filled in."""
    if not re.match(r"(https?|file)://\S+$", value):
        raise refuse("is no download address", 'write "https://mirror.example.net/periphery-{version}-{arch}"')
    if re.match(r"[a-z]+://[^/?#]*@", value) or _SECRET_IN_QUERY.search(value):
        hint = "write an address that needs no login; with sha256, it does not matter who else can read there"
        raise refuse("holds a password or token, and every plan and report shows this address", hint)
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

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Duration = Annotated[timedelta, BeforeValidator(duration), _string(r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$")]
DurationOrOff = Annotated[
    timedelta, BeforeValidator(duration_or_off), _string(r"^(off|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$")
]
Target = Annotated[str, PlainValidator(target), _string(r"^v?2(\.\d+){0,2}$")]
HostName = Annotated[Text, AfterValidator(host)]
UserName = Annotated[Text, AfterValidator(user)]
Jump = Annotated[Text, AfterValidator(jump)]
RemotePath = Annotated[Text, AfterValidator(remote_path)]
FleetName = Annotated[Text, AfterValidator(fleet_name)]
ServerName = Annotated[Text, AfterValidator(server_name)]
CheckName = Annotated[str, StringConstraints(pattern=r"^(KU[0-9]{3}|[a-z0-9]+(-[a-z0-9]+)*)$", max_length=60)]
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
WindowList = Annotated[
    list[str],
    PlainValidator(windows),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Label = Annotated[Text, AfterValidator(label)]
EnvName = Annotated[Text, AfterValidator(env_name)]
Url = Annotated[Text, AfterValidator(url)]
AgentsUrl = Annotated[Text, AfterValidator(agents_url)]
DownloadUrl = Annotated[Text, AfterValidator(download_url)]
Digest = Annotated[Text, AfterValidator(digest)]
FileList = Annotated[
    list[str],
    PlainValidator(file_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
