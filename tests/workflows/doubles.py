"""Activities by name that play a fleet: they record every call, and fail, drift or wait where a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from model.facts import (
    Backup,
    CollectionCount,
    ComposeProject,
    CoreFacts,
    DatabasePrint,
    DumpFacts,
    DumpProof,
    Finding,
    PlannedEdit,
    ServerFacts,
    ServiceFacts,
    Severity,
)
from model.fleet import Clocks, CoreSpec, FleetSpec, HostSpec, Rollout, ServerSpec
from model.folders import Cleaned, CleanHost, HostFolders, LookAtFolders
from model.steps import (
    Armed,
    CoreKey,
    CoreStarted,
    CoreStep,
    DeadMan,
    Done,
    Notice,
    PostChecks,
    Proof,
    Recheck,
    ReleaseHosts,
    Restored,
    SaveReport,
    ServerStep,
    StagedAgent,
    StagedCore,
    SurveyCore,
    SurveyServer,
    Switched,
    VerifyServer,
)
from model.watch import SaveWatch, WatchLook, WatchStep

NOW = datetime(2026, 11, 23, 22, 15, tzinfo=UTC)
CHANGE = "20261123T221500Z"
KEY = "MCowBQYDK2VuAyEAb1kVSVIz3DHlPwyWEsnPFa0rPLnJNHrSHZmVLEv2Wz4="
OLD, NEW = "1.19.5", "2.3.2"
QUICK = Clocks(retry=timedelta(milliseconds=20), poll=timedelta(milliseconds=20), heartbeat=timedelta(seconds=5))


def fleet(servers: int = 3, *, clocks: Clocks = QUICK, **rollout: Any) -> FleetSpec:
    names = [f"web-{i}" for i in range(1, servers + 1)]
    return FleetSpec(
        name="prod",
        target=NEW,
        core=CoreSpec(host=HostSpec(name="core", address="core.example.net")),
        servers=tuple(ServerSpec(name=n, host=HostSpec(name=n, address=f"{n}.example.net")) for n in names),
        rollout=Rollout(**rollout),
        clocks=clocks,
    )


def together_fleet(servers: int = 3, **rollout: Any) -> FleetSpec:
    """As the fleet file's `mode = "together"` is read."""
    return fleet(servers, mode="together", canary=0, wave="100%", approve="core-only", **rollout)


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
    beside = replace(service, service="periphery", container="komodo-periphery-1", version=OLD)
    edit = PlannedEdit(
        path="/opt/komodo/compose.yaml", kind="compose", base_sha256="a", result_sha256="b", diff="-x\n+y"
    )
    return CoreFacts(
        reachable=True,
        current=current,
        version=version,
        core=service,
        agent=beside if agent else None,
        agent_server="Local" if agent else "",
        project=ComposeProject(name="komodo", directory="/opt/komodo", files=("/opt/komodo/compose.yaml",)),
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
    return Finding(code="space", severity=Severity.REFUSE, subject=subject, text=text, cure="make some")


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

    # --- what a test says ---------------------------------------------------------------------------------------------

    def play(self, name: str, target: str, *plays: Any) -> None:
        """What the next calls do: raise an exception, return a value, or None for the usual answer."""
        self._plays.setdefault((name, target), []).extend(plays)

    def hold(self, name: str, target: str) -> Hold:
        hold = self._holds[name, target] = Hold()
        return hold

    # --- what a test reads --------------------------------------------------------------------------------------------

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
        core, server = CoreStep, ServerStep
        started = CoreStarted(version=NEW, started_at=NOW, dark=timedelta(seconds=9))
        old = replace(started, version=OLD)
        key = CoreKey(public_key=KEY, sources=("API GetCoreInfo",))
        done, still = Done(), Recheck()
        return [
            self._make("survey_core", SurveyCore, CoreFacts, lambda _: self.core),
            self._make("survey_server", SurveyServer, ServerFacts, self._survey),
            self._make("recheck_core", core, Recheck, lambda _: still),
            self._make("recheck_server", server, Recheck, lambda _: still),
            self._make("check_rollback", core, Recheck, lambda _: still),
            self._make("check_server_rollback", server, Recheck, lambda _: still),
            self._make("back_up_core", core, Backup, lambda _: backup_of("core")),
            self._make("dump_database", core, DumpFacts, _dump),
            self._make("prove_dump", core, DumpFacts, _prove),
            self._make("fingerprint_database", core, DatabasePrint, _print),
            self._make("downgrade_database", core, Done, lambda _: done),
            self._make("stage_core", core, StagedCore, lambda _: StagedCore(images=("new",), keepers=("keep-1",))),
            self._make("stage_core_key", core, CoreKey, lambda _: replace(key, sources=("made beforehand",))),
            self._make("stop_core", core, Done, lambda _: done),
            self._make("write_core_files", core, Done, lambda _: done),
            self._make("start_core", core, CoreStarted, lambda _: started),
            self._make("read_core_key", core, CoreKey, lambda _: key),
            self._make("switch_core_agent", core, Switched, lambda _: _switched()),
            self._make("post_checks", core, PostChecks, lambda _: PostChecks()),
            self._make("restore_database", core, Done, lambda _: done),
            self._make("restore_core_files", core, Done, lambda _: done),
            self._make("start_old_core", core, CoreStarted, lambda _: old),
            self._make("return_to_new_core", core, CoreStarted, lambda _: started),
            self._make("restore_core_agent", core, Restored, lambda _: _restored()),
            self._make("back_up_server", server, Backup, lambda step: backup_of(step.server.name)),
            self._make("stage_server", server, StagedAgent, _stage),
            self._make("switch_server", server, Switched, lambda _: _switched()),
            self._make("verify_server", VerifyServer, Proof, _proof),
            self._make("look_at_dead_man", server, DeadMan, lambda _: DeadMan(state=Armed.ARMED)),
            self._make("disarm_dead_man", server, DeadMan, lambda _: DeadMan(state=Armed.DISARMED)),
            self._make("restore_server", server, Restored, lambda _: _restored()),
            self._make("release_host", ReleaseHosts, Done, lambda _: done),
            self._make("look_at_folders", LookAtFolders, HostFolders, self._folders),
            self._make("clean_host", CleanHost, Cleaned, _cleaned),
            self._make("save_report", SaveReport, Done, lambda _: done),
            self._make("watch_fleet", WatchStep, WatchLook, lambda _: WatchLook()),
            self._make("save_watch", SaveWatch, Done, lambda _: done),
            self._make("notify", Notice, Done, self._notify),
        ]

    def _make(self, name: str, takes: type, gives: type, usual: Callable[[Any], Any]) -> Callable[..., Any]:
        async def act(given):  # type: ignore[no-untyped-def]
            return await self._do(name, given, usual)

        act.__annotations__ = {"given": takes, "return": gives}
        return activity.defn(name=name)(act)

    def _survey(self, survey: SurveyServer) -> ServerFacts:
        name = survey.server.name
        return self.servers.get(name) or server_facts(name)

    def _folders(self, ask: LookAtFolders) -> HostFolders:
        name = ask.server.name if ask.server else "core"
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
        raise


def _target(given: Any) -> tuple[str, int]:
    if isinstance(given, SurveyServer):
        return given.server.name, 0
    op = getattr(given, "op", None)
    return (op.target, op.attempt) if op else ("core", 0)


def backup_of(host: str) -> Backup:
    folder = f"/var/lib/komodo-upgrade/prod/{CHANGE}"
    return Backup(host=host, folder=folder, files=(), restore_command=f"sudo sh {folder}/restore.sh", taken_at=NOW)


def _dump(step: CoreStep) -> DumpFacts:
    return DumpFacts(
        label=step.label,
        path=f"/var/lib/komodo-upgrade/prod/{CHANGE}/{step.label}.archive.gz",
        bytes=3_400_000,
        sha256=f"dump-{step.label}",
        collections=(CollectionCount(name="Server", documents=3), CollectionCount(name="Stack", documents=39)),
        taken_at=NOW,
        seconds=12.0,
    )


def _prove(step: CoreStep) -> DumpFacts:
    assert step.dump is not None
    return replace(step.dump, proof=DumpProof(at=NOW, seconds=5.0))


def _print(step: CoreStep) -> DatabasePrint:
    return DatabasePrint(moment=step.label, at=NOW, collections=_dump(step).collections)


def _cleaned(ask: CleanHost) -> Cleaned:
    return Cleaned(name=ask.unwanted.name, removed=ask.unwanted.changes)


def _stage(step: ServerStep) -> StagedAgent:
    path = f"/var/lib/komodo-upgrade/prod/{CHANGE}/periphery"
    return StagedAgent(path=path, sha256=f"v2-{step.op.attempt}", version=NEW, source="downloaded by the host")


def _switched() -> Switched:
    line = f"Komodo Periphery version: v{NEW}"
    return Switched(version=NEW, invocation="inv", started_at=NOW, port_silent=timedelta(seconds=2), lines=(line,))


def _proof(check: VerifyServer) -> Proof:
    return Proof(by_core=True, line=f"{check.server.name} logged in", confirmed_at=NOW, dark=timedelta(seconds=7))


def _restored() -> Restored:
    return Restored(version=OLD, started_at=NOW, line="v1 runs", invocation="inv-1")
