"""Every activity of the project, built once per worker and sharing one set of SSH connections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from temporalio import activity

from activities import contracts
from activities.core.backup import CoreBackup
from activities.core.key_pair import CoreKeys
from activities.core.preflight import PreflightCore
from activities.core.rollback import CoreRollback
from activities.core.upgrade import Core
from activities.database.dumps import Dumps
from activities.fleet.discovery import Discovery
from activities.fleet.monitor import Watching
from activities.fleet.notices import Notices
from activities.fleet.report import Report
from activities.fleet.run_folders import Folders
from activities.fleet.schedule import Schedule
from activities.server.agents import Agents
from activities.server.auto_rollback import AutoRollbackTimer
from activities.server.connection import Connections
from activities.server.verify import Verify
from hosts.ssh.pool import Hosts
from model.errors import UpgradeError

SUBJECTS = (
    PreflightCore,
    CoreBackup,
    Dumps,
    Core,
    CoreKeys,
    Agents,
    Verify,
    Connections,
    AutoRollbackTimer,
    CoreRollback,
    Folders,
    Report,
    Schedule,
    Notices,
    Watching,
    Discovery,
)


def build(hosts: Hosts) -> list[Callable[..., Any]]:
    """All activities as bound methods; `hosts` is the pool of connections they share.

    Raises UpgradeError where they differ from the table of contracts: Temporal would retry an activity that no worker
    implements forever.
    """
    found: list[Callable[..., Any]] = []
    for subject in SUBJECTS:
        found += [m for _, m in inspect.getmembers(subject(hosts), inspect.ismethod) if definition_of(m)]
    if problems := mismatches(found):
        raise UpgradeError(f"this installation is not complete: {'; '.join(problems)}", hint="install it again")
    return found


def mismatches(methods: Sequence[Callable[..., Any]]) -> list[str]:
    """How implementations differ from the contracts: missing, unknown, other types. Empty if they agree."""
    have = {definition.name or "": definition for m in methods if (definition := definition_of(m))}
    wanted = {contract.name: contract for contract in contracts.TABLE}
    problems = [f"activity {name} is missing" for name in wanted if name not in have]
    problems += [f"activity {name} has no contract" for name in have if name not in wanted]
    for name in have:
        types = (have[name].arg_types, have[name].ret_type)
        if name in wanted and types != ([wanted[name].input], wanted[name].result):
            problems.append(f"activity {name} takes and returns other types than its contract")
    return problems


def definition_of(method: Callable[..., Any]) -> activity._Definition | None:
    """Temporal's own record of an activity; None for other methods."""
    return activity._Definition.from_callable(method)
