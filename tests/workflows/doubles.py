"""Doubles of all activities: they record every call, and fail, drift or wait as a test requires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import Contract
from model.facts import (
    Backup,
    CollectionCount,
    ComposeProject,
    CoreFacts,
    DatabaseFacts,
    DatabaseFingerprint,
    DumpFacts,
    DumpProof,
    Finding,
    PlannedEdit,
    ServerFacts,
    ServiceFacts,
    Severity,
    agent_backup,
)
from model.fleet.discovery import AgentOnHost, CoreServers, FindAgent, ListedServer, ListServers
from model.fleet.spec import CoreSpec, FleetSpec, HostSpec, Rollout, ServerSpec, Timing
from model.fleet.windows import Windows, resolve
from model.run_folders import Cleaned, CleanHost, HostFolders, ScanHost
from model.steps import (
    Armed,
    AutoRollback,
    CoreKey,
    CoreStarted,
    CoreStep,
    Done,
    DumpDatabase,
    DumpStep,
    FingerprintDatabase,
    Notice,
    PostChecks,
    Proof,
    Recheck,
    Restored,
    ServerStep,
    StagedAgent,
    StagedCore,
    SurveyServer,
    Switched,
    VerifyServer,
)
from model.watch import WatchCheck

NOW = datetime(2026, 11, 23, 22, 15, tzinfo=UTC)
CHANGE = "20261123T221500Z"
KEY = "MCowBQYDK2VuAyEAb1kVSVIz3DHlPwyWEsnPFa0rPLnJNHrSHZmVLEv2Wz4="
OLD, NEW = "1.19.5", "2.3.2"
_COLLECTIONS = (CollectionCount(name="Server", documents=3), CollectionCount(name="Stack", documents=39))
QUICK = Timing(retry=timedelta(milliseconds=20), poll=timedelta(milliseconds=20), heartbeat=timedelta(seconds=5))


def fleet(servers: int = 3, *, timing: Timing = QUICK, **rollout: Any) -> FleetSpec:
    names = [f"web-{i}" for i in range(1, servers + 1)]
    return FleetSpec(
        name="prod",
        target=NEW,
        core=CoreSpec(host=HostSpec(name="core", address="core.example.net")),
        servers=tuple(ServerSpec(name=n, host=HostSpec(name=n, address=f"{n}.example.net")) for n in names),
        rollout=Rollout(**rollout),
        timing=timing,
    )


def together_fleet(servers: int = 3, **rollout: Any) -> FleetSpec:
    """As the fleet file's `mode = "all-at-once"` is read."""
    return fleet(servers, mode="all-at-once", canary=0, wave="100%", approve="core-only", **rollout)


def core_facts(*, agent: bool = False, current: bool = False) -> CoreFacts:
    version = NEW if current else OLD
    service = ServiceFacts(
        service="core",
        container="komodo-core-1",
        image=f"ghcr.io/moghtech/komodo-core:{version}",
        image_id=f"sha256:{version}",
        version=version,
        target_image=f"ghcr.io/moghtech/komodo-core:{NEW}",
    )
    agent_service = replace(service, service="periphery", container="komodo-periphery-1", version=OLD)
    edit = PlannedEdit(
        path="/opt/komodo/compose.yaml", kind="compose", base_sha256="a", result_sha256="b", diff="-x\n+y"
    )
    return CoreFacts(
        reachable=True,
        current=current,
        version=version,
        core=service,
        agent=agent_service if agent else None,
        agent_server="Local" if agent else "",
        project=ComposeProject(name="komodo", directory="/opt/komodo", files=("/opt/komodo/compose.yaml",)),
        database=DatabaseFacts(container="komodo-mongo-1", address="mongo:27017", has_mongodump=True),
        api=True,
        edits=() if current else (edit,),
    )


def server_facts(name: str, *, binary: str = "v1", current: bool = False) -> ServerFacts:
    path = "/etc/komodo/periphery.config.toml"
    edit = PlannedEdit(path=path, kind="periphery-config", base_sha256="c", result_sha256="d", diff="-p\n+q")
    return ServerFacts(
        name=name,
        reachable=True,
        current=current,
        version=NEW if current else OLD,
        unit="periphery.service",
        binary="/usr/local/bin/periphery",
        binary_sha256=binary,
        config_paths=(path,),
        edits=() if current else (edit,),
    )


