"""`up --install`: the embedded service as a systemd user unit, which starts again after a reboot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from model.errors import ServiceRefused
from service.embedded.state import StateDir, default_root

NAME = "komodo-upgrade.service"


def unit(state: StateDir) -> str:
    """Text of the unit."""
    return f"""\
[Unit]
Description=Komodo upgrades: embedded Temporal server and worker
Documentation=https://docs.temporal.io

[Service]
ExecStart={sys.executable} -P -m service.embedded.supervisor --state {state.root}
# Only the supervisor gets the signal; it drains the worker (30 s) and closes the database.
KillMode=mixed
TimeoutStopSec=75
Restart=on-failure
RestartSec=2
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


def path() -> Path:
    """The unit's path."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "systemd" / "user" / NAME


def install(state: StateDir) -> list[str]:
    """Write, enable and start the unit; returns notes for the operator. Raises ServiceRefused."""
    if shutil.which("systemctl") is None:
        raise ServiceRefused(
            "there is no systemd here", hint="`komodo-upgrade up` works without it, until the next reboot"
        )
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_text(unit(state))
    for arguments in (["daemon-reload"], ["enable", "--now", NAME]):
        done = _systemctl(*arguments)
        if done.returncode:
            raise ServiceRefused(
                f"systemctl --user {' '.join(arguments)}: {done.stderr.strip()[:300]}",
                residue=f"{path()} is written",
                hint="log in as this user (not by su), or use `komodo-upgrade up` without --install",
            )
    notes = [f"unit {path()} is enabled"]
    if not Path(f"/var/lib/systemd/linger/{os.environ.get('USER', '')}").exists():
        notes.append("it stops at logout unless: loginctl enable-linger")
    notes.append(
        "secrets reach its worker from the shell of `start`; after a reboot, `komodo-upgrade start` again gives them"
    )
    return notes


def start(state: StateDir) -> bool:
    """Start the installed unit. False: none is installed for this folder."""
    if state.root != default_root() or not path().exists() or shutil.which("systemctl") is None:
        return False
    return _systemctl("start", NAME).returncode == 0


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - fixed arguments
        ["systemctl", "--user", *arguments],  # noqa: S607 - where systemctl lies differs per system
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
