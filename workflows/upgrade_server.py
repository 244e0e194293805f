"""One server: stage, switch, verify; a switch that fails is undone at once. It never waits for people."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from model.decisions import QUERY_SERVER_PROGRESS
    from model.facts import Severity
    from model.fleet import Clocks
    from model.progress import ServerOutcome, ServerProgress, ServerState, UpgradeServerRequest
    from model.steps import Notice, ServerStep, StagedAgent, Switched, VerifyServer
with workflow.unsafe.sandbox_import_notification_policy(workflow.SandboxImportNotificationPolicy.SILENT):
    from workflows import dead_man, steps
    from workflows.dead_man import PUT_ITSELF_BACK
    from workflows.preflight import differs, judged, survey_server
    from workflows.saga import Trouble, finish, persist, trouble


@workflow.defn(name="UpgradeServer")
class UpgradeServer:
    """A saga of its own, so that it undoes itself also when its parent is terminated."""

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
            clocks=request.fleet.clocks,
            backup=request.backup,
            staged=_staged(request),
            key=request.key.public_key,
        )

    @workflow.run
    async def run(self, request: UpgradeServerRequest) -> ServerOutcome:  # noqa: ARG002 - __init__ keeps it
        """The guide's third heading, for one server."""
        try:
            await self._as_planned()
            await self._stage()
        except FailureError as error:
            return self._not_begun(error)
        try:
            switched = await self._switch()
        except (asyncio.CancelledError, FailureError) as error:
            return await self._undo(error)
        self._basis = replace(self._basis, switched=switched, version_after=switched.version, pinned_key=self._step.key)
        if not self._request.prove:
            text = f"{switched.version} runs with its config; Core has not been asked yet"
            return self._end(replace(self._basis, state=ServerState.UNPROVEN, detail=text))
        try:
            return await self._verify(switched)
        except (asyncio.CancelledError, FailureError) as error:
            if is_cancelled_exception(error) or trouble(error).type == PUT_ITSELF_BACK:
                # Its restore.sh once more: it changes nothing then, and proves that v1 runs.
                return await self._undo(error)
            return self._unproven(error)

    @workflow.query(name=QUERY_SERVER_PROGRESS, description="What is being done on this server right now.")
    def server_progress(self) -> ServerProgress:
        """One line of `watch`."""
        return self._line

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _as_planned(self) -> None:
        """Refuse what changed since the approval. What is merely not staged any more is staged again."""
        if self._request.again or not self._request.prove:
            return  # together, all were compared in the moment before Core was stopped
        self._at("comparing it with the plan")
        found = await steps.recheck_server(self._step)
        if not found.drift:
            return
        fresh = judged(self._request.plan.core, await survey_server(self._request.fleet, self._request.server))
        if differs(self._step.facts, fresh) or any(f.severity is Severity.REFUSE for f in fresh.findings):
            text = "; ".join(found.drift)
            raise ApplicationError(f"it is not any more what was approved: {text}", type="PlanChanged")
        self._step = replace(self._step, staged=None)

    async def _stage(self) -> None:
        if self._step.staged is None:
            self._at("staging")
            self._step = replace(self._step, staged=await steps.stage_server(self._step))

    async def _switch(self) -> Switched:
        self._at("switching")
        return await steps.switch_server(self._step)

    async def _verify(self, switched: Switched) -> ServerOutcome:
        self._at("waiting for Core to see it" + dead_man.unless(switched))
        check = VerifyServer(
            op=self._request.op,
            fleet=self._request.fleet,
            core=self._request.plan.core,
            server=self._step.server,
            switched=switched,
            expected_version=self._request.fleet.target,
            key=self._step.key,
        )
        proof = await steps.verify_server(check)
        if self._step.server.dead_man:
            self._at("disarming its dead-man timer")
        note = await finish(dead_man.disarm(self._step))
        return self._end(replace(self._basis, state=ServerState.UPGRADED, proof=proof, detail=note))

    # --- how it can end otherwise -------------------------------------------------------------------------------------

    def _not_begun(self, error: FailureError) -> ServerOutcome:
        if is_cancelled_exception(error):
            raise error
        why = trouble(error)
        again, text = self._request.again, f"{why.text}\nnothing was switched"
        state = ServerState.UNPROVEN if again else ServerState.LEFT_ON_V1
        away = why.type == "Unreachable" and not again
        return self._end(replace(self._basis, state=state, detail=text, error_type=why.type, offline=away))

    def _unproven(self, error: BaseException) -> ServerOutcome:
        """v2 runs with its config: it stays, because a v1 agent cannot talk to v2 Core anyway."""
        why = trouble(error)
        return self._end(replace(self._basis, state=ServerState.UNPROVEN, detail=why.text, error_type=why.type))

    async def _undo(self, error: BaseException) -> ServerOutcome:
        """v1 binary and config back at once. A cancelled workflow ends as cancelled, after its undo."""
        self._alone = is_cancelled_exception(error)
        outcome = await finish(self._restore(trouble(error)), self._left_alone)
        if is_cancelled_exception(error):
            raise error
        return outcome

    async def _restore(self, why: Trouble) -> ServerOutcome:
        self._at("putting v1 back")
        basis = replace(self._basis, error_type=why.type, switched=None, pinned_key="")
        try:
            restored = await persist(
                self._request.fleet.clocks,
                lambda rounds: steps.restore_server(self._step, rounds),
                self._still_not_undone,
                lambda: not self._alone,
            )
        except FailureError:
            # The fleet's workflow goes on with it: there people can be asked.
            return self._end(
                replace(basis, state=ServerState.ROLLBACK_INCOMPLETE, detail=why.after_undo, undo_unfinished=True)
            )
        text = f"{why.after_undo}\nput back on {restored.version}: unreachable from v2 Core until it is upgraded"
        return self._end(replace(basis, state=ServerState.LEFT_ON_V1, detail=text, version_after=restored.version))

    def _left_alone(self) -> None:
        """Cancelled, perhaps because the fleet's workflow was terminated: nobody else goes on with the undo."""
        self._alone = True

    def _still_not_undone(self, attempts: int, why: Trouble) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        self._at(f"putting v1 back: tried {times}, still trying: {why.text}")
        fleet = self._request.fleet
        notice = Notice(
            fleet=fleet.name,
            subject=f"{self._request.server}: v1 is not back yet",
            text=self._line.step,
            command=fleet.notify_command,
        )
        self._notice = asyncio.create_task(_tell(notice, fleet.clocks))

    # --- what people see ----------------------------------------------------------------------------------------------

    def _at(self, step: str) -> None:
        self._line = replace(self._line, step=step, since=workflow.now())
        workflow.set_current_details(f"{self._request.server}: {step}")

    def _end(self, outcome: ServerOutcome) -> ServerOutcome:
        self._line = replace(self._line, state=outcome.state, step="", detail=outcome.detail, since=workflow.now())
        workflow.set_current_details(f"{self._request.server}: {outcome.state}\n\n{outcome.detail}")
        return outcome


async def _tell(notice: Notice, clocks: Clocks) -> None:
    try:
        await steps.notify(notice, clocks)
    except FailureError as error:
        workflow.logger.warning("a message did not reach anybody", extra={"why": trouble(error).text})


def _staged(request: UpgradeServerRequest) -> StagedAgent | None:
    if not request.staged_path:
        return None
    return StagedAgent(
        path=request.staged_path,
        sha256=request.staged_sha256,
        version=request.fleet.target,
        source="staged before Core's switch",
    )
