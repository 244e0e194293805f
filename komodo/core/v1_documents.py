"""What v1 does not read in documents that v2 wrote, and that `km database v1-downgrade` leaves as it is. Pure.

One document that v1 cannot parse makes a whole list of its API fail, such as `unknown variant `UpdateServerKey`` for
ListUpdates; a User with a Swarm among its recent pages cannot log in. Seen on v1.19.5 after v2.3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
_OPERATIONS = frozenset(_V1_19_5.split())
"""v1.19.5:client/core/rs/src/entities/mod.rs `Operation`."""
_V1_19_5_EXECUTIONS = (
    "None RunAction BatchRunAction RunProcedure BatchRunProcedure RunBuild BatchRunBuild CancelBuild Deploy "
    "BatchDeploy PullDeployment StartDeployment RestartDeployment PauseDeployment UnpauseDeployment StopDeployment "
    "DestroyDeployment BatchDestroyDeployment CloneRepo BatchCloneRepo PullRepo BatchPullRepo BuildRepo BatchBuildRepo "
    "CancelRepoBuild StartContainer RestartContainer PauseContainer UnpauseContainer StopContainer DestroyContainer "
    "StartAllContainers RestartAllContainers PauseAllContainers UnpauseAllContainers StopAllContainers PruneContainers "
    "DeleteNetwork PruneNetworks DeleteImage PruneImages DeleteVolume PruneVolumes PruneDockerBuilders PruneBuildx "
    "PruneSystem RunSync CommitSync DeployStack BatchDeployStack DeployStackIfChanged BatchDeployStackIfChanged "
    "PullStack BatchPullStack StartStack RestartStack PauseStack UnpauseStack StopStack DestroyStack BatchDestroyStack "
    "RunStackService TestAlerter SendAlert ClearRepoCache BackupCoreDatabase GlobalAutoUpdate Sleep "
)
_EXECUTIONS = frozenset(_V1_19_5_EXECUTIONS.split())
"""v1.19.5:client/core/rs/src/api/execute/mod.rs `Execution`."""
_SINCE_1_19_1 = frozenset({"RunStackService", "SendAlert"})
SWARM = "Swarm"
"""The one kind of resource that v1 does not know."""
_SWARM_ALERT = "SwarmUnhealthy"
_NOTHING = {"type": "None", "params": {}}
"""The execution that does nothing, in both versions."""


def why_not_kept(version: str) -> str:
    """Why data written since cannot be kept in a rollback to this version of Core; empty if it can."""
    old = version_of(version) or (0, 0, 0)
    if old >= FIRST_V2:
        return f"what was written since cannot be kept: km takes a database to v1's form only, not to that of {version}"
    if old < OLDEST_KEPT:
        return (
            f"what was written since cannot be kept: Core {version} is older than 1.19.0, which is the oldest whose "
            "documents are known"
        )
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class V1:
    """The v1 release that will read the documents."""

    version: tuple[int, int, int]
    servers: Mapping[str, str] = field(default_factory=dict)
    """Id → name, for texts."""

    @property
    def operations(self) -> frozenset[str]:
        """Of Updates."""
        return _OPERATIONS if self.version >= (1, 19, 1) else _OPERATIONS - _SINCE_1_19_1

    @property
    def executions(self) -> frozenset[str]:
        """Of Procedures."""
        return _EXECUTIONS if self.version >= (1, 19, 1) else _EXECUTIONS - _SINCE_1_19_1

    def names(self, ids: Iterable[Any]) -> str:
        """The names of servers."""
        return ", ".join(self.servers.get(str(i), str(i)) for i in ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """How one document is changed so that v1 reads it."""

    set: Mapping[str, Any] = field(default_factory=dict)
    """Path → value."""
    unset: tuple[str, ...] = ()
    lost: str = ""
    """What v1 does not have of it, for people; empty: nothing."""


Document = Mapping[str, Any]


def _config(document: Document) -> Mapping[str, Any]:
    config = document.get("config")
    return config if isinstance(config, Mapping) else {}


def _list(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else ()


def builder(document: Document, v1: V1) -> Converted | None:
    """v2.3 renamed `server_id` to `server_ids`, and `docker_registries` to `image_registries`."""
    params = _config(document).get("params")
    if not isinstance(params, Mapping):
        return None
    change: dict[str, Any] = {}
    lost = ""
    if "server_ids" in params:
        first, *others = [*_list(params["server_ids"]), ""]
        change["config.params.server_id"] = first
        others = [i for i in others if i]
        if others:
            lost = f"Builder {document.get('name')} builds on {v1.names([first])} only, not on {v1.names(others)}"
    if "image_registries" in params and (params["image_registries"] or not params.get("docker_registries")):
        change["config.params.docker_registries"] = params["image_registries"]
    gone = tuple(f"config.params.{name}" for name in ("server_ids", "image_registries") if name in params)
    return Converted(set=change, unset=gone, lost=lost) if gone else None


def stack(document: Document, _v1: V1) -> Converted | None:
    """v2 writes `additional_env_files` as `{path, track}`: v1 cannot list any Stack then."""
    files = _list(_config(document).get("additional_env_files"))
    if not any(isinstance(file, Mapping) for file in files):
        return None
    untracked = [str(f.get("path")) for f in files if isinstance(f, Mapping) and not f.get("track", True)]
    lost = f"Stack {document.get('name')} tracks {', '.join(untracked)} again" if untracked else ""
    paths = [str(f.get("path")) if isinstance(f, Mapping) else f for f in files]
    return Converted(set={"config.additional_env_files": paths}, lost=lost)


def procedure(document: Document, v1: V1) -> Converted | None:
    """An execution of v2 only makes every Procedure unreadable: it becomes one that does nothing."""
    stages: list[Any] = []
    gone: list[str] = []
    for stage in _list(_config(document).get("stages")):
        executions = []
        for entry in _list(stage.get("executions")):
            kind = str((entry.get("execution") or {}).get("type"))
            if kind not in v1.executions:
                gone.append(kind)
                entry = {**entry, "execution": dict(_NOTHING), "enabled": False}
            executions.append(entry)
        stages.append({**stage, "executions": executions})
    if not gone:
        return None
    return Converted(set={"config.stages": stages}, lost=f"Procedure {document.get('name')} loses {', '.join(gone)}")


def alerter(document: Document, _v1: V1) -> Converted | None:
    """A Swarm among its resources or alerts makes every Alerter unreadable.

    An empty list means all: an Alerter that is left with one is disabled.
    """
    config = _config(document)
    kept = {
        "alert_types": [kind for kind in _list(config.get("alert_types")) if kind != _SWARM_ALERT],
        "resources": [target for target in _list(config.get("resources")) if target.get("type") != SWARM],
        "except_resources": [target for target in _list(config.get("except_resources")) if target.get("type") != SWARM],
    }
    changed = {name: values for name, values in kept.items() if len(values) != len(_list(config.get(name)))}
    if not changed:
        return None
    change: dict[str, Any] = {f"config.{name}": values for name, values in changed.items()}
    lost = f"Alerter {document.get('name')} has no swarms any more"
    if any(not changed[name] for name in ("alert_types", "resources") if name in changed):
        change["config.enabled"] = False
        lost += " and is disabled, because it would alert about everything"
    return Converted(set=change, lost=lost)


def in_swarm(document: Document, _v1: V1) -> Converted | None:
    """Nothing is changed: v1 ignores `swarm_id`."""
    if not _config(document).get("swarm_id"):
        return None
    return Converted(lost=f"{document.get('name')} runs in a Swarm: v1 shows it without a server")


def server(document: Document, _v1: V1) -> Converted | None:
    """Nothing is changed: a Server without an address belongs to an agent that connects by itself."""
    if _config(document).get("address"):
        return None
    return Converted(lost=f"Server {document.get('name')} has no address, and v1 connects to addresses only")


def user(document: Document, _v1: V1) -> Converted | None:
    """Nothing is changed: v1 ignores a second factor."""
    factors = bool((document.get("totp") or {}).get("secret")) or bool((document.get("passkey") or {}).get("passkey"))
    if not factors and not document.get("linked_logins"):
        return None
    what = "second factor" if factors else "additional logins"
    return Converted(lost=f"User {document.get('username')} logs in without the {what} made in v2")
