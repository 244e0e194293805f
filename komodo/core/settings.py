"""What Core's environment and config files mean: where it listens, its database, and what stops v2 from starting.

Order: environment, then `core.config.toml`, then Komodo's default; a `…_FILE` variable wins over its plain twin
(v1.19.5:bin/core/src/config.rs). Names of variables are read in any case (envy). Two spellings of one setting end v2
with "duplicate field" (v2.3.2:client/core/rs/src/entities/config/core.rs and periphery.rs, serde aliases).
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from komodo.core.answers import parse_interval
from komodo.core.containers import CORE_PORT, Container, refuse, warn
from komodo.core.database import DatabaseLogin, login_of
from komodo.files.periphery_toml import has_bare_variables
from model.errors import DatabaseError
from model.facts import Finding

_DATABASE = ("uri", "address", "username", "password", "db_name")
_SECRET_FILES = ("uri", "username", "password")
DEFAULT_HOST = "https://komodo.example.com"
"""Core's own default for `host`."""

CORE_ALIASES: tuple[tuple[str, ...], ...] = (
    ("KOMODO_TIMEZONE", "TZ"),
    ("KOMODO_FIRST_SERVER_ADDRESS", "KOMODO_FIRST_SERVER"),
    ("KOMODO_PERIPHERY_PUBLIC_KEYS", "KOMODO_PERIPHERY_PUBLIC_KEY"),
    ("KOMODO_CONFIG_PATHS", "KOMODO_CONFIG_PATH"),
    ("KOMODO_CONFIG_KEYWORDS", "KOMODO_CONFIG_KEYWORD"),
    *((f"KOMODO_DATABASE_{n}", f"KOMODO_MONGO_{n}") for n in ("URI", "ADDRESS", "USERNAME", "PASSWORD", "DB_NAME")),
)
AGENT_ALIASES: tuple[tuple[str, ...], ...] = (
    ("PERIPHERY_DISABLE_CONTAINER_TERMINALS", "PERIPHERY_DISABLE_CONTAINER_EXEC"),
    ("PERIPHERY_CORE_PUBLIC_KEYS", "PERIPHERY_CORE_PUBLIC_KEY"),
    ("PERIPHERY_CORE_ADDRESSES", "PERIPHERY_CORE_ADDRESS"),
    ("PERIPHERY_CONFIG_PATHS", "PERIPHERY_CONFIG_PATH"),
)
_FROM_IMAGE = frozenset(("PERIPHERY_CONFIG_PATHS",))
"""Preset by v2's periphery image, so its twin alone is already a pair (v2.3.2:bin/periphery/aio.Dockerfile)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """The needed part of Core's resolved configuration. No secret but the database's, and that is left out of repr."""

    host: str = ""
    """KOMODO_HOST as written; empty: not set."""
    port: int = CORE_PORT
    ssl: bool = False
    monitoring_interval: timedelta = timedelta(seconds=15)
    passkey_set: bool = False
    private_key: str = ""
    """KOMODO_PRIVATE_KEY as written; empty: `file:/config/keys/core.key`."""
    bare_variables: bool = False
    """A config file is TOML only once `${VAR}` is filled in, which v2 does afterwards."""
    webhook_app: bool = False
    """The GitHub webhook app of v1, gone in v2."""
    database: DatabaseLogin | None = field(default=None, repr=False)
    database_problem: str = ""
    database_hint: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Of each database setting: the variable (or file) it came from; for restore.sh, which reads it there."""
    password_file: str = ""
    """Path inside Core's container of the file that holds the database password."""

    @property
    def host_name(self) -> str:
        """Host part of KOMODO_HOST, which v2 sends to agents and they print at login."""
        try:
            return urlsplit(self.host or DEFAULT_HOST).hostname or ""
        except ValueError:
            return ""


def secret_files(core: Container) -> dict[str, str]:
    """Paths inside the container that `…_FILE` variables of the database name, by setting ("password")."""
    found = {}
    for name in _SECRET_FILES:
        path = core.setting(f"KOMODO_DATABASE_{name}_FILE") or core.setting(f"KOMODO_MONGO_{name}_FILE")
        if path:
            found[name] = path
    return found


