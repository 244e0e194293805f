"""From what an upgrade ended with to what its rollback starts with. Used by a running upgrade and by the CLI."""

from __future__ import annotations

from model.decisions import Recorded
from model.fleet import FleetSpec
from model.progress import FleetResult, FleetState, RollbackRequest, ServerOutcome, ServerState

_MAY_BE_ON_V2 = (
    ServerState.UPGRADING,
    ServerState.UPGRADED,
    ServerState.UNPROVEN,
    ServerState.PARKED,
    ServerState.LEFT_ON_V1,
    ServerState.ROLLBACK_INCOMPLETE,
)
"""A server that was left on v1 is put back once more: that is harmless, and it proves that v1 runs there."""


def rollback_request(
    result: FleetResult,
    fleet: FleetSpec,
    *,
    approved: Recorded | None = None,
    requested_by: str = "",
    database: str = "",
) -> RollbackRequest:
    """All that RollbackFleet needs. `database`: restore | keep; empty: as the fleet file says.

    Raises ValueError when `result` has no plan, so nothing was ever changed."""
    if result.plan is None:
        raise ValueError(f"the upgrade {result.change} of {result.fleet} changed nothing: it ended before its plan")
    servers = tuple(o for o in result.servers if o.state in _MAY_BE_ON_V2 and o.backup is not None)
    agent = result.core_agent
    return RollbackRequest(
        fleet=fleet,
        change=result.change,
        plan=result.plan,
        servers=tuple(o.name for o in servers),
        core=_core_changed(result),
        core_agent=_core_changed(result) and agent is not None and agent.state in _MAY_BE_ON_V2,
        backups=tuple(o.backup for o in servers if o.backup is not None),
        core_backup=result.core_backup,
        dump=next((d for d in result.dumps if d.label == "final"), None) if result.core_begun else None,
        database=database or fleet.database.rollback,
        outcomes=result.servers,
        keepers=result.keepers,
        attempt=1 + max(result.core_attempt, *(o.attempt for o in (*result.servers, *_one(agent))), 1),
        approved=approved,
        requested_by=requested_by,
    )


def has_something_to_undo(request: RollbackRequest) -> bool:
    """False: nothing of this upgrade is in place."""
    return request.core or bool(request.servers)


def keepers_kept(result: FleetResult) -> tuple[str, ...]:
    """Containers that stay on the Core host after this end: they hold the images of a way back that is still open."""
    incomplete = result.state is FleetState.ROLLBACK_INCOMPLETE or result.core_state is ServerState.ROLLBACK_INCOMPLETE
    open_still = result.core_begun or incomplete
    return result.keepers if open_still else ()


def _core_changed(result: FleetResult) -> bool:
    """Also where an undo of Core's files did not end well: they are put back once more."""
    return result.core_begun or result.core_state is ServerState.ROLLBACK_INCOMPLETE


def _one(outcome: ServerOutcome | None) -> tuple[ServerOutcome, ...]:
    return (outcome,) if outcome else ()
