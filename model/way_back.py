"""From what an upgrade ended with, or from what its folders hold, to what its rollback starts with."""

from __future__ import annotations

from dataclasses import replace

from model.decisions import Recorded
from model.errors import HostError, NoSuchUpgrade
from model.facts import CoreFacts
from model.fleet import FleetSpec
from model.folders import FleetFolders, HostFolders, SavedChange
from model.plan import Plan, bind
from model.progress import FleetResult, FleetState, NotPutBack, RollbackRequest, ServerOutcome, ServerState

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
    # Where a host was away nothing was switched, and its restore.sh could not be reached either.
    servers = tuple(o for o in result.servers if o.state in _MAY_BE_ON_V2 and o.backup is not None and not o.offline)
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


# --- from the folders on the hosts, with no history left --------------------------------------------------------------


def request_from_folders(
    fleet: FleetSpec,
    seen: FleetFolders,
    *,
    only: tuple[str, ...] = (),
    change: str = "",
    database: str = "",
    requested_by: str = "",
) -> RollbackRequest:
    """What a rollback does, by what lies on the hosts. `only`: these servers alone; `change`: that upgrade's;
    `database`: restore | keep, empty: as the fleet file says.

    Of Core the newest upgrade that is in place; of each server the oldest one since that, because an upgrade may have
    taken several runs. Of servers alone the newest. Raises NoSuchUpgrade where nothing is in place, HostError where a
    host that must be known cannot be looked at.
    """
    core = None if only else _core_of(seen, change)
    picked: dict[str, SavedChange] = {}
    left: list[NotPutBack] = []
    for host in seen.servers:
        if only and host.name not in only:
            continue
        found = _pick(host, core, change)
        if found is not None and not found.problem and not host.problem:
            picked[host.name] = found
        elif only:
            raise _nothing_of(host, found, change)
        else:
            left.append(_left(host, found, core))
    if core is None and not picked:
        raise _nothing(fleet, seen, left)
    request = _request(fleet, seen, core, picked, tuple(left), requested_by)
    return replace(request, database=database or fleet.database.rollback)


def _core_of(seen: FleetFolders, change: str) -> SavedChange | None:
    if seen.core.problem:
        raise HostError(
            f"Core's host cannot be looked at: {seen.core.problem}",
            left="nothing was changed",
            cure="servers alone can be put back meanwhile: name them",
        )
    found = seen.core.newest(change)
    if found is not None and found.problem:
        raise HostError(
            f"the upgrade {found.change} cannot be undone on Core's host: {found.problem}", left="nothing was changed"
        )
    return found


def _pick(host: HostFolders, core: SavedChange | None, change: str) -> SavedChange | None:
    if change:
        return host.newest(change)
    there = [c for c in host.changes if c.in_place and (core is None or c.change >= core.change)]
    if core is not None:
        return there[0] if there else None
    # One whose saved version is the one that runs anyway leads back to nowhere.
    older = [c for c in there if c.problem or c.version != c.target]
    return (older or there)[-1] if there else None


def _left(host: HostFolders, found: SavedChange | None, core: SavedChange | None) -> NotPutBack:
    by_itself = "once it can be, put it back by its name"
    if host.problem:
        why = f"it cannot be looked at, so what runs there is not known: {host.problem}; {by_itself}"
        return NotPutBack(name=host.name, why=why)
    if found is not None:
        return NotPutBack(name=host.name, why=f"{found.problem}; {by_itself}")
    old = core.version if core else ""
    if old and host.running and host.running.split(".")[0] != old.split(".")[0]:
        why = f"its agent runs {host.running}, and no folder of this upgrade is there: unreachable from Core {old}"
        return NotPutBack(name=host.name, why=why)
    runs = f"its agent runs {host.running}" if host.running else "nothing of this upgrade is in place there"
    return NotPutBack(name=host.name, why=f"{runs}: it stays as it is", harmless=True)


def _nothing_of(host: HostFolders, found: SavedChange | None, change: str) -> NoSuchUpgrade | HostError:
    if host.problem:
        return HostError(f"{host.name} cannot be looked at: {host.problem}", left="nothing was changed")
    if found is not None:
        return HostError(f"{host.name} cannot be put back: {found.problem}", left="nothing was changed")
    of = f"of the upgrade {change} " if change else ""
    there = "; ".join(f"{c.change}: {c.state}" for c in host.changes)
    return NoSuchUpgrade(
        f"nothing {of}is in place on {host.name}",
        left="nothing was changed",
        cure=f"its folders say: {there or 'none'}",
    )


def _nothing(fleet: FleetSpec, seen: FleetFolders, left: list[NotPutBack]) -> NoSuchUpgrade:
    lines = [f"core: {c.change}: {c.state}" for c in seen.core.changes]
    lines += [f"{one.name}: {one.why}" for one in left if not one.harmless]
    told = "".join(f"\n    {line}" for line in lines)
    return NoSuchUpgrade(
        f"there is nothing to roll back: no upgrade of {fleet.name} is in place on Core's host or on a server{told}",
        cure="the run folders hold README.txt and restore.sh in any case",
    )


def _request(
    fleet: FleetSpec,
    seen: FleetFolders,
    core: SavedChange | None,
    picked: dict[str, SavedChange],
    left: tuple[NotPutBack, ...],
    requested_by: str,
) -> RollbackRequest:
    newest = core or max(picked.values(), key=lambda one: one.change)
    # Where Core stays, what is known of it still tells how to ask it.
    known = core or next((c for c in reversed(seen.core.changes) if c.core is not None and not c.problem), None)
    facts = known.core if known and known.core else CoreFacts()
    plan = bind(
        Plan(
            fleet=fleet.name,
            target=newest.target,
            core=facts,
            servers=tuple(one.server for one in picked.values() if one.server is not None),
            waves=(),
        )
    )
    outcomes = [
        ServerOutcome(
            name=name,
            state=ServerState.UPGRADED,
            attempt=one.attempt,
            version_before=one.version,
            version_after=one.target,
        )
        for name, one in picked.items()
    ]
    # A later run of the same upgrade may have been the one that took the agent beside Core along.
    runs = [c for c in seen.core.changes if core is not None and c.change >= core.change]
    agent = facts.agent is not None and any(c.agent_switched for c in runs)
    return RollbackRequest(
        fleet=replace(fleet, target=newest.target),
        change=newest.change,
        plan=plan,
        servers=tuple(picked),
        core=core is not None,
        core_agent=agent,
        backups=tuple(one.backup for one in picked.values() if one.backup is not None),
        changes=tuple(one.change for one in picked.values()),
        left=left,
        core_is_back=core is None and known is not None and seen.core.newest() is None,
        core_backup=core.backup if core else None,
        dump=core.dump if core else None,
        outcomes=tuple(outcomes),
        keepers=core.keepers if core else (),
        attempt=1 + max([one.attempt for one in (*picked.values(), *((core,) if core else ()))]),
        requested_by=requested_by,
    )
