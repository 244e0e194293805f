"""Builds the request of a rollback: from the result of an upgrade, or from the run folders on the hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.errors import HostError, NoSuchUpgrade
from model.facts import CoreFacts, DumpLabel, agent_backup
from model.fleet.spec import DatabaseRollback, FleetSpec
from model.gates import Recorded
from model.pages.results import is_large, without_backup
from model.plan import Plan, bind
from model.planning import core_agent, with_core_agent
from model.run_folders import FleetFolders, HostFolders, SavedChange
from model.status import FleetResult, FleetState, NotRestored, RollbackRequest, ServerOutcome, ServerState

_MAY_BE_ON_V2 = (
    ServerState.UPGRADING,
    ServerState.UPGRADED,
    ServerState.UNVERIFIED,
    ServerState.WAITING,
    ServerState.LEFT_ON_V1,
    ServerState.ROLLBACK_INCOMPLETE,
)
"""A server that was left on v1 is restored again: that is harmless, and it proves that v1 runs there."""

_NO_BACKUP = "its run folder lists no backup"


def rollback_request(
    result: FleetResult,
    fleet: FleetSpec,
    *,
    approved: Recorded | None = None,
    requested_by: str = "",
    database: str = "",
) -> RollbackRequest:
    """The input of RollbackFleet. `database`: restore | keep; empty: the fleet file's choice.

    Raises ValueError if `result` has no plan, because then nothing was changed."""
    if result.plan is None:
        raise ValueError(f"the upgrade {result.change} of {result.fleet} changed nothing: it ended before its plan")
    changed, plan = _core_changed(result), result.plan
    # On an offline host nothing was switched, and its restore.sh could not be reached either.
    servers = tuple(
        o
        for o in result.servers
        if o.state in _MAY_BE_ON_V2
        and o.backup is not None
        and not o.offline
        and (changed or o.name not in plan.with_core)
    )
    return RollbackRequest(
        fleet=with_core_agent(fleet, plan.core),
        change=result.change,
        plan=plan,
        servers=tuple(o.name for o in servers),
        core=changed,
        backups=tuple(o.backup for o in servers if o.backup is not None),
        core_backup=result.core_backup,
        dump=next((d for d in result.dumps if d.label is DumpLabel.FINAL), None) if result.core_begun else None,
        database=DatabaseRollback(database) if database else fleet.database.rollback,
        outcomes=result.servers,
        image_pins=result.image_pins,
        attempt=1 + max(result.core_attempt, *(o.attempt for o in result.servers), 1),
        approved=approved,
        requested_by=requested_by,
    )


def by_reference(request: RollbackRequest) -> RollbackRequest:
    """The request as it is sent. Of many servers it names only the run folders, which have the facts and backups.

    The agent in Core's project keeps its own, because its folder is Core's.
    """
    if not is_large(request.servers):
        return request
    backups = request.backups_by_server()
    agent = request.plan.core.agent_name
    return replace(
        request,
        plan=replace(
            request.plan,
            servers=tuple(s for s in request.plan.servers if s.name == agent),
            commands=(),
            rollback_steps=(),
        ),
        backups=(backups[agent],) if agent in backups else (),
        outcomes=tuple(without_backup(outcome) for outcome in request.outcomes),
        by_reference=True,
    )


def with_folders(request: RollbackRequest, hosts: Iterable[HostFolders]) -> RollbackRequest:
    """The request with the facts and backups of the run folders. Servers that have none are not restored."""
    own = {s.name: s for s in request.plan.servers}
    backups = dict(zip(own, request.backups, strict=True))
    facts, not_restored = dict(own), list(request.not_restored)
    for host in hosts:
        change = request.change_of(host.name)
        saved = next((c for c in host.changes if c.change == change), None)
        problem = host.problem or (saved.problem if saved else f"its run folder {change} is gone")
        if saved is None or saved.backup is None or saved.server is None or problem:
            why = f"{problem or _NO_BACKUP}; when it can be, roll it back by its name"
            not_restored.append(NotRestored(name=host.name, why=why))
        else:
            facts[host.name], backups[host.name] = saved.server, saved.backup
    servers = tuple(name for name in request.servers if name in backups)
    return replace(
        request,
        plan=replace(request.plan, servers=tuple(facts[name] for name in servers)),
        servers=servers,
        backups=tuple(backups[name] for name in servers),
        changes=tuple(request.change_of(name) for name in servers) if request.changes else (),
        not_restored=tuple(not_restored),
        by_reference=False,
    )


def has_something_to_undo(request: RollbackRequest) -> bool:
    """False: nothing of this upgrade is in place."""
    return request.core or bool(request.servers)


def image_pins_kept(result: FleetResult) -> tuple[str, ...]:
    """Containers that stay on the Core host after this run: they hold the images for a possible rollback."""
    incomplete = result.state is FleetState.ROLLBACK_INCOMPLETE or result.core_state is ServerState.ROLLBACK_INCOMPLETE
    open_still = result.core_begun or incomplete
    return result.image_pins if open_still else ()


def _core_changed(result: FleetResult) -> bool:
    """Also true if an undo of Core's files failed: they are restored again."""
    return result.core_begun or result.core_state is ServerState.ROLLBACK_INCOMPLETE


