"""The stand-ins of a host: command name -> what runs it."""

from __future__ import annotations

import functools

from sandbox.docker import cli
from sandbox.docker.engine import Engine
from sandbox.machine import download, shims, sudo, systemctl
from sandbox.machine.call import Handler


def handlers(engine: Engine | None = None) -> dict[str, Handler]:
    """Those that every host has, and `docker` on a host with an engine."""
    docker: dict[str, Handler] = {"docker": functools.partial(cli.run, engine)} if engine else {}
    if engine and engine.old_compose:
        docker["docker-compose"] = functools.partial(cli.old_compose, engine)
    return {
        "sudo": sudo.run,
        "systemctl": systemctl.systemctl,
        "systemd-run": systemctl.systemd_run,
        "journalctl": systemctl.journalctl,
        "curl": download.curl,
        "wget": download.wget,
        "id": shims.identity,
        "chown": shims.change_owner,
        "df": shims.disk_free,
        **docker,
    }
