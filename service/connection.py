"""The way to Temporal: its own settings (TEMPORAL_*, temporal.toml), else the embedded server of this machine."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from model.errors import TemporalUnavailable
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


def configured() -> dict[str, Any]:
    """Temporal's own settings as arguments of `Client.connect`; empty when none is set."""
    try:
        return dict(ClientConfig.load_client_connect_config())
    except RuntimeError as error:
        cure = "mend TEMPORAL_* or temporal.toml; with none set, an embedded server is used"
        raise TemporalUnavailable(f"Temporal's settings cannot be read: {error}", cure=cure) from None


def without_settings(environ: Mapping[str, str], empty_file: Path) -> dict[str, str]:
    """An environment in which nothing points to another Temporal than the one given later."""
    kept = {key: value for key, value in environ.items() if not key.startswith("TEMPORAL_")}
    return kept | {"TEMPORAL_CONFIG_FILE": str(empty_file)}


async def connect(config: Mapping[str, Any], *, timeout: timedelta = timedelta(seconds=10)) -> Client:
    """A client that speaks this project's data format. Raises TemporalUnavailable."""
    settings = {"target_host": DEFAULT_ADDRESS, **config}
    settings.setdefault("identity", identity())
    try:
        client = await Client.connect(
            data_converter=data_converter,
            connect_timeout=timeout,
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
        cure="check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE; with none set, an embedded server is used",
    )
