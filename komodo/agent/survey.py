"""What was read from one machine about its agent, before it is evaluated. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from komodo.agent import unit
from komodo.logs import RunLog
from model.errors import UpgradeError
from model.facts import Finding, Severity
from model.fleet.spec import AgentRelease, ServerSpec, slug

Output = Mapping[str, Sequence[str]]


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
    machine: Output = field(repr=False)
    """Output of survey_server.sh; a unit's Environment= may hold passkeys."""
    files: Output = field(default_factory=dict)
    """Output of survey_files.sh."""
    configs: tuple[ConfigFile, ...] = ()
    unit: unit.Unit
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """PERIPHERY_ settings of the environment; values that may be secret are "(set)"."""
    agents_url: str = ""
    """Where the agent is to connect to, if the fleet file wants that."""
    agents_url_problem: str = ""
    """Why this host does not reach Core there."""
    key_files: Mapping[str, str] = field(default_factory=dict)
    """`file:` entries of core_public_keys → the key in that file; empty: there is none."""
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
    in_container: bool = False
    """`unit` has the name of a container then."""

    @property
    def restart_command(self) -> str:
        """What a person types to restart the agent."""
        manager = "docker" if self.in_container else "systemctl --user" if self.unit.scope else "systemctl"
        return f"{manager} restart {self.unit.name}"


def one(output: Output, key: str) -> str:
    """The first value of a key; empty where there is none."""
    return next(iter(output.get(key, ())), "")


def unit_of(machine: Output, server: ServerSpec) -> unit.Unit:
    """The unit, with the paths of the fleet file instead of the detected ones."""
    user, home = one(machine, "user"), one(machine, "home")
    found = unit.parse_unit("\n".join(machine.get("show", ())), name=server.unit, user=user, home=home)
    if server.binary and (server.config or found.config_paths):
        found = replace(found, refused="", binary=server.binary)
    elif server.binary:
        found = replace(found, binary=server.binary)
    if server.config:
        found = replace(found, config_paths=(server.config,), config_source="the fleet file")
    return found


def settings_of(machine: Output, found: unit.Unit) -> dict[str, str]:
    """PERIPHERY_ settings: unit, environment files, `.env`; the running process has the last word."""
    settings = {k.upper(): v for k, v in found.environment.items() if k.upper().startswith("PERIPHERY_")}
    for line in machine.get("setting", ()):
        _source, name, value = [*line.split("\t"), "", ""][:3]
        settings[name] = value
    return settings


def from_error(name: str, error: UpgradeError) -> Finding:
    """A host that could not be surveyed, as a refusal with its hint."""
    code = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("-")
    return Finding(code=code, severity=Severity.REFUSE, subject=name, text=error.what, hint=error.hint)


def lock_of_another(survey: Survey) -> str:
    """ "<fleet> <change>" if another fleet holds the host's lock; empty otherwise."""
    return survey.lock if survey.lock and survey.lock.split(" ")[0] != slug(survey.fleet) else ""


def locked(fleet: str, change: str, use: str, state_dir: str) -> tuple[str, str]:
    """Text and hint of another fleet's lock, on a server or on Core's host."""
    text = f"the upgrade {change} of the fleet {fleet} holds this host{f', {use}' if use else ''}"
    hint = (
        f"let it end (`komodo-upgrade status {fleet}` where it was begun). A later run of {fleet} takes it over, "
        f"another fleet thirty days after its last use. If it is over: sudo rm -r {state_dir}/lock on the host"
    )
    return text, hint
