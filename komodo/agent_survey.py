"""What was read from one machine about its agent, before it is judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from komodo import unit
from komodo.logs import RunLog
from model.errors import UpgradeError
from model.facts import Finding, Severity
from model.fleet import AgentRelease, ServerSpec, slug

Said = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One config file as it lies on the host. The text may hold passkeys and is never shown."""

    path: str
    sha256: str
    text: str | None = field(repr=False)
    """None: it is no UTF-8."""
    guide_backup: str = ""
    """sha256 of the file that already has the guide's backup name; empty: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Everything that was read from one machine."""

    server: ServerSpec
    target: str
    fleet: str
    agent: AgentRelease
    machine: Said = field(repr=False)
    """What survey_server.sh said; a unit's Environment= may hold passkeys."""
    files: Said = field(default_factory=dict)
    """What survey_files.sh said."""
    configs: tuple[ConfigFile, ...] = ()
    unit: unit.Unit
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """PERIPHERY_ settings of the environment; values that may be secret are "(set)"."""
    log: RunLog = RunLog()
    """Of the running agent."""
    clock_ahead: timedelta = timedelta()
    keys_folder: str = ""
    """Where v2 will make its key as a user that is not root; empty: as root, or it is there already."""
    not_writable: str = ""
    """The place where that user may not write; empty: there is none."""
    lock: str = ""
    """"<fleet slug> <change>" of the lock that is held on the host; empty: none, or one that has expired."""
    lock_use: str = ""
    """Since when, when it was last used, whether a job of it runs: for people."""


def one(said: Said, key: str) -> str:
    """The first value of a key; empty where there is none."""
    return next(iter(said.get(key, ())), "")


def unit_of(machine: Said, server: ServerSpec) -> unit.Unit:
    """The unit, with what the fleet file says instead of what was found."""
    found = unit.parse_unit("\n".join(machine.get("show", ())), name=server.unit)
    if server.binary and (server.config or found.config_paths):
        found = replace(found, refused="", binary=server.binary)
    elif server.binary:
        found = replace(found, binary=server.binary)
    if server.config:
        found = replace(found, config_paths=(server.config,), config_source="the fleet file")
    return found


def settings_of(machine: Said, found: unit.Unit) -> dict[str, str]:
    """PERIPHERY_ settings: unit, environment files, `.env`; the running process has the last word."""
    settings = {k.upper(): v for k, v in found.environment.items() if k.upper().startswith("PERIPHERY_")}
    for line in machine.get("setting", ()):
        _source, name, value = [*line.split("\t"), "", ""][:3]
        settings[name] = value
    return settings


def from_error(name: str, error: UpgradeError) -> Finding:
    """A host that could not be looked at, as a refusal with its cure."""
    code = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("-")
    return Finding(code=code, severity=Severity.REFUSE, subject=name, text=error.what, cure=error.cure)


def lock_of_another(survey: Survey) -> str:
    """ "<fleet> <change>" where another fleet holds the host; empty: nobody, or this fleet."""
    return survey.lock if survey.lock and survey.lock.split(" ")[0] != slug(survey.fleet) else ""


def locked(fleet: str, change: str, use: str, state_dir: str) -> tuple[str, str]:
    """What another fleet's lock means, and the rule by which it goes away. For a server and for Core's host."""
    text = f"the upgrade {change} of the fleet {fleet} holds this host{f', {use}' if use else ''}"
    cure = (
        f"let it end (`komodo-upgrade status {fleet}` where it was begun). A later run of {fleet} takes it over, "
        f"another fleet thirty days after its last use. If it is over: sudo rm -r {state_dir}/lock on the host"
    )
    return text, cure
