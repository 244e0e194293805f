"""One fleet's upgrade as the commands talk to it: queries, decisions, controls, its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from model.decisions import (
    QUERY_PLAN,
    QUERY_PROGRESS,
    QUERY_SERVER_PROGRESS,
    SIGNAL_CONTROL,
    SIGNAL_DECIDE,
    Control,
    Decision,
    Recorded,
)
from model.errors import EndedByTemporal, NoSuchUpgrade, NotAccepted, NoWorker, TemporalUnavailable, UpgradeError
from model.fleet import workflow_id
from model.plain import moment
from model.plan import Plan
from model.progress import FleetProgress, FleetResult, ServerProgress, ServerState
from service.upgrades import Run, abandoned_rollback, to_run

T = TypeVar("T")

ANSWER = timedelta(seconds=10)
"""How long a worker may take to answer before the durable way is taken."""
CHILDREN_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a decision or control went in."""

    stored_only: bool
    """True: by signal, because no worker answered; it takes effect when one does."""
    recorded: Recorded | None = None


class Upgrade:
    """The newest run of one fleet's workflow."""

    def __init__(self, client: Client, fleet: str) -> None:
        self.client = client
        self.fleet = fleet
        self.handle: WorkflowHandle[object, object] = client.get_workflow_handle(workflow_id(fleet))
        self._rollback = ""
        """Workflow id of the rollback that was under way at the last look: its gates are answered there."""

    async def describe(self) -> Run:
        """Status, who began it and when. Raises NoSuchUpgrade.

        Of an upgrade that was terminated while its rollback ran, it is that rollback from here on.
        """
        try:
            found = await to_run(await self.handle.describe(rpc_timeout=ANSWER))
            if found.is_running or found.status == "completed":
                return found
            rollback = await abandoned_rollback(self.client, self.fleet)
        except RPCError as error:
            raise self._explain(error) from None
        if rollback is None:
            return found
        self.handle = self.client.get_workflow_handle(rollback.workflow_id)
        return rollback

    async def progress(self, *, steps: bool = False) -> FleetProgress:
        """Where it stands; with `steps` the running servers are asked for their step too."""
        progress = await self._query(self.handle, QUERY_PROGRESS, FleetProgress)
        self._rollback = progress.rollback_id
        if progress.rollback_id:
            return await self._of_rollback(progress)
        if not steps:
            return progress
        busy = [s for s in progress.servers if s.state is ServerState.UPGRADING and s.workflow_id]
        asked = await asyncio.gather(*(self._step(s) for s in busy[:CHILDREN_AT_ONCE]))
        known = {server.name: server for server in asked}
        return replace(progress, servers=tuple(known.get(s.name, s) for s in progress.servers))

    async def _of_rollback(self, progress: FleetProgress) -> FleetProgress:
        """What the upgrade's rollback says of itself; it has hosts and gates of its own."""
        child: WorkflowHandle[object, object] = self.client.get_workflow_handle(progress.rollback_id)
        try:
            now = await self._query(child, QUERY_PROGRESS, FleetProgress)
        except UpgradeError:
            return progress
        decisions = (*progress.decisions, *now.decisions)
        return replace(now, decisions=decisions, rollback_id=progress.rollback_id, state=None)

    async def plan(self) -> Plan | None:
        """The plan that is (or was) up for approval."""
        try:
            answer: Plan | None = await self.handle.query(
                QUERY_PLAN,
                result_type=Plan | None,  # type: ignore[arg-type] # a union is no class, but the converter takes it
                rpc_timeout=ANSWER,
            )
        except RPCError as error:
            raise self._explain(error) from None
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return None
        return answer

    async def decide(self, decision: Decision) -> Accepted:
        """Update first, because it answers; signal when no worker does, because it is stored. Raises NotAccepted."""
        # One id per gate: a second answer gets the first one's record back instead of being counted again.
        update = f"decide/{decision.gate}/{decision.plan_digest}"
        to = self.client.get_workflow_handle(self._rollback) if self._rollback else self.handle
        recorded = await self._send(to, SIGNAL_DECIDE, decision, update, Recorded)
        if not isinstance(recorded, Recorded):
            return Accepted(stored_only=recorded is None)
        taken = recorded.decision
        if (taken.verdict, taken.actor) != (decision.verdict, decision.actor):
            raise NotAccepted(
                f"gate {decision.gate} was answered already: {taken.verdict.value} by {taken.actor}, "
                f"{moment(recorded.at)}",
                left="your answer was not counted",
                cure=f"komodo-upgrade status {self.fleet}",
            )
        return Accepted(stored_only=False, recorded=recorded)

    async def control(self, control: Control) -> Accepted:
        """pause, resume, stop, rollback: the same two ways."""
        answer = await self._send(self.handle, SIGNAL_CONTROL, control, None, object)
        return Accepted(stored_only=answer is None)

    async def result(self) -> FleetResult:
        """Waits for the end. Raises EndedByTemporal when the run failed, was cancelled or terminated."""
        client = self.client
        run = await self.describe()
        handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id, result_type=FleetResult)
        try:
            result: FleetResult = await handle.result()
        except WorkflowFailureError as error:
            raise _ended_badly(self.fleet, error) from None
        except RPCError as error:
            raise self._explain(error) from None
        return result

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _send(
        self,
        to: WorkflowHandle[object, object],
        name: str,
        message: object,
        update: str | None,
        answer: type[T],
    ) -> T | bool | None:
        """The update's answer (True where it has none); None: it went as a signal."""
        try:
            taken = await asyncio.wait_for(
                to.execute_update(name, message, id=update, result_type=answer, rpc_timeout=ANSWER),
                ANSWER.total_seconds() + 2,
            )
        except WorkflowUpdateFailedError as error:
            raise self._refused(error) from None
        except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
            pass
        except RPCError as error:
            if error.status not in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED):
                raise self._explain(error) from None
        else:
            return True if taken is None else taken
        try:
            await to.signal(name, message, rpc_timeout=ANSWER)
        except RPCError as error:
            raise self._explain(error) from None
        return None

    def _refused(self, error: WorkflowUpdateFailedError) -> NotAccepted:
        cause = error.cause
        kind = (cause.type or "") if isinstance(cause, ApplicationError) else ""
        what = cause.message if isinstance(cause, ApplicationError) else str(cause or error)
        if kind == "AcceptedUpdateCompletedWorkflow":
            what = "the upgrade ended before it answered"
        return NotAccepted(what, left="nothing was changed by it", cure=f"komodo-upgrade status {self.fleet}")

    async def _query(self, handle: WorkflowHandle[object, object], name: str, kind: type[T]) -> T:
        try:
            answer: T = await handle.query(name, result_type=kind, rpc_timeout=ANSWER)
        except WorkflowQueryFailedError as error:
            raise NoWorker(
                f"the upgrade of {self.fleet} cannot be looked at right now: {error}",
                cure="the worker's log says why; the upgrade itself is safe in Temporal",
            ) from None
        except WorkflowQueryRejectedError:
            raise NoSuchUpgrade(f"the upgrade of {self.fleet} has ended", cure=self._look_back()) from None
        except RPCError as error:
            raise self._explain(error) from None
        return answer

    async def _step(self, server: ServerProgress) -> ServerProgress:
        child = self.client.get_workflow_handle(server.workflow_id)
        try:
            answer: ServerProgress = await child.query(
                QUERY_SERVER_PROGRESS, result_type=ServerProgress, rpc_timeout=timedelta(seconds=3)
            )
        except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return server
        return replace(answer, name=server.name, workflow_id=server.workflow_id)

    def _look_back(self) -> str:
        return f"komodo-upgrade report {self.fleet}"

    def _explain(self, error: RPCError) -> UpgradeError:
        text = error.message or str(error)
        if error.status == RPCStatusCode.NOT_FOUND:
            if "completed" in text:
                return NoSuchUpgrade(f"the upgrade of {self.fleet} has ended already", cure=self._look_back())
            return NoSuchUpgrade(
                f"there is no upgrade of a fleet named {self.fleet}",
                cure="`komodo-upgrade list` names those that are known; `komodo-upgrade start` begins one",
            )
        no_worker = error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
        if no_worker or "poller" in text or "worker" in text:
            return NoWorker(
                f"no worker answered for the upgrade of {self.fleet}",
                left="the upgrade itself is safe in Temporal",
                cure="start one: `komodo-upgrade up` (embedded) or komodo-upgrade-worker",
            )
        return TemporalUnavailable(
            f"Temporal: {text}",
            left="the upgrade itself is kept by Temporal, and goes on when it is there again",
            cure="`komodo-upgrade status` starts the embedded server again; a server of your own: is it up, and "
            "TEMPORAL_ADDRESS right?",
        )


def _ended_badly(fleet: str, error: WorkflowFailureError) -> EndedByTemporal:
    cause = error.cause
    if isinstance(cause, CancelledError):
        what = f"the upgrade of {fleet} was cancelled through Temporal"
    elif isinstance(cause, TerminatedError):
        what = f"the upgrade of {fleet} was terminated through Temporal: no step of it ran after that"
    else:
        what = f"the upgrade of {fleet} ended with an error: {cause}"
    cure = "each host's run folder holds README.txt and restore.sh; `komodo-upgrade start` looks at every host anew"
    return EndedByTemporal(what, cure=cure)
