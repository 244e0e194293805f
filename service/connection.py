"""The way to Temporal: its own settings (TEMPORAL_*, temporal.toml), else the embedded server of this machine."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from model.errors import TemporalUnavailable
from service.codec import key_ring
from service.codec.binding import encrypted
from service.codec.key_ring import KeyRing
from service.operation import tracing
from service.operation.release import Releases
from service.payloads import data_converter

DEFAULT_ADDRESS = "localhost:7233"


def actor() -> str:
    """Who acts, for the record: the user's name. Self-declared; authority is who may reach Temporal."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def identity() -> str:
    """What Temporal's history keeps for each signal and update of this process."""
    return f"komodo-upgrade:{actor()}@{socket.gethostname()}"


def worker_identity() -> str:
    """What Temporal shows for a worker: one name for each process, also where pids repeat (containers)."""
    return f"komodo-upgrade-worker:{actor()}@{socket.gethostname()}/{os.getpid()}-{secrets.token_hex(2)}"


def configured() -> dict[str, Any]:
    """Temporal's own settings as arguments of `Client.connect`; empty when none is set."""
    try:
        return dict(ClientConfig.load_client_connect_config())
    except RuntimeError as error:
        hint = "correct TEMPORAL_* or temporal.toml; with none set, an embedded server is used"
        raise TemporalUnavailable(f"Temporal's settings cannot be read: {error}", hint=hint) from None


def without_settings(environ: Mapping[str, str], empty_file: Path) -> dict[str, str]:
    """An environment in which nothing points to another Temporal than the one given later."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("TEMPORAL_", key_ring.ENV))}
    return kept | {"TEMPORAL_CONFIG_FILE": str(empty_file)}


def converter() -> DataConverter:
    """Encrypting, where the environment names a key ring. Raises KeyRingError."""
    ring = key_ring.from_environment()
    return encrypted(ring) if ring else data_converter


async def connect(
    config: Mapping[str, Any], *, keys: KeyRing | None = None, timeout: timedelta = timedelta(seconds=10)
) -> Client:
    """A client that speaks this project's data format; `keys`: with this key ring instead of the environment's.

    Raises TemporalUnavailable and KeyRingError.
    """
    spoken = encrypted(keys) if keys else converter()
    settings = {"target_host": DEFAULT_ADDRESS, **config}
    settings.setdefault("identity", identity())
    try:
        client = await Client.connect(
            data_converter=spoken,
            connect_timeout=timeout,
            interceptors=[Releases(), *tracing.interceptors()],
            **settings,
        )
        request = DescribeNamespaceRequest(namespace=client.namespace)
        await client.workflow_service.describe_namespace(request, timeout=timeout)
    except (RuntimeError, RPCError, OSError) as error:
        raise _unavailable(settings, str(error)) from None
    return client


def _unavailable(settings: Mapping[str, Any], why: str) -> TemporalUnavailable:
    address, namespace = settings["target_host"], settings.get("namespace", "default")
    line = " ".join(why.split())[:300]
    return TemporalUnavailable(
        f"no Temporal server answers at {address} (namespace {namespace}): {line}",
        hint="check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE; with none set, an embedded server is used",
    )
