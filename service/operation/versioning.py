"""Temporal's Worker Versioning: a run stays with the release that began it, while new runs use the current one.

On when TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID are set, as Temporal's worker controller for Kubernetes
sets them. Upgrades, rollbacks and checks are pinned; watches move on to the current version.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import timedelta

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from model.errors import UpgradeError
from service.operation.pollers import set_current

DEPLOYMENT = "TEMPORAL_DEPLOYMENT_NAME"
BUILD = "TEMPORAL_WORKER_BUILD_ID"
_ANSWER = timedelta(seconds=10)
_UNTIL_KNOWN = timedelta(seconds=60)
"""Temporal knows a version some seconds after its first poll."""


def from_environment(environ: Mapping[str, str] = os.environ) -> WorkerDeploymentVersion | None:
    """This worker's version; None: no versioning. Raises UpgradeError when only one of the two is set."""
    deployment, build = environ.get(DEPLOYMENT, ""), environ.get(BUILD, "")
    if bool(deployment) != bool(build):
        missing = BUILD if deployment else DEPLOYMENT
        raise UpgradeError(
            f"Worker Versioning needs {DEPLOYMENT} and {BUILD}; {missing} is not set",
            hint="set both, or neither",
        )
    return WorkerDeploymentVersion(deployment_name=deployment, build_id=build) if deployment else None


def config(version: WorkerDeploymentVersion | None) -> WorkerDeploymentConfig | None:
    """For a worker. A workflow that does not say that it moves on is pinned."""
    if version is None:
        return None
    return WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )


async def make_current(client: Client, version: WorkerDeploymentVersion) -> None:
    """New runs use this version from now on. Called when the worker polls. Raises UpgradeError."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=version.deployment_name,
        build_id=version.build_id,
        identity=client.identity,
    )
    deadline = time.monotonic() + _UNTIL_KNOWN.total_seconds()
    while True:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request, timeout=_ANSWER)
        except RPCError as error:
            unknown = error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION)
            if unknown and time.monotonic() < deadline:
                await asyncio.sleep(0.5)
                continue
            raise UpgradeError(
                f"{version.deployment_name}, build {version.build_id}, cannot be made current: {error.message}",
                residue="new runs use the version that was current before, if there was one",
                hint=set_current(version.deployment_name, version.build_id),
            ) from None
        return
