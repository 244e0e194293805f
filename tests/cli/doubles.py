"""Doubles of the workflows with the same messages, so that the commands are tested without hosts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ParentClosePolicy

from model.facts import Backup, CoreFacts, Finding, PlannedEdit, ServerFacts, Severity
from model.gates import (
    QUERY_PLAN_PAGE,
    QUERY_PROGRESS,
    QUERY_SERVER_PROGRESS,
    SIGNAL_CONTROL,
    SIGNAL_DECIDE,
    Control,
    ControlVerb,
    Decision,
    Gate,
    GateKind,
    Recorded,
    Verdict,
)
from model.pages.results import plan_page
from model.plan import Plan, Wave, bind
from model.run_folders import (
    Cleaned,
    CleanRequest,
    CleanResult,
    FleetFolders,
    HostFolders,
    SavedChange,
    ScanRequest,
)
from model.status import (
    CheckResult,
    FleetProgress,
    FleetResult,
    FleetState,
    Phase,
    PlanPage,
    RollbackRequest,
    ServerOutcome,
    ServerProgress,
    ServerState,
    UpgradeRequest,
)
from model.watch import QUERY_WATCH, Seen, WatchReport, WatchState, watch_id
from tests.cli.discover_doubles import FindFleetAgents, ListFleet

ASK = (Verdict.APPROVE, Verdict.REJECT)
FAILURE = (Verdict.RETRY, Verdict.ROLLBACK, Verdict.SKIP)


def plan_of(request: UpgradeRequest) -> Plan:
    """A plan with one edit and one warning a server; servers named `bad…` are refused, `current…` are done."""
    servers = []
    for server in request.fleet.servers:
        severity = Severity.REFUSE if server.name.startswith("bad") else Severity.WARN
        finding = Finding(
            code="x", severity=severity, subject=server.name, text="a finding of the check", hint="correct it"
        )
        current = server.name.startswith("current")
        edit = PlannedEdit(
            path="/etc/komodo/periphery.config.toml",
            kind="periphery-config",
            base_sha256="0" * 64,
            result_sha256="1" * 64,
            diff="--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n",
        )
        servers.append(
            ServerFacts(
                name=server.name,
                reachable=True,
                current=current,
                version="1.19.5",
                edits=() if current else (edit,),
                sources=("binary /usr/local/bin/periphery, from ExecStart of periphery.service",),
                findings=() if current else (finding,),
            )
        )
    todo = tuple(s.name for s in servers if not s.current)
    return bind(
        Plan(
            fleet=request.fleet.name,
            target=request.fleet.target,
            core=CoreFacts(reachable=True, version="1.19.5", current=not todo),
            servers=tuple(servers),
            waves=tuple(Wave(number=i, servers=(name,)) for i, name in enumerate(todo, 1)),
            already_current=tuple(s.name for s in servers if s.current),
            commands=("docker compose up -d core",),
            rollback_steps=("sh /var/lib/komodo-upgrade/x/restore.sh",),
        )
    )


@workflow.defn(name="CheckFleet")
class CheckFleet:
    @workflow.run
    async def run(self, request: UpgradeRequest) -> CheckResult:
        return CheckResult(plan=plan_of(request), found_at=workflow.now())


@workflow.defn(name="UpgradeServer")
class UpgradeServer:
    """Runs until its parent ends it; answers with a step, as the real one does."""

    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self, name: str) -> str:
        self.name = name
        await workflow.wait_condition(lambda: self.done)
        return name

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.query(name=QUERY_SERVER_PROGRESS)
    def server_progress(self) -> ServerProgress:
        return ServerProgress(name=self.name, state=ServerState.UPGRADING, step="switching the agent", attempt=2)


@workflow.defn(name="WatchFleet")
class WatchFleet:
    """Has a finding from its first check, and runs until it is cancelled."""

    @workflow.init
    def __init__(self, request: UpgradeRequest) -> None:
        now = workflow.now()
        finding = Finding(code="zombies", severity=Severity.WARN, subject="core", text="37 defunct", hint="init: true")
        self.report = WatchReport(
            fleet=request.fleet.name,
            change=request.change,
            state=WatchState.WATCHING,
            since=now,
            until=now + timedelta(hours=26),
            at=now,
            checks=1,
            next_check=now + timedelta(hours=1),
            found=(Seen(finding=finding, first=now, last=now),),
        )

    @workflow.run
    async def run(self, request: UpgradeRequest) -> WatchReport:
        try:
            await workflow.wait_condition(lambda: False)
        except asyncio.CancelledError:
            self.report = replace(self.report, state=WatchState.ENDED, next_check=None)
        return self.report

    @workflow.query(name=QUERY_WATCH)
    def watch(self) -> WatchReport:
        return self.report


@workflow.defn(name="UpgradeFleet")
class UpgradeFleet:
    """Gate `core`; a child a server; a server named `broken` opens a failure gate; then the end."""

    @workflow.init
    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request
        self.gate: Gate | None = None
        self.decisions: list[Recorded] = []
        self.controls: list[Control] = []
        self.answer: Decision | None = None
        self.states = {s.name: ServerProgress(name=s.name) for s in request.fleet.servers}
        self.plan: Plan | None = None
        self.phase = Phase.PREFLIGHT
        self.started = workflow.now()

    @workflow.run
    async def run(self, request: UpgradeRequest) -> FleetResult:
        self.plan = plan_of(request)
        if self.plan.refusals:
            return self.result(FleetState.REFUSED)
        self.phase = Phase.GATE
        facts = (f"plan {self.plan.digest}: Core 1.19.5 -> 2.3.2", "2 servers are unmanaged until upgraded: no deploys")
        decision = await self.ask("core", GateKind.CORE, facts, ASK, confirm=True)
        if decision.verdict is Verdict.REJECT or self.stopped:
            return self.result(FleetState.STOPPED)
        self.phase = Phase.ROLLOUT
        for name in list(self.states):
            child_id = f"{workflow.info().workflow_id}/{name}/1"
            self.states[name] = ServerProgress(name=name, state=ServerState.UPGRADING, workflow_id=child_id)
            child = await workflow.start_child_workflow("UpgradeServer", name, id=child_id)
            await workflow.sleep(timedelta(milliseconds=300))
            await child.signal("finish")
            await child
            if name.startswith("broken"):
                self.states[name] = ServerProgress(name=name, state=ServerState.WAITING)
                await self.ask(f"failure/{name}/1", GateKind.FAILURE, (f"{name}: unverified",), FAILURE, subject=name)
            self.states[name] = ServerProgress(name=name, state=ServerState.UPGRADED)
        if any(name.startswith("watched") for name in self.states):
            await workflow.start_child_workflow(
                "WatchFleet",
                request,
                id=watch_id(workflow.info().workflow_id, request.change),
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        self.phase = Phase.DONE
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.result(FleetState.UPGRADED)

    @property
    def stopped(self) -> bool:
        return any(c.verb is ControlVerb.STOP for c in self.controls)

    @property
    def turned_back(self) -> bool:
        return any(c.verb is ControlVerb.ROLLBACK for c in self.controls)

    async def ask(
        self,
        gate: str,
        kind: GateKind,
        facts: tuple[str, ...],
        verdicts: tuple[Verdict, ...],
        *,
        confirm: bool = False,
        subject: str = "core",
    ) -> Decision:
        digest = self.plan.digest if self.plan and confirm else ""
        self.answer = None
        self.gate = Gate(
            id=gate,
            kind=kind,
            question=f"Upgrade at gate {gate}?",
            facts=facts,
            verdicts=verdicts,
            opened_at=workflow.now(),
            plan_digest=digest,
            confirm=self.request.fleet.name if confirm else "",
            subject=subject,
        )
        await workflow.wait_condition(lambda: self.answer is not None or self.stopped or self.turned_back)
        if self.turned_back:
            await workflow.sleep(timedelta(milliseconds=300))  # the next safe point
            question = Gate(
                id="rollback/1",
                kind=GateKind.ROLLBACK,
                question="Roll back?",
                facts=("nothing is lost: the database is not touched",),
                verdicts=ASK,
                opened_at=workflow.now(),
                confirm=self.request.fleet.name,
                subject="fleet",
            )
            self.gate = question
            await workflow.wait_condition(lambda: self.stopped)
        self.gate = None
        return self.answer or Decision(gate=gate, verdict=Verdict.REJECT, actor="stop")

    def result(self, state: FleetState) -> FleetResult:
        word = ServerState.UPGRADED if state is FleetState.UPGRADED else ServerState.LEFT_ON_V1
        return FleetResult(
            fleet=self.request.fleet.name,
            target=self.request.fleet.target,
            change=self.request.change,
            state=state,
            started_at=self.started,
            ended_at=workflow.now(),
            plan=self.plan,
            core_state=word,
            core_version="2.3.2",
            core_begun=state is FleetState.UPGRADED,
            servers=tuple(self.outcome(n, word) for n in self.states),
            decisions=tuple(self.decisions),
            controls=tuple(self.controls),
            refusals=self.plan.refusals if self.plan else (),
            detail="the double is done",
        )

    def outcome(self, name: str, state: ServerState) -> ServerOutcome:
        backup = Backup(
            host=name,
            folder=f"/var/lib/komodo-upgrade/x/{self.request.change}",
            files=(),
            restore_command="sudo sh /var/lib/komodo-upgrade/x/restore.sh",
            taken_at=self.started,
        )
        kept = backup if state is ServerState.UPGRADED else None
        return ServerOutcome(name=name, state=state, version_before="1.19.5", version_after="2.3.2", backup=kept)

    def take(self, decision: Decision) -> Recorded:
        recorded = Recorded(decision=decision, at=workflow.now())
        self.decisions.append(recorded)
        self.answer = decision
        return recorded

    @workflow.signal(name=SIGNAL_DECIDE)
    def decide_signal(self, decision: Decision) -> None:
        if self.gate is not None and self.gate.id == decision.gate:
            self.take(decision)

    @workflow.update(name=SIGNAL_DECIDE)
    def decide(self, decision: Decision) -> Recorded:
        return self.take(decision)

    @decide.validator
    def _check(self, decision: Decision) -> None:
        if self.gate is None or self.gate.id != decision.gate:
            raise ApplicationError(f"gate {decision.gate} is not open", type="GateNotOpen")
        if self.gate.plan_digest and decision.plan_digest != self.gate.plan_digest:
            text = f"gate {decision.gate} is about plan {self.gate.plan_digest}, this decision is about another"
            raise ApplicationError(text, type="PlanDigestMismatch")

    @workflow.signal(name=SIGNAL_CONTROL)
    def control_signal(self, control: Control) -> None:
        self.controls.append(control)

    @workflow.update(name=SIGNAL_CONTROL)
    def control(self, control: Control) -> Control:
        self.controls.append(control)
        return control

    @workflow.query(name=QUERY_PLAN_PAGE)
    def plan_page(self, number: int) -> PlanPage:
        return plan_page(self.plan, number)

    @workflow.query(name=QUERY_PROGRESS)
    def progress(self) -> FleetProgress:
        return FleetProgress(
            fleet=self.request.fleet.name,
            target=self.request.fleet.target,
            change=self.request.change,
            phase=self.phase,
            since=self.started,
            core=ServerProgress(name="core"),
            servers=tuple(self.states.values()),
            gate=self.gate,
            paused=any(c.verb is ControlVerb.PAUSE for c in self.controls),
            decisions=tuple(self.decisions),
            controls=tuple(self.controls),
            plan_digest=self.plan.digest if self.plan else "",
        )


@workflow.defn(name="ScanRunFolders")
class ScanRunFolders:
    """Hosts after an upgrade; a server named `lost…` does not answer, of one named `never…` nothing was switched."""

    @workflow.run
    async def run(self, request: ScanRequest) -> FleetFolders:
        core = CoreFacts(reachable=True, version="1.19.5")
        there = not request.fleet.name.endswith("-empty")
        changes = (saved("core", core=core),) if there else ()
        servers = [
            HostFolders(
                name=name,
                problem="no route to host" if name.startswith("lost") else "",
                changes=(saved(name, server=ServerFacts(name=name, version="1.19.5")),) if there else (),
                running="2.3.2",
            )
            for name in request.servers
        ]
        return FleetFolders(core=HostFolders(name="core", changes=changes), servers=tuple(servers))


def saved(name: str, **facts: Any) -> SavedChange:
    folder = "/var/lib/komodo-upgrade/x/20260101T000000Z"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    in_place = not name.startswith("never")
    return SavedChange(
        change="20260101T000000Z",
        folder=folder,
        name=name,
        in_place=in_place,
        state="in place since 2026-01-01" if in_place else "nothing was switched",
        version="1.19.5",
        target="2.3.2",
        taken_at=at,
        bytes=40_000_000,
        backup=Backup(host=name, folder=folder, files=(), restore_command=f"sh {folder}/restore.sh", taken_at=at),
        image_pins=("komodo-upgrade-keep-20260101t000000z-core-old",) if name == "core" else (),
        **facts,
    )


@workflow.defn(name="CleanFleet")
class CleanFleet:
    @workflow.run
    async def run(self, request: CleanRequest) -> CleanResult:
        return CleanResult(
            hosts=tuple(Cleaned(name=one.name, removed=(*one.image_pins, *one.changes)) for one in request.unwanted)
        )


@workflow.defn(name="RollbackFleet")
class RollbackFleet:
    @workflow.run
    async def run(self, request: RollbackRequest) -> FleetResult:
        return FleetResult(
            fleet=request.fleet.name,
            target=request.fleet.target,
            change=request.change,
            state=FleetState.ROLLED_BACK,
            started_at=workflow.now(),
            ended_at=workflow.now(),
            plan=replace(request.plan),
            servers=tuple(ServerOutcome(name=n, state=ServerState.ROLLED_BACK) for n in request.servers),
            detail=f"core={request.core} attempt={request.attempt}",
        )


WORKFLOWS = [CheckFleet, UpgradeServer, UpgradeFleet, RollbackFleet, ScanRunFolders, CleanFleet, WatchFleet]
WORKFLOWS += [ListFleet, FindFleetAgents]