# --- from the run folders on the hosts, without a history -------------------------------------------------------------


def request_from_folders(
    fleet: FleetSpec,
    seen: FleetFolders,
    *,
    only: tuple[str, ...] = (),
    change: str = "",
    database: str = "",
    requested_by: str = "",
) -> RollbackRequest:
    """Build a rollback from the run folders. `only`: roll back these servers without Core; `change`: this upgrade;
    `database`: restore | keep; empty: the fleet file's choice.

    Core returns to the state before the newest upgrade that is in place. Each server returns to the state before the
    oldest run since then, because an upgrade may have taken several runs. Servers without Core use their newest run.
    Raises NoSuchUpgrade if nothing is in place, HostError if a required host cannot be read.
    """
    core = None if only else _core_of(seen, change)
    picked: dict[str, SavedChange] = {}
    not_restored: list[NotRestored] = []
    for host in seen.servers:
        if only and host.name not in only:
            continue
        found = _pick(host, core, change)
        if found is not None and found.backup is not None and not found.problem and not host.problem:
            picked[host.name] = found
        elif only:
            raise _nothing_of(host, found, change)
        else:
            not_restored.append(_not_restored(host, found, core))
    if core is None and not picked:
        raise _nothing(fleet, seen, not_restored)
    request = _request(fleet, seen, core, picked, tuple(not_restored), requested_by)
    return replace(request, database=DatabaseRollback(database) if database else fleet.database.rollback)


def _core_of(seen: FleetFolders, change: str) -> SavedChange | None:
    if seen.core.problem:
        raise HostError(
            f"Core's host cannot be read: {seen.core.problem}",
            residue="nothing was changed",
            hint="servers can be restored without Core: name them",
        )
    found = seen.core.newest(change)
    if found is not None and found.problem:
        raise HostError(
            f"the upgrade {found.change} cannot be undone on Core's host: {found.problem}",
            residue="nothing was changed",
        )
    return found


def _pick(host: HostFolders, core: SavedChange | None, change: str) -> SavedChange | None:
    if change:
        return host.newest(change)
    there = [c for c in host.changes if c.in_place and (core is None or c.change >= core.change)]
    if core is not None:
        return there[0] if there else None
    # A folder that saved the target version itself holds no older version to return to.
    older = [c for c in there if c.problem or c.version != c.target]
    return (older or there)[-1] if there else None


