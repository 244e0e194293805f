"""Client of one fleet's run: queries, decisions, controls, its result."""

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
from temporalio.common import RawValue
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from model.errors import EndedByTemporal, NoSuchUpgrade, NotAccepted, NoWorker, TemporalUnavailable, UpgradeError
from model.fleet.spec import workflow_id
from model.gates import (
    FOR_RUN,
    QUERY_PROGRESS,
    QUERY_SERVER_PROGRESS,
    SIGNAL_CONTROL,
    SIGNAL_DECIDE,
    Control,
    Decision,
    Recorded,
)
from model.plan import Plan
from model.serialization import moment
from model.status import FleetProgress, FleetResult, ServerProgress, ServerState
from service.requests import whole_plan
from service.upgrades import Run, abandoned_rollback, to_run

T = TypeVar("T")

ANSWER = timedelta(seconds=10)
"""How long to wait for a worker's answer before a message is left as a signal."""
CHILDREN_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a decision or control was delivered."""

    stored_only: bool
    """True: as a signal, because no worker answered. It takes effect when one does."""
    recorded: Recorded | None = None


class Upgrade:
    """The newest run of one fleet's workflow."""

    def __init__(self, client: Client, fleet: str) -> None:
        self.client = client
        self.fleet = fleet
        self.handle: WorkflowHandle[object, object] = client.get_workflow_handle(workflow_id(fleet))
        self._rollback = ""
        """Workflow id of the rollback that was running at the last query. Its gates are answered there."""

    async def describe(self) -> Run:
        """Status, who started it and when. Raises NoSuchUpgrade.

        If the upgrade was terminated while its rollback ran, this object represents that rollback from here on.
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
        """The state; with `steps`, running servers are also queried for their step."""
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
        """The state of the upgrade's rollback, which has hosts and gates of its own."""
        child: WorkflowHandle[object, object] = self.client.get_workflow_handle(progress.rollback_id)
        try:
            now = await self._query(child, QUERY_PROGRESS, FleetProgress)
        except UpgradeError:
            return progress
        decisions = (*progress.decisions, *now.decisions)
        return replace(now, decisions=decisions, rollback_id=progress.rollback_id, state=None)

    async def plan(self) -> Plan | None:
        """The plan that is (or was) to be approved."""
        try:
            return await whole_plan(self.handle)
        except RPCError as error:
            raise self._explain(error) from None
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return None

    async def decide(self, decision: Decision) -> Accepted:
        """Send an update, because it is answered; if no worker answers, a signal, because it is stored.

        Raises NotAccepted.
        """
        # One id per gate: a second answer returns the record of the first instead of counting again.
        update = f"decide/{decision.gate}/{decision.plan_digest}"
        to = self.client.get_workflow_handle(self._rollback) if self._rollback else self.handle
        recorded = await self._send(to, SIGNAL_DECIDE, decision, update, Recorded)
        if not isinstance(recorded, Recorded):
            return Accepted(stored_only=recorded is None)
        taken = recorded.decision
        if (taken.verdict, taken.actor) != (decision.verdict, decision.actor):
            raise NotAccepted(
                f"gate {decision.gate} is already answered: {taken.verdict.value} by {taken.actor}, "
                f"{moment(recorded.at)}",
                residue="your answer was not counted",
                hint=f"komodo-upgrade status {self.fleet}",
            )
        return Accepted(stored_only=False, recorded=recorded)

    async def control(self, control: Control) -> Accepted:
        """Send pause, resume, stop or rollback, as an update or a signal."""
        answer = await self._send(self.handle, SIGNAL_CONTROL, control, None, object)
        return Accepted(stored_only=answer is None)

    async def result(self) -> FleetResult:
        """Wait for the end. Raises EndedByTemporal when the run failed, was cancelled or terminated."""
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
        """The update's answer (True if it has none); None: it was sent as a signal."""
        try:
            sealed = await self._for_this_run(to, message)
            taken = await asyncio.wait_for(
                to.execute_update(name, sealed, id=update, result_type=answer, rpc_timeout=ANSWER),
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
            await to.signal(name, await self._for_this_run(to, message), rpc_timeout=ANSWER)
        except RPCError as error:
            raise self._explain(error) from None
        return None

    async def _for_this_run(self, to: WorkflowHandle[object, object], message: object) -> RawValue:
        """The message with the id of the run that it is for: sent again, it counts in no other run."""
        found = await to.describe(rpc_timeout=ANSWER)
        context = WorkflowSerializationContext(namespace=self.client.namespace, workflow_id=to.id)
        converter = self.client.data_converter.with_context(context).payload_converter
        payload = converter.to_payload(message)
        payload.metadata[FOR_RUN] = found.run_id.encode()
        return RawValue(payload)

    def _refused(self, error: WorkflowUpdateFailedError) -> NotAccepted:
        cause = error.cause
        kind = (cause.type or "") if isinstance(cause, ApplicationError) else ""
        what = cause.message if isinstance(cause, ApplicationError) else str(cause or error)
        if kind == "AcceptedUpdateCompletedWorkflow":
            what = "the upgrade ended before it answered"
        return NotAccepted(what, residue="nothing was changed by it", hint=f"komodo-upgrade status {self.fleet}")

    async def _query(self, handle: WorkflowHandle[object, object], name: str, kind: type[T]) -> T:
        try:
            answer: T = await handle.query(name, result_type=kind, rpc_timeout=ANSWER)
        except WorkflowQueryFailedError as error:
            raise NoWorker(
                f"the upgrade of {self.fleet} cannot be queried now: {error}",
                residue="the upgrade itself is safe in Temporal",
                hint="read the worker's log, then repeat the command",
            ) from None
        except WorkflowQueryRejectedError:
            raise NoSuchUpgrade(f"the upgrade of {self.fleet} has ended", hint=self._report()) from None
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

    def _report(self) -> str:
        return f"komodo-upgrade report {self.fleet}"

    def _explain(self, error: RPCError) -> UpgradeError:
        text = error.message or str(error)
        if error.status == RPCStatusCode.NOT_FOUND:
            if "completed" in text:
                return NoSuchUpgrade(f"the upgrade of {self.fleet} has ended already", hint=self._report())
            return NoSuchUpgrade(
                f"there is no upgrade of a fleet named {self.fleet}",
                hint="`komodo-upgrade list` shows known fleets; `komodo-upgrade start` starts an upgrade",
            )
        no_worker = error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
        if no_worker or "poller" in text or "worker" in text:
            return NoWorker(
                f"no worker answered for the upgrade of {self.fleet}",
                residue="the upgrade itself is safe in Temporal",
                hint="start one: `komodo-upgrade up` (embedded) or `komodo-upgrade-worker`",
            )
        return TemporalUnavailable(
            f"Temporal: {text}",
            residue="the upgrade itself is stored in Temporal, and continues when it is reachable again",
            hint="`komodo-upgrade status` starts the embedded server again; for a server of your own, check that it "
            "runs and that TEMPORAL_ADDRESS is right",
        )


def _ended_badly(fleet: str, error: WorkflowFailureError) -> EndedByTemporal:
    cause = error.cause
    if isinstance(cause, CancelledError):
        what = f"the upgrade of {fleet} was cancelled through Temporal"
    elif isinstance(cause, TerminatedError):
        what = f"the upgrade of {fleet} was terminated through Temporal: no step was started after that"
    else:
        what = f"the upgrade of {fleet} ended with an error: {cause}"
    hint = "each host's run folder holds README.txt and restore.sh; `komodo-upgrade start` surveys every host again"
    return EndedByTemporal(what, hint=hint)