def config_paths(core: Container) -> tuple[str, ...]:
    """Where Core's config files may lie on the host: mounted at /config, or a file below it.

    The default path is the folder /config, from which names with `config.` in them are read, by name: the usual ones.
    """
    named = core.setting("KOMODO_CONFIG_PATHS") or core.setting("KOMODO_CONFIG_PATH")
    wanted = [p.strip() for p in named.split(",") if p.strip()] or ["/config"]
    found = []
    for path in wanted:
        files = [m for m in core.mounts if m.destination == path or m.destination.startswith(path.rstrip("/") + "/")]
        for mount in files:
            name = mount.destination.rsplit("/", 1)[-1]
            if "config." in name:
                found.append(mount.source)
            elif mount.destination == path:
                found += [f"{mount.source.rstrip('/')}/{prefix}config.toml" for prefix in ("", "core.", "komodo.")]
    return tuple(dict.fromkeys(found))


def settings_of(core: Container, *, files: Mapping[str, str], configs: Iterable[str] = ()) -> CoreSettings:
    """Core's settings. `files`: contents of `secret_files`; `configs`: texts of `config_paths`, in order."""
    toml: dict[str, Any] = {}
    configs = tuple(configs)
    for text in configs:
        try:
            toml.update(tomllib.loads(_filled(text.removeprefix("\ufeff"), core)))
        except tomllib.TOMLDecodeError:
            continue  # Core skips such a file too, with a warning
    database = toml.get("database") or toml.get("mongo") or {}
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name in _DATABASE:
        values[name], sources[name] = _database_value(core, name, files, database)
    login: DatabaseLogin | None = None
    problem = hint = ""
    try:
        login = login_of(
            uri=values["uri"],
            address=values["address"] or ("localhost:27017" if not values["uri"] else ""),
            username=values["username"],
            password=values["password"],
            name=values["db_name"],
        )
    except DatabaseError as error:
        problem, hint = error.what, error.hint
    port = core.setting("KOMODO_PORT") or str(toml.get("port", ""))
    return CoreSettings(
        host=core.setting("KOMODO_HOST") or str(toml.get("host", "")),
        port=int(port) if port.isdigit() else CORE_PORT,
        ssl=_truth(core.setting("KOMODO_SSL_ENABLED") or toml.get("ssl_enabled", False)),
        monitoring_interval=parse_interval(
            core.setting("KOMODO_MONITORING_INTERVAL") or str(toml.get("monitoring_interval", ""))
        ),
        passkey_set=bool(core.setting("KOMODO_PASSKEY") or core.setting("KOMODO_PASSKEY_FILE") or toml.get("passkey")),
        private_key=core.setting("KOMODO_PRIVATE_KEY") or str(toml.get("private_key", "")),
        bare_variables=any(has_bare_variables(text) for text in configs),
        webhook_app=bool(core.setting("KOMODO_GITHUB_WEBHOOK_APP_APP_ID") or toml.get("github_webhook_app")),
        database=login,
        database_problem=problem,
        database_hint=hint,
        sources=sources,
        password_file=secret_files(core).get("password", ""),
    )


def _filled(text: str, core: Container) -> str:
    """`${VAR}` of Core's environment, which v1.19 and v2 put in (v1.19.5:lib/config/src/load.rs, `interpolate_env`)."""
    return re.sub(r"\$\{(\w+)\}", lambda match: core.env.get(match[1], ""), text)


def _database_value(core: Container, name: str, files: Mapping[str, str], config: Mapping[str, Any]) -> tuple[str, str]:
    if name in files:
        return files[name].strip(), "file"
    for variable in (f"KOMODO_DATABASE_{name.upper()}", f"KOMODO_MONGO_{name.upper()}"):
        value = core.setting(variable)
        if value:
            return value, variable
    return (str(config[name]), "config") if config.get(name) else ("", "")


