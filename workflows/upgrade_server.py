"""UpgradeServer: stage, switch and verify one server; a failed switch is undone at once. It never waits for people."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from activities import contracts
from model.facts import Severity
from model.fleet.spec import Event
from model.gates import QUERY_SERVER_PROGRESS
from model.pages.servers import Failure
from model.planning import core_access, evaluate_key, server_differs
from model.status import ServerOutcome, ServerProgress, ServerState, UpgradeServerRequest
from model.steps import (
    ConnectServer,
    Notice,
    RecheckServer,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    Switched,
    SwitchServer,
    VerifyServer,
)
from model.text.versions import cut_off
from workflows.phases.server_steps import survey_server
from workflows.runtime import auto_rollback
from workflows.runtime.failures import FailureKind, describe_failure, finish, retry_undo
from workflows.runtime.steps import run_step, run_undo


@workflow.defn(name="UpgradeServer")
class UpgradeServer:
    """A saga of its own, so that it undoes its work also if its parent is terminated."""

    @workflow.init
    def __init__(self, request: UpgradeServerRequest) -> None:
        facts = request.plan.server(request.server)
        self._request = request
        self._alone = False
        self._line = ServerProgress(
            name=request.server,
            state=ServerState.UPGRADING,
            since=workflow.now(),
            attempt=request.op.attempt,
            workflow_id=workflow.info().workflow_id,
        )
        self._basis = ServerOutcome(
            name=request.server,
            state=ServerState.UPGRADING,
            attempt=request.op.attempt,
            version_before=facts.version,
            version_after=facts.version,
            backup=request.backup,
        )
        self._step = ServerStep(
            op=request.op,
            server=request.fleet.server(request.server),
            facts=facts,
            target=request.fleet.target,
            agent=request.fleet.agent,
            timing=request.fleet.timing,
        )
        core = core_access(request.fleet.core, request.plan.core, facts)
        self._saved = SavedServerStep(**self._step.basis(), backup=request.backup, core=core)
        self._staged = request.staged

    @workflow.run
    async def run(self, request: UpgradeServerRequest) -> ServerOutcome:  # noqa: ARG002 - __init__ keeps it
        """The guide's third heading, for one server."""
        try:
            await self._recheck()
            staged = await self._stage()
        except FailureError as error:
            return self._not_begun(error)
        key = self._request.key.public_key
        try:
            switched = await self._switch(staged, key)
        except (asyncio.CancelledError, FailureError) as error:
            return await self._undo(error)
        self._basis = replace(self._basis, switched=switched, version_after=switched.version, pinned_key=key)
        if not self._request.prove:
            text = f"{switched.version} runs with its config; Core has not been asked yet"
            return self._end(replace(self._basis, state=ServerState.UNVERIFIED, detail=text))
        try:
            outcome = await self._verify(switched)
            return await self._connect(outcome) if self._step.facts.connect_to else outcome
        except (asyncio.CancelledError, FailureError) as error:
            if is_cancelled_exception(error) or describe_failure(error).type == FailureKind.AUTO_ROLLED_BACK:
                # After an automatic rollback restore.sh changes nothing, and proves that v1 runs.
                return await self._undo(error)
            return self._unverified(error)

    @workflow.query(name=QUERY_SERVER_PROGRESS, description="The current step on this server.")
    def server_progress(self) -> ServerProgress:
        """One line of `watch`."""
        return self._line

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _recheck(self) -> None:
        """Refuse changes since the approval. If only the staged binary is missing, stage it again."""
        if self._request.again or not self._request.prove:
            return  # all at once: all servers were checked right before Core was stopped
        self._at("comparing it with the plan")
        found = await run_step(contracts.RECHECK_SERVER, RecheckServer(**self._step.basis(), staged=self._staged))
        if not found.drift:
            return
        fresh = await survey_server(self._request.fleet, self._request.server, self._step.facts)
        fresh = evaluate_key(self._request.plan.core, fresh)
        if server_differs(self._step.facts, fresh) or any(f.severity is Severity.REFUSE for f in fresh.findings):
            text = "; ".join(found.drift)
            raise ApplicationError(f"it has changed since the approval: {text}", type=FailureKind.PLAN_CHANGED)
        self._staged = None

    async def _stage(self) -> StagedAgent:
        if self._staged is not None:
            return self._staged
        self._at("staging")
        return await run_step(contracts.STAGE_SERVER, self._step)

    async def _switch(self, staged: StagedAgent, key: str) -> Switched:
        self._at("switching")
        message = SwitchServer(**self._step.basis(), backup=self._request.backup, staged=staged, key=key)
        return await run_step(contracts.SWITCH_SERVER, message)

    async def _verify(self, switched: Switched) -> ServerOutcome:
        self._at("waiting for Core to see it" + auto_rollback.describe_timer(switched))
        check = VerifyServer(
            op=self._request.op,
            fleet=self._request.fleet,
            core=self._request.plan.core,
            server=self._step.server,
            facts=self._step.facts,
            switched=switched,
            expected_version=self._request.fleet.target,
            key=self._request.key.public_key,
        )
        proof = await run_step(contracts.VERIFY_SERVER, check)
        if self._step.server.auto_rollback:
            self._at("disarming its automatic rollback")
        note = await finish(auto_rollback.disarm(self._saved))
        return self._end(replace(self._basis, state=ServerState.UPGRADED, proof=proof, detail=note))

    async def _connect(self, upgraded: ServerOutcome) -> ServerOutcome:
        """The agent connects to Core from now on; if Core does not see it so, its connection is as before."""
        self._at(f"connecting it to {self._step.facts.connect_to}")
        step = ConnectServer(
            **self._step.basis(),
            backup=self._saved.backup,
            core=self._saved.core,
            key=self._request.key.public_key,
        )
        try:
            switched = await run_step(contracts.CONNECT_SERVER, step)
            self._basis = replace(self._basis, switched=switched)
            return await self._verify(switched)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            why = describe_failure(error)
        self._at("restoring its inbound connection")
        undo = retry_undo(
            self._request.fleet.timing,
            lambda rounds: run_undo(contracts.DISCONNECT_SERVER, step, rounds),
            self._still_not_undone,
        )
        await finish(undo)
        text = (
            f"{upgraded.version_after} runs, and Core connects to it as before. It did not connect to Core: {why.text}"
        )
        return self._end(replace(upgraded, state=ServerState.UNVERIFIED, proof=None, detail=text, error_type=why.type))

    # --- failures -----------------------------------------------------------------------------------------------------

    def _not_begun(self, error: FailureError) -> ServerOutcome:
        if is_cancelled_exception(error):
            raise error
        why = describe_failure(error)
        again, text = self._request.again, f"{why.text}\nnothing was switched"
        state = ServerState.UNVERIFIED if again else ServerState.LEFT_ON_V1
        away = why.type == FailureKind.UNREACHABLE and not again
        return self._end(replace(self._basis, state=state, detail=text, error_type=why.type, offline=away))

    def _unverified(self, error: BaseException) -> ServerOutcome:
        """v2 runs with its config and stays: a v1 agent cannot talk to v2 Core."""
        why = describe_failure(error)
        return self._end(replace(self._basis, state=ServerState.UNVERIFIED, detail=why.text, error_type=why.type))

    async def _undo(self, error: BaseException) -> ServerOutcome:
        """Restore the old binary and config at once. A cancelled workflow ends as cancelled, after its undo."""
        self._alone = is_cancelled_exception(error)
        outcome = await finish(self._restore(describe_failure(error)), self._work_alone)
        if is_cancelled_exception(error):
            raise error
        return outcome

    async def _restore(self, why: Failure) -> ServerOutcome:
        self._at("restoring the old version")
        basis = replace(self._basis, error_type=why.type, switched=None, pinned_key="")
        try:
            restored = await retry_undo(
                self._request.fleet.timing,
                lambda rounds: run_undo(contracts.RESTORE_SERVER, self._saved, rounds),
                self._still_not_undone,
                lambda: not self._alone,
            )
        except FailureError:
            # The fleet's workflow continues the undo: it can open a gate.
            return self._end(
                replace(basis, state=ServerState.ROLLBACK_INCOMPLETE, detail=why.text_after_undo, undo_unfinished=True)
            )
        away = cut_off(restored.version, ": unreachable from v2 Core until it is upgraded")
        text = f"{why.text_after_undo}\nrestored to {restored.version}{away}"
        return self._end(replace(basis, state=ServerState.LEFT_ON_V1, detail=text, version_after=restored.version))

    def _work_alone(self) -> None:
        """After a cancel the fleet's workflow may be terminated, so this workflow retries the undo itself."""
        self._alone = True

    def _still_not_undone(self, attempts: int, why: Failure) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        self._at(f"restoring the old version: tried {times}, still trying: {why.text}")
        fleet = self._request.fleet
        notice = Notice(
            fleet=fleet.name,
            timing=fleet.timing,
            event=Event.FAILURE,
            subject=f"{self._request.server}: v1 is not restored yet",
            text=self._line.step,
            notify=fleet.notify,
        )
        self._notice = asyncio.create_task(_notify(notice))

    # --- what people see ----------------------------------------------------------------------------------------------

    def _at(self, step: str) -> None:
        self._line = replace(self._line, step=step, since=workflow.now())
        workflow.set_current_details(f"{self._request.server}: {step}")

    def _end(self, outcome: ServerOutcome) -> ServerOutcome:
        self._line = replace(self._line, state=outcome.state, step="", detail=outcome.detail, since=workflow.now())
        workflow.set_current_details(f"{self._request.server}: {outcome.state}\n\n{outcome.detail}")
        return outcome


async def _notify(notice: Notice) -> None:
    try:
        await run_step(contracts.NOTIFY, notice)
    except FailureError as error:
        workflow.logger.warning("a notice could not be sent", extra={"why": describe_failure(error).text})