def refusal(subject: str, text: str = "no space left") -> Finding:
    return Finding(code="space", severity=Severity.REFUSE, subject=subject, text=text, hint="make some")


def broken(kind: str, text: str = "", *, transient: bool = False) -> ApplicationError:
    return ApplicationError(text or f"{kind} happened", type=kind, non_retryable=not transient)


@dataclass(frozen=True)
class Call:
    """One attempt of one activity."""

    name: str
    target: str
    attempt: int
    input: Any


@dataclass
class Hold:
    """A step that waits until the test lets it go. Heartbeats, so that a cancel reaches it."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False
    ends_anyway: bool = False
    """It ends well in spite of a cancel, as a step that had almost ended."""


class Doubles:
    """All activities of the contract."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.notices: list[Notice] = []
        self.core = core_facts()
        self.servers: dict[str, ServerFacts] = {}
        self.folders: dict[str, HostFolders] = {}
        self._plays: dict[tuple[str, str], list[Any]] = {}
        self._holds: dict[tuple[str, str], Hold] = {}

    # --- set by a test ------------------------------------------------------------------------------------------------

    def play(self, name: str, target: str, *plays: Any) -> None:
        """Set the next calls: an exception to raise, a value to return, or None for the usual answer."""
        self._plays.setdefault((name, target), []).extend(plays)

    def hold(self, name: str, target: str) -> Hold:
        hold = self._holds[name, target] = Hold()
        return hold

    # --- read by a test -----------------------------------------------------------------------------------------------

    def names(self, *, but: tuple[str, ...] = ("notify",)) -> list[str]:
        return [call.name for call in self.calls if call.name not in but]

    def steps(self, target: str) -> list[str]:
        return [call.name for call in self.calls if call.target == target]

    def inputs(self, name: str) -> list[Any]:
        return [call.input for call in self.calls if call.name == name]

    def count(self, name: str, target: str = "") -> int:
        return sum(call.name == name and target in ("", call.target) for call in self.calls)

    # --- the activities -----------------------------------------------------------------------------------------------

    async def _do(self, name: str, given: Any, usual: Callable[[Any], Any]) -> Any:
        target, attempt = _target(given)
        self.calls.append(Call(name, target, attempt, given))
        hold = self._holds.pop((name, target), None)
        if hold:
            await _wait(hold)
        plays = self._plays.get((name, target))
        play = plays.pop(0) if plays else None
        if isinstance(play, BaseException):
            raise play
        return usual(given) if play is None else play

    def activities(self) -> list[Callable[..., Any]]:
        return [self._make(contract) for contract in contracts.TABLE]

    def _make(self, contract: Contract[Any, Any]) -> Callable[..., Any]:
        async def act(given):  # type: ignore[no-untyped-def]
            return await self._do(contract.name, given, self._usual(contract))

        act.__annotations__ = {"given": contract.input, "return": contract.result}
        return activity.defn(name=contract.name)(act)

    def _usual(self, contract: Contract[Any, Any]) -> Callable[[Any], Any]:
        """The answer of an activity that no test has changed: by its contract, else by the type of its result."""
        special: dict[Contract[Any, Any], Callable[[Any], Any]] = {
            contracts.SURVEY_CORE: lambda _: self.core,
            contracts.SURVEY_SERVER: self._survey,
            contracts.PROVE_DUMP: _prove,
            contracts.STAGE_CORE_KEY: lambda _: CoreKey(public_key=KEY, sources=("created in advance",)),
            contracts.START_OLD_CORE: lambda _: _started(OLD),
            contracts.DISARM_AUTO_ROLLBACK: lambda _: AutoRollback(state=Armed.DISARMED),
            contracts.SCAN_RUN_FOLDERS: self._folders,
            contracts.LIST_SERVERS: _listed,
            contracts.FIND_AGENT: lambda ask: AgentOnHost(name=ask.server.name, reached=True),
            contracts.FIND_WINDOWS: lambda ask: Windows(windows=resolve(ask.texts, ask.after)),
            contracts.NOTIFY: self._notify,
        }
        return special.get(contract) or _USUAL[contract.result]

    def _survey(self, survey: SurveyServer) -> ServerFacts:
        name = survey.server.name
        return self.servers.get(name) or server_facts(name)

    def _folders(self, ask: ScanHost) -> HostFolders:
        name, _ = _target(ask)
        return self.folders.get(name) or HostFolders(name=name)

    def _notify(self, notice: Notice) -> Done:
        self.notices.append(notice)
        return Done()