def _truth(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1")


# --- what v2 makes of it -------------------------------------------------------------------------------------------


def host_findings(settings: CoreSettings) -> list[Finding]:
    """KOMODO_HOST must be an absolute URL: without a scheme v2 starts, answers, and never connects to any agent.

    v2.3.2:bin/core/src/config.rs `core_connection_query`.
    """
    if not settings.host:
        return []
    try:
        parts = urlsplit(settings.host)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if good:
        return []
    return [
        refuse(
            "host-not-url",
            f"KOMODO_HOST is {settings.host!r}, which is no absolute URL: v2's Core would start, answer, and connect "
            "to no server at all",
            f"set KOMODO_HOST=https://{settings.host.strip('/') or 'komodo.example.com'} where Core gets it from",
        )
    ]


def alias_findings(
    container: Container, pairs: Iterable[tuple[str, ...]], *, commented_out: Iterable[str] = ()
) -> list[Finding]:
    """Pairs of names for one setting that are both set. `commented_out`: variables that our edit takes away."""
    gone = {n.upper() for n in commented_out}
    present = {k.upper() for k in container.env} - gone
    found = []
    for new, old in pairs:
        if old in present and (new in present or new in _FROM_IMAGE):
            why = "v2's image sets the other" if new in _FROM_IMAGE else "both are set"
            found.append(
                refuse(
                    "alias-pair",
                    f"{old} and {new} are one setting in v2 and {why}: {container.name} would end at once "
                    f"with `duplicate field`",
                    f"remove {old} where {container.name} gets it from (env file or `environment:`)",
                )
            )
    return found


def setting_findings(core: Container, settings: CoreSettings) -> list[Finding]:
    """Settings whose meaning changes from v1 to v2."""
    found = []
    if not settings.passkey_set:
        found.append(
            warn(
                "default-passkey",
                "Core has no KOMODO_PASSKEY: in v1 it used the built-in default, v2 has none. Agents whose passkeys "
                "hold that default are reached by key only",
                "nothing to do: every agent upgraded here gets Core's key",
            )
        )
    if core.setting("KOMODO_PASSKEYS"):
        found.append(
            warn(
                "misspelt-setting",
                "Core's environment sets KOMODO_PASSKEYS, which Core ignores: its name is KOMODO_PASSKEY",
                "remove it: v2's Core is known to agents by its key",
            )
        )
    if settings.bare_variables:
        found.append(
            refuse(
                "config-broken",
                "Core's config file has a ${…} without quotes: v1.19 fills it in before it reads the file, "
                "v2 skips all of it",
                "write the value itself there",
            )
        )
    if core.mount_at("/backups") is None:
        found.append(
            warn(
                "no-backups-mount",
                "/backups is not mounted: what Komodo's own `Backup Core Database` writes is lost with the container",
                "add `- /etc/komodo/backups:/backups` to Core's volumes",
            )
        )
    if settings.webhook_app:
        found.append(
            warn(
                "webhook-app",
                "the GitHub webhook app is configured; v2 has no such thing",
                "make the webhooks by hand in the repositories",
            )
        )
    return found


# --- addresses of servers ------------------------------------------------------------------------------------------


def address_problem(address: str) -> str:
    """Why v2 does not get through to this Server address, which worked with v1; "" when nothing is wrong.

    The host is part of v2's handshake: Core sends it as a URL parser writes it, the agent compares the Host header
    (v2.3.2:lib/transport/src/auth.rs; upstream issue 1374).
    """
    text = address if "://" in address else f"//{address}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is no address"
    scheme, separator, _ = address.partition("://")
    if separator and scheme != scheme.lower():
        return "has upper-case letters before its ://"
    host = parts.netloc.rsplit("@", 1)[-1]
    if host != host.lower():
        return "has upper-case letters in its host name"
    if parts.path.endswith("/"):
        return "ends in a slash"
    if (parts.scheme, port) in (("https", 443), ("http", 80)):
        return f"names the default port {port}"
    return ""


def agent_of(address: str) -> str:
    """host:port that an address leads to, for telling whether two Servers use one agent; "" for an empty address."""
    if not address:
        return ""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port
    except ValueError:
        return address
    default = {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{(parts.hostname or '').lower()}:{port or default}"


def machine_of(address: str) -> str:
    """The machine that an address leads to, in lower case and without brackets; "" where the address names none."""
    with contextlib.suppress(ValueError):
        return str(ip_address(address))
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""
