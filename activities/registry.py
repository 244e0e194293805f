"""Every activity of the project, built once per worker and sharing one set of SSH connections."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from activities.artifacts import Artifacts
from activities.backup import CoreBackup
from activities.core import Core
from activities.core_key import CoreKeys
from activities.dead_man import DeadManTimer
from activities.dumps import Dumps
from activities.folders import Folders
from activities.periphery import Periphery
from activities.preflight_core import PreflightCore
from activities.preflight_server import PreflightServer
from activities.report import Report
from activities.rollback import CoreRollback
from activities.server_backup import ServerBackup
from activities.verify import Verify
from activities.watching import Watching
from hosts.pool import Hosts

SUBJECTS = (
    PreflightCore,
    PreflightServer,
    CoreBackup,
    Dumps,
    ServerBackup,
    Artifacts,
    Core,
    CoreKeys,
    Periphery,
    Verify,
    DeadManTimer,
    CoreRollback,
    Folders,
    Report,
    Watching,
)

NAMES = (
    "survey_core",
    "survey_server",
    "recheck_core",
    "recheck_server",
    "back_up_core",
    "dump_database",
    "prove_dump",
    "fingerprint_database",
    "stage_core",
    "stage_core_key",
    "stop_core",
    "start_old_core",
    "write_core_files",
    "start_core",
    "read_core_key",
    "switch_core_agent",
    "restore_core_agent",
    "restore_core_files",
    "restore_database",
    "downgrade_database",
    "check_rollback",
    "check_server_rollback",
    "return_to_new_core",
    "back_up_server",
    "stage_server",
    "switch_server",
    "restore_server",
    "verify_server",
    "look_at_dead_man",
    "disarm_dead_man",
    "release_host",
    "look_at_folders",
    "clean_host",
    "post_checks",
    "save_report",
    "watch_fleet",
    "save_watch",
    "notify",
)
"""What the workflows call. One that no worker knows is retried by Temporal for ever, so the worker checks at start."""


def build(hosts: Hosts) -> list[Callable[..., Any]]:
    """All activities as bound methods; `hosts` is the pool of connections they share."""
    instances = [subject(hosts) for subject in SUBJECTS]
    return [method for instance in instances for _, method in inspect.getmembers(instance, _is_activity)]


def missing(methods: list[Callable[..., Any]]) -> list[str]:
    """Names of NAMES that `methods` lack."""
    have = {name_of(method) for method in methods}
    return [name for name in NAMES if name not in have]


def name_of(method: Callable[..., Any]) -> str:
    """Under which workflows call it."""
    definition: Any = getattr(method, "__temporal_activity_definition", None)
    return str(definition.name)


def _is_activity(member: Any) -> bool:
    return inspect.ismethod(member) and hasattr(member, "__temporal_activity_definition")
