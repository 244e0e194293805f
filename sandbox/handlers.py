"""Command name -> stand-in."""

from __future__ import annotations

from sandbox import docker_cli, download, shims, sudo, systemctl
from sandbox.standin import Handler

HANDLERS: dict[str, Handler] = {
    "sudo": sudo.run,
    "systemctl": systemctl.systemctl,
    "systemd-run": systemctl.systemd_run,
    "journalctl": systemctl.journalctl,
    "docker": docker_cli.run,
    "curl": download.curl,
    "wget": download.wget,
    "id": shims.identity,
    "chown": shims.change_owner,
    "df": shims.disk_free,
}
