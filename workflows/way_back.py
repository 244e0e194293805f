"""The steps of a rollback, in an order in which every failure leaves a fleet that works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from model.facts import Backup, DatabasePrint, DumpFacts, Finding, Severity
    from model.progress import FleetState, RollbackRequest, ServerOutcome, ServerProgress, ServerState
    from model.steps import KEEP, CoreStep, Operation, Proof, Restored, ServerStep, Switched, VerifyServer
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import proving, steps
    from workflows.gates import Desk
    from workflows.preflight import only, slim_core, slim_server
    from workflows.saga import Trouble, each, trouble
    from workflows.state import CORE, Ended
    from workflows.undoing import Undo, insist, still

_T = TypeVar("_T")


class WayBack:
    """What one rollback knows."""

    def __init__(self, request: RollbackRequest, desk: Desk) -> None:
        self.request = request
        self.desk = desk
        self.begun = False
        """Something was changed: from here on it is finished, whatever is cancelled."""
        self.held = False
        """Core's host may be locked for the proof of the final dump, also where nothing is changed in the end."""
        self.core_state = ServerState.PENDING if request.core else ServerState.ALREADY_CURRENT
        self.core_version = request.plan.core.version if request.core_is_back else request.fleet.target
        self.core_agent: ServerOutcome | None = None
        self.core_line = ServerProgress(name=CORE, attempt=request.attempt)
        self.lines = {n: ServerProgress(name=n, attempt=request.attempt) for n in request.servers}
        self.outcomes = {o.name: o for o in request.outcomes}
        self.dumps: tuple[DumpFacts, ...] = (request.dump,) if request.dump else ()
        self.prints: tuple[DatabasePrint, ...] = ()
        self._final = request.dump if request.database == "restore" else None
        """The dump that is restored; None: nothing is restored."""
        self.dark = timedelta()
        self.warnings: list[Finding] = []
        self.unreachable: dict[str, str] = {}
        """Servers that could not be reached when it was checked, and why."""
        self._backups: dict[str, Backup] = dict(zip(request.servers, request.backups, strict=False))

    async def check(self) -> None:
        """Raises Ended, REFUSED, where the way back is not possible: before anything is changed."""
        request = self.request
        missing = [name for name in request.servers if name not in self._backups]
        drift = [f"there is no backup of {name}" for name in missing]
        drift += await self._check_servers()
        if self.request.core:
            self._core("checking that all is there for the way back", state=ServerState.PREPARING)
            try:
                kept = KEEP if request.dump and self._final is None else ""
                drift += (await steps.check_rollback(self._step(dump=self._final, label=kept))).drift
                if self._final and not drift:
                    self._core("proving the final dump")
                    self.held = True
                    self._final = await proving.prove(self._step(), self._final)
                    self.dumps = (self._final,)
            except FailureError as error:
                drift.append(f"Core's host or the final dump is not as it must be: {trouble(error).text}")
            self._core("", state=ServerState.PENDING)
        if drift:
            raise Ended(FleetState.REFUSED, "the way back is not possible, nothing was changed: " + "; ".join(drift))

    async def _check_servers(self) -> list[str]:
        """What is gone on the servers. One that cannot be reached refuses nothing: it is put back once it can be."""
        drift: dict[str, tuple[str, ...]] = {}
        self.unreachable = {}

        async def one(name: str) -> None:
            self._line(name, state=ServerState.PREPARING, step="checking that all is there for the way back")
            found = await steps.check_server_rollback(self._server_step(name))
            self._line(name, state=ServerState.PENDING, step="")
            drift[name] = found.drift
            if found.unreachable:
                self.unreachable[name] = found.unreachable

        failed = await each((n for n in self.request.servers if n in self._backups), one)
        for name, error in failed.items():
            self._line(name, state=ServerState.PENDING, step="")
            drift[name] = (f"it cannot be looked at: {trouble(error).text}",)
        return [f"{name}: {text}" for name in self.request.servers for text in drift.get(name, ())]

    def warn_of_unreachable(self) -> None:
        """Said once, when it begins all the same."""
        for name in self.request.servers:
            if name in self.unreachable:
                text = f"it could not be reached when the rollback began ({self.unreachable[name]})"
                self.warn("unreachable", name, f"{text}: it is put back as soon as it can be")

    # --- Core ---------------------------------------------------------------------------------------------------------

    async def core(self) -> None:
        """Stop, `pre_rollback`, final v1 dump, v1 files, v1 Core. A failure brings the new Core back."""
        self.begun = True
        if not self.request.core:
            return
        restoring = False
        try:
            self._core("stopping Core", state=ServerState.ROLLING_BACK)
            await steps.stop_core(self._step())
            if self.request.dump:
                self._core("dumping the v2 database")
                self.dumps += (await proving.proven_dump(self._step(label="pre_rollback")),)
                restoring = True
                await self._database()
            self._core("putting Core's files back")
            await steps.restore_core_files(self._step())
            self._core("starting the old Core")
            started = await steps.start_old_core(self._step())
        except FailureError as error:
            raise await self._failed(trouble(error), restoring=restoring) from error
        self.core_state, self.core_version, self.dark = ServerState.ROLLED_BACK, started.version, started.dark
        self._core("", state=ServerState.ROLLED_BACK)

    async def _database(self) -> None:
        """By policy: the final dump, or what was written since kept in v1's form."""
        if self._final is None:
            self._core("taking the database to v1's form")
            await steps.downgrade_database(self._step())
            return
        self._core("restoring the final v1 dump")
        await steps.restore_database(self._step(dump=self._final))
        # Compared with what the dump's source held, document by document.
        self.prints += (replace(proving.print_of(self._final, proving.BACK), at=workflow.now()),)

    async def fingerprint(self) -> None:
        """What was kept, once nobody waits for it any more."""
        if not (self.request.core and self.request.dump) or self._final is not None:
            return
        try:
            self.prints += (await steps.fingerprint_database(self._step(label=proving.BACK)),)
        except FailureError as error:
            self.warn("fingerprint", CORE, f"the database could not be read: {trouble(error).text}")

    async def _failed(self, why: Trouble, *, restoring: bool) -> Ended:
        """Before the agents: the fleet works as before, or a person is told what to type."""
        self.core_state = ServerState.ROLLBACK_INCOMPLETE
        text = f"Core could not be brought back to v1: {why.text}"
        if self.request.dump is None:
            self._core("", state=self.core_state, detail=text)
            return Ended(FleetState.ROLLBACK_INCOMPLETE, text + self._by_hand())
        self._core("starting the new Core again")
        pre = self.dumps[-1] if restoring else None
        try:
            started = await self._insist(
                Undo(subject=CORE, what="start the new Core again", by_hand=self._by_hand().strip()),
                lambda rounds: steps.return_to_new_core(self._step(dump=pre), rounds),
                lambda text: self._core(text, state=ServerState.PARKED),
                "the new Core does not run again yet",
            )
        except FailureError as error:
            text += f"\nand the new Core could not be started again: {trouble(error).text}{self._by_hand()}"
            self._core("", state=self.core_state, detail=text)
            return Ended(FleetState.ROLLBACK_INCOMPLETE, text)
        self.core_state, self.core_version = ServerState.UPGRADED, started.version
        text += (
            f"\nCore {started.version} runs again with its data, and no agent was touched: the fleet works as before"
        )
        self._core("", state=self.core_state, detail=text)
        return Ended(FleetState.ROLLBACK_INCOMPLETE, text)

    def _by_hand(self) -> str:
        backup, address = self.request.core_backup, self.request.fleet.core.host.address
        return f"\nby hand on {address}: {backup.restore_command}" if backup else ""

    def _step(self, *, label: str = "", dump: DumpFacts | None = None) -> CoreStep:
        return CoreStep(
            op=self._op(CORE),
            fleet=self.request.fleet,
            facts=slim_core(self.request.plan.core),
            backup=self.request.core_backup,
            dump=dump,
            label=label,
        )

    def _op(self, name: str) -> Operation:
        request = self.request
        return Operation(change=request.change_of(name), fleet=request.fleet.name, target=name, attempt=request.attempt)

    # --- agents -------------------------------------------------------------------------------------------------------

    async def agents(self) -> None:
        """All of them at once, each for as long as it takes; `stop` gives up on those that do not answer."""
        await self._restore_core_agent()
        # Not even in a fleet of hundreds does one that may never answer hold up another.
        names = self.request.servers
        away = tuple(name for name in names if name in self.unreachable)
        await each((*(name for name in names if name not in away), *away), self._agent)

    async def _restore_core_agent(self) -> None:
        if not self.request.core_agent:
            return
        agent = self.request.plan.core.agent
        name = self.request.plan.core.agent_server or (agent.service if agent else "periphery")
        basis = ServerOutcome(name=name, state=ServerState.ROLLBACK_INCOMPLETE, attempt=self.request.attempt)
        by_hand = self._by_hand().strip()
        self._core(f"putting {name} back")
        try:
            restored = await self._insist(
                Undo(subject=name, what=f"put {name} back", by_hand=f"{by_hand} agent" if by_hand else ""),
                lambda rounds: steps.restore_core_agent(self._step(), rounds),
                lambda text: self._core(text, state=ServerState.PARKED),
            )
        except FailureError as error:
            self.core_agent = replace(basis, detail=f"it could not be put back: {trouble(error).text}\n{by_hand} agent")
        else:
            self.core_agent = replace(basis, state=ServerState.ROLLED_BACK, version_after=restored.version)
        self._core("", state=self.core_state)

    async def _insist(
        self,
        undo: Undo,
        work: Callable[[int], Awaitable[_T]],
        show: Callable[[str], None],
        news: str = "v1 is not back yet",
    ) -> _T:
        def report(attempts: int, why: Trouble) -> None:
            text = still(undo, attempts, why)
            show(text)
            self.desk.tell(f"{undo.subject}: {news}", text)

        return await insist(self.desk, undo, work, report, lambda: bool(self.desk.stopping))

    def _server_step(self, name: str) -> ServerStep:
        return ServerStep(
            op=self._op(name),
            server=self.request.fleet.server(name),
            facts=slim_server(self.request.plan.server(name)),
            target=self.request.fleet.target,
            agent=self.request.fleet.agent,
            clocks=self.request.fleet.clocks,
            backup=self._backups.get(name),
        )

    async def _agent(self, name: str) -> None:
        step, backup = self._server_step(name), self._backups.get(name)
        address = self.request.fleet.server(name).host.address
        by_hand = f"by hand on {address}: {backup.restore_command}" if backup else ""
        self._line(name, state=ServerState.ROLLING_BACK, step="putting v1 back")
        try:
            restored = await self._insist(
                Undo(subject=name, what=f"put {name} back", by_hand=by_hand),
                lambda rounds: steps.restore_server(step, rounds),
                lambda text: self._line(name, state=ServerState.PARKED, step=text),
            )
        except FailureError as error:
            text = f"v1 could not be put back: {trouble(error).text}\n{by_hand}".rstrip()
            self._settle(name, ServerState.ROLLBACK_INCOMPLETE, text)
            return
        await self._prove(name, restored)

    async def _prove(self, name: str, restored: Restored) -> None:
        """Core sees it again, freshly. Where Core stays on v2 there is nothing to see."""
        if not self.request.core and not self.request.core_is_back:
            text = f"on {restored.version} by decision, unreachable from Core {self.core_version}"
            self._settle(name, ServerState.LEFT_ON_V1, text, version_after=restored.version)
            return
        core = self.request.plan.core
        check = VerifyServer(
            op=self._op(name),
            fleet=only(self.request.fleet, name),
            core=replace(slim_core(core), servers=tuple(s for s in core.servers if s.name == name)),
            server=self.request.fleet.server(name),
            switched=Switched(
                version=restored.version,
                invocation=restored.invocation,
                started_at=restored.started_at,
                port_silent=timedelta(),
                lines=(restored.line,),
            ),
            expected_version=self.request.plan.server(name).version or restored.version,
            key="",
        )
        self._line(name, state=ServerState.ROLLING_BACK, step="waiting for Core to see it")
        try:
            proof = await steps.verify_server(check)
        except FailureError as error:
            text = f"v1 runs there, but Core has not confirmed it: {trouble(error).text}"
            self._settle(name, ServerState.ROLLBACK_INCOMPLETE, text, version_after=restored.version)
            return
        self._settle(name, ServerState.ROLLED_BACK, "", version_after=restored.version, proof=proof)

    # --- what it says -------------------------------------------------------------------------------------------------

    def end(self) -> Ended:
        """After all steps."""
        for one in self.request.left:
            state = ServerState.STOPPED if one.harmless else ServerState.ROLLBACK_INCOMPLETE
            self.outcomes[one.name] = ServerOutcome(name=one.name, state=state, detail=f"not put back: {one.why}")
        told = {one.name: one for one in self.request.left}
        for name, outcome in self.outcomes.items():
            if name in told:
                continue
            if name not in self.request.servers and outcome.state is not ServerState.ALREADY_CURRENT:
                text = "never switched: v1 runs there as before"
                self.outcomes[name] = replace(outcome, state=ServerState.STOPPED, detail=text)
        agent = (self.core_agent,) if self.core_agent else ()
        done = [self.outcomes[name] for name in (*self.request.servers, *told)]
        bad = [o for o in (*done, *agent) if o.state is ServerState.ROLLBACK_INCOMPLETE]
        if bad:
            lines = "\n".join(f"{o.name}: {o.detail}" for o in bad)
            return Ended(FleetState.ROLLBACK_INCOMPLETE, f"rolled back, but not all of it:\n{lines}")
        if not self.request.core:
            names = ", ".join(self.request.servers)
            seen = "sees them" if self.request.core_is_back else "stays as it is: unreachable from it until upgraded"
            return Ended(FleetState.ROLLED_BACK, f"back on the old version: {names}; Core {self.core_version} {seen}")
        return Ended(FleetState.ROLLED_BACK, f"{self.request.fleet.name} is back on {self.core_version or 'v1'}")

    def warn(self, code: str, subject: str, text: str) -> None:
        """Something a person must know, that stops nothing."""
        self.warnings.append(Finding(code=code, severity=Severity.WARN, subject=subject, text=text))

    def _settle(
        self, name: str, state: ServerState, detail: str, *, version_after: str = "", proof: Proof | None = None
    ) -> None:
        before = self.outcomes.get(name) or ServerOutcome(name=name, state=state)
        self.outcomes[name] = replace(
            before,
            state=state,
            attempt=self.request.attempt,
            detail=detail,
            version_before=before.version_after or self.request.fleet.target,
            version_after=version_after,
            backup=self._backups.get(name),
            switched=None,
            proof=proof,
            pinned_key="",
        )
        self._line(name, state=state, step="", detail=detail)

    def _line(self, name: str, **changes: object) -> None:
        self.lines[name] = replace(self.lines[name], since=workflow.now(), **changes)  # type: ignore[arg-type]
        self.desk.changed()

    def _core(self, step: str, **changes: object) -> None:
        self.core_line = replace(self.core_line, step=step, since=workflow.now(), **changes)  # type: ignore[arg-type]
        self.desk.changed()