async def _wait(hold: Hold) -> None:
    hold.begun.set()
    try:
        while not hold.go.is_set():
            activity.heartbeat()
            try:
                await asyncio.wait_for(hold.go.wait(), 0.1)
            except TimeoutError:
                continue
    except asyncio.CancelledError:
        hold.cancelled = True
        if not hold.ends_anyway:
            raise


def _target(given: Any) -> tuple[str, int]:
    if isinstance(given, (SurveyServer, FindAgent)):
        return given.server.name, 0
    if isinstance(given, ScanHost):
        return given.server.name if given.server else "core", 0
    if isinstance(given, CleanHost):
        return given.unwanted.name, 0
    op = getattr(given, "op", None)
    return (op.target, op.attempt) if op else ("core", 0)


def backup_of(host: str) -> Backup:
    folder = f"/var/lib/komodo-upgrade/prod/{CHANGE}"
    return Backup(host=host, folder=folder, files=(), restore_command=f"sudo sh {folder}/restore.sh", taken_at=NOW)


def _listed(ask: ListServers) -> CoreServers:
    names = [server.name for server in ask.fleet.servers]
    known = (ListedServer(name=n, address=f"https://{n}:8120", host=n, enabled=True) for n in names)
    return CoreServers(servers=tuple(known), listed=True)


def _dump(step: DumpDatabase) -> DumpFacts:
    return DumpFacts(
        label=step.label,
        path=f"/var/lib/komodo-upgrade/prod/{CHANGE}/{step.label}.archive.gz",
        bytes=3_400_000,
        sha256=f"dump-{step.label}",
        collections=_COLLECTIONS,
        taken_at=NOW,
        seconds=12.0,
    )


def _prove(step: DumpStep) -> DumpFacts:
    return replace(step.dump, proof=DumpProof(at=NOW, seconds=5.0))


def _print(step: FingerprintDatabase) -> DatabaseFingerprint:
    return DatabaseFingerprint(moment=step.moment, at=NOW, collections=_COLLECTIONS)


def _cleaned(ask: CleanHost) -> Cleaned:
    return Cleaned(name=ask.unwanted.name, removed=ask.unwanted.changes)


def _stage(step: ServerStep) -> StagedAgent:
    path = f"/var/lib/komodo-upgrade/prod/{CHANGE}/periphery"
    return StagedAgent(path=path, sha256=f"v2-{step.op.attempt}", version=NEW, source="downloaded by the host")


def _switched() -> Switched:
    line = f"Komodo Periphery version: v{NEW}"
    return Switched(version=NEW, invocation="inv", started_at=NOW, port_downtime=timedelta(seconds=2), lines=(line,))


def _proof(check: VerifyServer) -> Proof:
    return Proof(by_core=True, line=f"{check.server.name} logged in", confirmed_at=NOW, unmanaged=timedelta(seconds=7))


def _restored() -> Restored:
    return Restored(version=OLD, started_at=NOW, line="v1 runs", invocation="inv-1")


def _started(version: str) -> CoreStarted:
    return CoreStarted(version=version, started_at=NOW, downtime=timedelta(seconds=9))


def _back_up(step: CoreStep | ServerStep) -> Backup:
    if isinstance(step, ServerStep) and step.facts.container:
        return agent_backup(backup_of("core"))
    return backup_of(step.op.target)


_USUAL: dict[type, Callable[[Any], Any]] = {
    AutoRollback: lambda _: AutoRollback(state=Armed.ARMED),
    Backup: _back_up,
    Cleaned: _cleaned,
    CoreKey: lambda _: CoreKey(public_key=KEY, sources=("API GetCoreInfo",)),
    CoreStarted: lambda _: _started(NEW),
    DatabaseFingerprint: _print,
    Done: lambda _: Done(),
    DumpFacts: _dump,
    PostChecks: lambda _: PostChecks(),
    Proof: _proof,
    Recheck: lambda _: Recheck(),
    Restored: lambda _: _restored(),
    StagedAgent: _stage,
    StagedCore: lambda _: StagedCore(images=("new",), image_pins=("keep-1",)),
    Switched: lambda _: _switched(),
    WatchCheck: lambda _: WatchCheck(),
}
