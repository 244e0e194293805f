"""An agent that does not run as root has to make its key in `<root_directory>/keys`, which v1 never needed.

v2 ends where it cannot: "Failed to write private key pem to …" (v2.3.2:bin/periphery/src/state.rs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from komodo.agent.survey import ConfigFile, Survey, one
from komodo.agent.unit import Unit
from komodo.files.periphery_toml import inspect
from komodo.releases import printed_version
from model.facts import Finding, Severity
from model.fleet.spec import Sudo

ROOT_DIRECTORY = "/etc/komodo"


def keys_folder(
    unit: Unit, settings: Mapping[str, str], configs: Sequence[ConfigFile], printed: Mapping[str, Sequence[str]]
) -> str:
    """Where v2 will want to write a key for the first time; empty for root, and where a v2 agent has written it."""
    if unit.user in ("", "root", "0") or not printed_version(one(printed, "binary_version")).startswith("1."):
        return ""
    named = [inspect(c.text).root_directory for c in configs if c.text is not None]
    root = settings.get("PERIPHERY_ROOT_DIRECTORY") or next((n for n in reversed(named) if n != ROOT_DIRECTORY), "")
    return f"{(root or ROOT_DIRECTORY).rstrip('/')}/keys"


def findings(survey: Survey) -> Iterator[Finding]:
    """Findings about it. `survey.not_writable`: the place where its user may not write."""
    if not survey.not_writable:
        return
    user, folder = survey.unit.user, survey.keys_folder
    yield Finding(
        code="keys-not-writable",
        severity=Severity.REFUSE,
        subject=survey.server.name,
        text=f"its agent runs as {user}, who cannot write to {survey.not_writable}: v2 keeps its key in {folder} and "
        "does not start without",
        hint=f"sudo install -d -m 700 -o {user} {folder}",
    )


def elsewhere(survey: Survey) -> Iterator[Finding]:
    """No unit of the system has that name, but one of a user has, and the survey ran as somebody else."""
    server = survey.server
    for line in survey.machine.get("user_unit", ()):
        name, _, path = line.partition("\t")
        home = path.partition("/.config/")[0]
        yield Finding(
            code="user-unit",
            severity=Severity.REFUSE,
            subject=server.name,
            text=f"there is no {server.unit} of the system, but a unit of the user {name}: {path}. Its steps run as "
            f"{name}, not as root",
            hint=f'write in this [[server]]: install = "systemd-user", user = "{name}", sudo = "none", '
            f'state_dir = "{home}/.local/state/komodo-upgrade"',
        )


def unit_findings(survey: Survey) -> Iterator[Finding]:
    """What the upgrade of a user's own unit needs."""
    server, unit = survey.server, survey.unit
    if not unit.scope:
        return
    home, manager = one(survey.machine, "home"), f"systemctl --user restart {unit.name}"

    def refuse(code: str, text: str, hint: str) -> Finding:
        return Finding(code=code, severity=Severity.REFUSE, subject=server.name, text=text, hint=hint)

    if server.host.sudo is not Sudo.NONE:
        text = 'with install = "systemd-user" the steps run as the user of the unit, but sudo makes them run as root'
        yield refuse("user-unit-as-root", text, 'sudo = "none" and user = "…" in this [[server]]')
    if one(survey.machine, "linger") == "no":
        text = f"lingering is off for {unit.user}: the agent ends with the last session of that user"
        yield refuse("no-linger", text, f"sudo loginctl enable-linger {unit.user}")
    if home and not f"{server.host.state_dir}/".startswith(f"{home.rstrip('/')}/"):
        text = f"state_dir {server.host.state_dir} is not below the home folder of {unit.user}"
        yield refuse("state-dir", text, f'state_dir = "{home}/.local/state/komodo-upgrade" in this [[server]]')
    if unit.active and not survey.log.version:
        text = f"{unit.user} cannot read the agent's journal, or it does not reach back to the agent's start"
        hint = f"{manager}, then run check again; if that does not help: sudo usermod -aG systemd-journal {unit.user}"
        yield refuse("journal-not-readable", text, hint)
