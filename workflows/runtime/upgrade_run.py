"""The state that only an upgrade has: its plan, the servers set aside, and its result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from model.facts import CoreFacts, ServerFacts
from model.fleet.spec import FailurePolicy, RolloutMode
from model.fleet.windows import Window
from model.pages.servers import Failure
from model.plan import record_images, refuse_unapproved, refuse_unapproved_server
from model.planning import make_plan, with_core_agent
from model.status import FleetResult, FleetState, Phase, ServerOutcome, ServerProgress, ServerState, UpgradeRequest
from model.text.versions import cut_off
from workflows.runtime import messages
from workflows.runtime.run import CORE, Ended, Run

GOOD = (ServerState.UPGRADED, ServerState.ALREADY_CURRENT)


class UpgradeRun(Run):
    """One upgrade."""

    def __init__(self, request: UpgradeRequest) -> None:
        super().__init__(request.fleet, request.change, Phase.PREFLIGHT, request.fleet.in_run)
        self.requested_by = request.requested_by
        self.start_at = request.start_at
        self.approved = request.approved
        self.windows: tuple[Window, ...] = ()
        """Maintenance windows as the worker resolved them; those that are over are resolved again."""
        self.listed = tuple(s.name for s in request.fleet.servers)
        """The servers of the fleet file; `fleet` also gets the agent in Core's own project once it is found."""
        self.in_run = request.fleet.in_run
        """Those that `--limit` does not leave out."""
        self.touched: list[str] = []
        """Hosts where something was written, `core` among them: they are released at the end."""
        self.skipped: dict[str, str] = {}
        """Servers left on the old version by a decision before Core's switch, and why."""
        self.offline: dict[str, str] = {}
        """Servers set aside because they are unreachable, and why; retried after the others."""
        self.proof_task: asyncio.Task[None] | None = None
        """The proof of the final dump, which runs during the rollout."""
        self.rolled_back: FleetResult | None = None

    # --- the plan -----------------------------------------------------------------------------------------------------

    @property
    def all_at_once(self) -> bool:
        """Whether every agent is switched with Core."""
        return self.fleet.rollout.mode == RolloutMode.ALL_AT_ONCE and not self.planned.core.current

    @property
    def planned_servers(self) -> tuple[str, ...]:
        """Servers that this run upgrades, in order."""
        return tuple(name for wave in self.planned.waves for name in wave.servers)

    def make_plan(self, core: CoreFacts, servers: dict[str, ServerFacts]) -> None:
        """Plan with these facts. Skipped servers stay left behind."""
        self.fleet = with_core_agent(self.fleet, core)
        self.plan = make_plan(self.fleet, self.change, core, servers, tuple(self.skipped), tuple(self.offline))
        if self.approved:
            self.plan = refuse_unapproved(self.plan, self.approved)
        if not self.core_begun:
            self.core_version = core.version
        for facts in self.plan.servers:
            self.lines.setdefault(facts.name, ServerProgress(name=facts.name))
            if facts.name in self.plan.offline and facts.name not in self.offline:
                self.set_aside(facts.name, facts.findings[0].text)
        self.show()

    def refuse_unapproved(self, facts: ServerFacts) -> ServerFacts:
        """The facts of a server that is planned by itself, with a finding if a plan file does not allow it."""
        return refuse_unapproved_server(facts, self.approved) if self.approved else facts

    def plan_again(self) -> None:
        """Plan with the same facts, after a server was skipped or set aside."""
        self.make_plan(self.planned.core, {s.name: s for s in self.planned.servers})

    def record_images(self, digests: Mapping[str, str]) -> None:
        """Bind the plan to the digests of pulled images that were not known when it was made."""
        plan = record_images(self.planned, digests)
        if plan != self.planned and not self.begun:
            self.make_plan(plan.core, {s.name: s for s in plan.servers})

    def replan_server(self, facts: ServerFacts) -> None:
        """Replace the facts of one server after a person changed something there. The order of servers stays."""
        servers = tuple(facts if s.name == facts.name else s for s in self.planned.servers)
        self.plan = replace(self.planned, servers=servers)

    # --- servers ------------------------------------------------------------------------------------------------------

    def touch(self, name: str) -> None:
        """Record that something is about to be written on this host."""
        if name not in self.touched:
            self.touched.append(name)

    def start_next_attempt(self, name: str) -> None:
        """Number the next attempt, after a retry or a new plan."""
        if name == CORE:
            self.core_attempt += 1
        else:
            self.attempts[name] = self.attempt(name) + 1
            self.update_line(name, attempt=self.attempt(name))

    def set_aside(self, name: str, why: str) -> None:
        """Take an unreachable server out, so that the others continue."""
        self.offline[name] = why
        self.outcomes.pop(name, None)
        self.update_line(name, state=ServerState.OFFLINE, step="", detail=why, workflow_id="")

    def bring_back(self, name: str) -> None:
        """Include a server again that was set aside."""
        del self.offline[name]
        self.update_line(name, state=ServerState.PENDING, step="", detail="")

    def skip(self, name: str, why: str) -> None:
        """Leave a server on the old version before anything was switched on it."""
        self.skipped[name] = why
        self.set_outcome(replace(self.new_outcome(name, ServerState.LEFT_ON_V1, why), backup=None))
        self.plan_again()

    def new_outcome(self, name: str, state: ServerState, detail: str = "") -> ServerOutcome:
        """An outcome of the current attempt, with the old version in place."""
        version = self.planned.server(name).version
        return ServerOutcome(
            name=name,
            state=state,
            attempt=self.attempt(name),
            detail=detail,
            version_before=version,
            version_after=version,
            backup=self.backups.get(name),
        )

    def tolerates_another_failure(self) -> bool:
        """With `on_failure = "continue"`: whether the failure that just happened is within `max_failures`."""
        rollout = self.fleet.rollout
        bad = [o for o in self.outcomes.values() if o.state is not ServerState.UPGRADED]
        return rollout.on_failure == FailurePolicy.CONTINUE and len(bad) <= rollout.max_failures

    # --- the end ------------------------------------------------------------------------------------------------------

    def end_normally(self) -> Ended:
        """Upgraded, or incomplete with the names of the servers that are not."""
        bad = [o for o in self.outcomes.values() if o.state not in GOOD]
        if not bad:
            others = messages.others_of_fleet(self.plan)
            return Ended(FleetState.UPGRADED, f"{self.fleet.name} is on {self.fleet.target}{others}")
        names = ", ".join(f"{o.name} ({o.reported})" for o in bad)
        text = f"Core is on {self.fleet.target}; not upgraded: {names}; run start again to continue"
        return Ended(FleetState.INCOMPLETE, text)

    def end_stopped(self, why: str) -> Ended:
        """Stopped; incomplete if Core does not work."""
        if self.core_state is ServerState.WAITING:
            text = (
                f"{why}; Core {self.fleet.target} does not work: {self.core_detail}\n"
                "run start again to continue, or roll back with komodo-upgrade rollback"
            )
            return Ended(FleetState.INCOMPLETE, text)
        if not self.begun:
            return Ended(FleetState.STOPPED, f"{why}; nothing was upgraded")
        return Ended(FleetState.STOPPED, f"{why}; upgraded servers stay upgraded; run start again to continue")

    def end_failed(self, why: Failure) -> Ended:
        """Stopped if nothing was switched, else incomplete."""
        if self.begun:
            return Ended(FleetState.INCOMPLETE, f"ended early: {why.text}; run start again to continue")
        return Ended(FleetState.STOPPED, f"{why.text}; nothing was upgraded")

    def result(self) -> FleetResult:
        """The result so far; after a rollback with the state that the rollback left."""
        basis, plan = super().result(), self.plan
        result = replace(
            basis,
            plan=plan,
            core_state=self._result_core_state(),
            servers=tuple(self._result_outcome(name) for name in self.lines),
            warnings=(*(plan.warnings if plan else ()), *basis.warnings),
            refusals=plan.refusals if plan and basis.state is FleetState.REFUSED else (),
        )
        return _with_rollback(result, self.rolled_back) if self.rolled_back else result

    def _result_core_state(self) -> ServerState:
        if self.core_state is not ServerState.PENDING:
            return self.core_state
        if self.plan and self.plan.core.current:
            return ServerState.ALREADY_CURRENT
        return ServerState.STOPPED if self.end and self.touched else ServerState.PENDING

    def _result_outcome(self, name: str) -> ServerOutcome:
        """The outcome of a server, also before it has one of its own."""
        if known := self.outcomes.get(name):
            return known
        line, plan = self.lines[name], self.plan
        if plan is None or all(s.name != name for s in plan.servers):
            return ServerOutcome(name=name, state=line.state)
        if name in plan.already_current:
            return self.new_outcome(name, ServerState.ALREADY_CURRENT)
        if name in self.offline and self.begun:
            return replace(self.new_outcome(name, ServerState.LEFT_ON_V1, self.offline[name]), offline=True)
        if line.state is ServerState.UPGRADING:
            return replace(self.new_outcome(name, line.state, "its workflow was still running"), version_after="")
        if self.end and self.touched:
            away = cut_off(plan.server(name).version, "; unreachable from v2 Core")
            unmanaged = away if self.core_begun and not self.rolled_back else ""
            text = f"not begun, because the upgrade ended before{unmanaged}"
            return self.new_outcome(name, ServerState.STOPPED, text)
        return self.new_outcome(name, line.state)


def _with_rollback(result: FleetResult, rollback: FleetResult) -> FleetResult:
    # Servers of earlier runs, which `--limit` left out of this one, are restored with Core as well.
    servers = {o.name: o for o in (*result.servers, *rollback.servers)}
    return replace(
        result,
        core_state=rollback.core_state,
        core_version=rollback.core_version,
        core_detail=rollback.core_detail,
        core_attempt=rollback.core_attempt,
        core_begun=rollback.core_begun,
        servers=tuple(servers.values()),
        dumps=tuple({(d.label, d.path): d for d in (*result.dumps, *rollback.dumps)}.values()),
        fingerprints=(*result.fingerprints, *rollback.fingerprints),
        warnings=(*result.warnings, *rollback.warnings),
    )
