"""What v2 wrote that v1 cannot read, and that `km database v1-downgrade` leaves behind.

One such document makes a whole list of v1's API fail: `unknown variant `UpdateServerKey`` for ListUpdates.
"""

from __future__ import annotations

from typing import Any

from komodo.database import Database
from komodo.releases import FIRST_V2, version_of

OLDEST_KEPT = (1, 19, 0)
"""Older releases know fewer operations, and their database was never seen downgraded."""
_V1_19_5 = (
    "BackupCoreDatabase BuildRepo CancelBuild CancelRepoBuild ClearRepoCache CloneRepo CommitSync "
    "CreateAction CreateAlerter CreateBuild CreateBuilder CreateDeployment CreateDockerRegistryAccount "
    "CreateGitProviderAccount CreateNetwork CreateProcedure CreateRepo CreateResourceSync CreateServer "
    "CreateStack CreateVariable DeleteAction DeleteAlerter DeleteBuild DeleteBuilder DeleteDeployment "
    "DeleteDockerRegistryAccount DeleteGitProviderAccount DeleteImage DeleteNetwork DeleteProcedure "
    "DeleteRepo DeleteResourceSync DeleteServer DeleteStack DeleteVariable DeleteVolume Deploy DeployStack "
    "DeployStackService DestroyContainer DestroyDeployment DestroyStack DestroyStackService GlobalAutoUpdate "
    "None PauseAllContainers PauseContainer PauseDeployment PauseStack PauseStackService PruneBuildx "
    "PruneContainers PruneDockerBuilders PruneImages PruneNetworks PruneSystem PruneVolumes PullDeployment "
    "PullRepo PullStack PullStackService RefreshStackCache RenameAction RenameAlerter RenameBuild "
    "RenameBuilder RenameDeployment RenameProcedure RenameRepo RenameResourceSync RenameServer RenameStack "
    "RestartAllContainers RestartContainer RestartDeployment RestartStack RestartStackService RunAction "
    "RunBuild RunProcedure RunStackService RunSync SendAlert StartAllContainers StartContainer "
    "StartDeployment StartStack StartStackService StopAllContainers StopContainer StopDeployment StopStack "
    "StopStackService TestAlerter UnpauseAllContainers UnpauseContainer UnpauseDeployment UnpauseStack "
    "UnpauseStackService UpdateAction UpdateAlerter UpdateBuild UpdateBuilder UpdateDeployment "
    "UpdateDockerRegistryAccount UpdateGitProviderAccount UpdateProcedure UpdateRepo UpdateResourceSync "
    "UpdateServer UpdateStack UpdateVariableValue WriteDockerfile WriteStackContents WriteSyncContents "
)
OPERATIONS = frozenset(_V1_19_5.split())
"""v1.19.5:client/core/rs/src/entities/mod.rs `Operation`."""
SINCE_1_19_1 = frozenset({"RunStackService", "SendAlert"})
_SWARM = "Swarm"
"""The one kind of resource that v1 does not know."""


def why_not_kept(version: str) -> str:
    """What forbids keeping what was written since, on the way back to this version of Core; empty: nothing."""
    old = version_of(version) or (0, 0, 0)
    if old >= FIRST_V2:
        return f"what was written since cannot be kept: km takes a database to v1's form only, not to that of {version}"
    if old < OLDEST_KEPT:
        return (
            f"what was written since cannot be kept: Core {version} is older than 1.19.0, which is the oldest whose "
            "documents are known"
        )
    return ""


async def forget(database: Database, version: tuple[int, int, int]) -> tuple[str, ...]:
    """Remove what v1 of this version cannot read. Returns what was removed, for people. Raises DatabaseError.

    Harmless to repeat.
    """
    known = OPERATIONS if version >= (1, 19, 1) else OPERATIONS - SINCE_1_19_1
    removed: dict[str, int] = {}
    queries: tuple[tuple[str, dict[str, Any]], ...] = (
        ("Update", {"operation": {"$nin": sorted(known)}}),
        ("Update", {"target.type": _SWARM}),
        ("Alert", {"target.type": _SWARM}),
        # Of a stack or deployment in a swarm: v1 wants the server that such an alert has not.
        ("Alert", {"data.data.swarm_id": {"$nin": [None, ""]}}),
        ("Permission", {"resource_target.type": _SWARM}),
    )
    for collection, query in queries:
        removed[collection] = removed.get(collection, 0) + await database.remove(collection, query)
    for collection in ("User", "UserGroup"):
        for place in (f"recents.{_SWARM}", f"all.{_SWARM}"):
            await database.unset(collection, place)
    return tuple(
        f"{count} {name} documents that v1 cannot read were removed" for name, count in removed.items() if count
    )
