"""The state that only a rollback has: the hosts that it restores, and its result."""

from __future__ import annotations

from dataclasses import replace

from model.facts import DumpFacts
from model.fleet.spec import DatabaseRollback
from model.pages.servers import Failure
from model.status import FleetResult, FleetState, Phase, RollbackRequest, ServerOutcome, ServerState
from model.steps import Operation, Proof
from model.text.versions import cut_off
from workflows.runtime.run import Ended, Run


class RollbackRun(Run):
    """One rollback."""

    state_while_running = FleetState.ROLLBACK_INCOMPLETE

    def __init__(self, request: RollbackRequest) -> None:
        super().__init__(request.fleet, request.change, Phase.ROLLBACK, request.servers, request.attempt)
        self.use(request)
        self.outcomes = {o.name: o for o in request.outcomes}
        self.core_backup = request.core_backup
        self.core_state = ServerState.PENDING if request.core else ServerState.ALREADY_CURRENT
        self.core_version = request.plan.core.version if request.core_is_back else request.fleet.target
        self.core_begun = request.dump is not None
        self.image_pins = request.image_pins
        self.dumps = [request.dump] if request.dump else []
        self.dump_to_restore: DumpFacts | None = request.dump if request.database == DatabaseRollback.RESTORE else None
        """None: nothing is restored."""
        self.core_locked = False
        """The proof of the final dump locks Core's host, also if nothing is changed in the end."""
        self.unreachable: dict[str, str] = {}
        """Servers that were unreachable at the last check, and why."""
        self.restored: list[str] = []
        """Servers on which the old version runs again, proven or not."""
        self.losses: tuple[str, ...] = ()
        """What v1 cannot read of the database, at the last check; only where it is kept."""

    @property
    def core_is_rolled_back(self) -> bool:
        """By this rollback, or by an earlier one."""
        return self.request.core or self.request.core_is_back

    def use(self, request: RollbackRequest) -> None:
        """Roll back what this request names, from the facts and backups that it has."""
        self.request = request
        self.plan = request.plan
        self.backups = request.backups_by_server()

    def op(self, name: str) -> Operation:
        """Each host may be restored from the run folder of another run."""
        return replace(super().op(name), change=self.request.change_of(name))

    def gives_up_undos(self) -> bool:
        """`stop` abandons hosts that do not answer."""
        return bool(self.gatekeeper.stopping)

    def finish_server(
        self, name: str, state: ServerState, detail: str = "", *, version: str = "", proof: Proof | None = None
    ) -> None:
        """Keep the outcome of the rollback of one server."""
        before = self.outcomes.get(name) or ServerOutcome(name=name, state=state)
        self.set_outcome(
            replace(
                before,
                state=state,
                attempt=self.request.attempt,
                detail=detail,
                version_before=before.version_after or self.fleet.target,
                version_after=version,
                backup=self.backups.get(name),
                switched=None,
                proof=proof,
                pinned_key="",
            )
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    def end_normally(self) -> Ended:
        """Rolled back, or incomplete with the names of the hosts that are not restored."""
        request = self.request
        self._account_for_others()
        names = (*request.servers, *(one.name for one in request.not_restored))
        bad = [o for o in map(self.outcomes.__getitem__, names) if o.state is ServerState.ROLLBACK_INCOMPLETE]
        if bad:
            lines = "\n".join(f"{o.name}: {o.detail}" for o in bad)
            return Ended(FleetState.ROLLBACK_INCOMPLETE, f"rolled back, but not completely:\n{lines}")
        if request.core:
            return Ended(FleetState.ROLLED_BACK, f"{self.fleet.name} is back on {self.core_version or 'v1'}")
        seen = f"Core {self.core_version} sees them"
        if not request.core_is_back:
            away = cut_off(
                [s.version for s in request.plan.servers], ": they are unreachable from it until they are upgraded"
            )
            seen = f"Core stays on {self.core_version}{away}"
        return Ended(FleetState.ROLLED_BACK, f"back on the old version: {', '.join(request.servers)}; {seen}")

    def _account_for_others(self) -> None:
        """Give servers that this rollback does not restore an outcome with the reason."""
        for one in self.request.not_restored:
            state = ServerState.STOPPED if one.harmless else ServerState.ROLLBACK_INCOMPLETE
            self.outcomes[one.name] = ServerOutcome(name=one.name, state=state, detail=f"not restored: {one.why}")
        named = [*self.request.servers, *(one.name for one in self.request.not_restored)]
        for name, outcome in self.outcomes.items():
            if name not in named and outcome.state is not ServerState.ALREADY_CURRENT:
                text = "never switched: the old version runs there as before"
                self.outcomes[name] = replace(outcome, state=ServerState.STOPPED, detail=text)

    def end_stopped(self, why: str) -> Ended:
        """Only before anything was changed: afterwards a rollback is finished."""
        return Ended(FleetState.STOPPED, f"{why}: nothing was changed")

    def end_failed(self, why: Failure) -> Ended:
        """The same."""
        return Ended(FleetState.STOPPED, f"{why.text}: nothing was changed")

    def result(self) -> FleetResult:
        """With the decision of the upgrade's gate, where the rollback was approved there."""
        result, approved = super().result(), self.request.approved
        return replace(result, decisions=((approved,) if approved else ()) + result.decisions)