def _not_restored(host: HostFolders, found: SavedChange | None, core: SavedChange | None) -> NotRestored:
    by_itself = "when it can be, roll it back by its name"
    if host.problem:
        why = f"it cannot be read, so its running version is unknown: {host.problem}; {by_itself}"
        return NotRestored(name=host.name, why=why)
    if found is not None:
        return NotRestored(name=host.name, why=f"{found.problem or _NO_BACKUP}; {by_itself}")
    old = core.version if core else ""
    if old and host.running and host.running.split(".")[0] != old.split(".")[0]:
        why = f"its agent runs {host.running}, and no folder of this upgrade is there: unreachable from Core {old}"
        return NotRestored(name=host.name, why=why)
    runs = f"its agent runs {host.running}" if host.running else "nothing of this upgrade is in place there"
    return NotRestored(name=host.name, why=f"{runs}: it is not changed", harmless=True)


def _nothing_of(host: HostFolders, found: SavedChange | None, change: str) -> NoSuchUpgrade | HostError:
    if host.problem:
        return HostError(f"{host.name} cannot be read: {host.problem}", residue="nothing was changed")
    if found is not None:
        why = found.problem or _NO_BACKUP
        return HostError(f"{host.name} cannot be restored: {why}", residue="nothing was changed")
    of = f"of the upgrade {change} " if change else ""
    there = "; ".join(f"{c.change}: {c.state}" for c in host.changes)
    return NoSuchUpgrade(
        f"nothing {of}is in place on {host.name}",
        residue="nothing was changed",
        hint=f"its run folders: {there or 'none'}",
    )


def _nothing(fleet: FleetSpec, seen: FleetFolders, not_restored: list[NotRestored]) -> NoSuchUpgrade:
    lines = [f"core: {c.change}: {c.state}" for c in seen.core.changes]
    lines += [f"{one.name}: {one.why}" for one in not_restored if not one.harmless]
    reported = "".join(f"\n    {line}" for line in lines)
    return NoSuchUpgrade(
        f"nothing to roll back: no upgrade of {fleet.name} is in place on Core's host or on a server{reported}",
        hint="every run folder contains README.txt and restore.sh for a rollback by hand",
    )


def _core_agent(fleet: FleetSpec, seen: FleetFolders, core: SavedChange | None) -> dict[str, SavedChange]:
    """The agent in Core's own project, which is restored from Core's folder; empty where it was not switched."""
    if core is None or core.core is None or core.backup is None:
        return {}
    # A later run of the same upgrade may have been the one that switched it.
    switched = any(c.agent_switched for c in seen.core.changes if c.change >= core.change)
    found = core_agent(replace(fleet, target=core.target), core.core)
    if found is None or not switched:
        return {}
    facts = found[1]
    backup = agent_backup(core.backup)
    return {facts.name: replace(core, name=facts.name, version=facts.version, backup=backup, server=facts)}


def _request(
    fleet: FleetSpec,
    seen: FleetFolders,
    core: SavedChange | None,
    picked: dict[str, SavedChange],
    not_restored: tuple[NotRestored, ...],
    requested_by: str,
) -> RollbackRequest:
    newest = core or max(picked.values(), key=lambda one: one.change)
    picked = picked | _core_agent(fleet, seen, core)
    # If Core is not rolled back, its saved facts are still needed to query it.
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
    return RollbackRequest(
        fleet=with_core_agent(replace(fleet, target=newest.target), facts),
        change=newest.change,
        plan=plan,
        servers=tuple(picked),
        core=core is not None,
        backups=tuple(one.backup for one in picked.values() if one.backup is not None),
        changes=tuple(one.change for one in picked.values()),
        not_restored=not_restored,
        core_is_back=core is None and known is not None and seen.core.newest() is None,
        core_backup=core.backup if core else None,
        dump=core.dump if core else None,
        outcomes=tuple(outcomes),
        image_pins=core.image_pins if core else (),
        attempt=1 + max([one.attempt for one in (*picked.values(), *((core,) if core else ()))]),
        requested_by=requested_by,
    )
