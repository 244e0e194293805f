"""What a rollback would do, for people and for scripts. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cli.output import bad, data, faint, strong
from model.plain import moment, span
from model.progress import RollbackRequest
from workflows.texts import rollback_facts, rollback_time, size


def show(request: RollbackRequest) -> None:
    """On standard output."""
    data(values(request), "\n".join(lines(request)))


def values(request: RollbackRequest) -> dict[str, Any]:
    """For `-o json`. Names stay as they are once they were here."""
    versions = {facts.name: facts.version for facts in request.plan.servers}
    dump = request.dump
    return {
        "change": request.change,
        "core": request.core,
        "core_version": {"now": request.fleet.target, "back": request.plan.core.version} if request.core else None,
        "servers": [
            {
                "name": name,
                "now": request.fleet.target,
                "back": versions.get(name, ""),
                "change": request.change_of(name),
                "folder": backup.folder,
            }
            for name, backup in zip(request.servers, request.backups, strict=False)
        ],
        "core_agent": request.core_agent,
        "database": {
            "way": {"keep": "downgrade"}.get(request.database, "final dump") if dump else "not touched",
            "path": dump.path if dump else "",
            "taken_at": dump.taken_at if dump else None,
            "documents": dump.documents if dump else 0,
        },
        "lost_since": dump.taken_at if dump and request.database != "keep" else None,
        "minutes": max(1, round(rollback_time(request).total_seconds() / 60)),
        "not_put_back": [{"name": one.name, "why": one.why} for one in request.left if not one.harmless],
        "stays": [{"name": one.name, "why": one.why} for one in request.left if one.harmless],
        "digest": request.plan.digest,
        "facts": rollback_facts(request, now=datetime.now(UTC)),
    }


def lines(request: RollbackRequest) -> list[str]:
    """A screen: who goes back to what, the database, what is lost, how long, what cannot be put back."""
    versions = {facts.name: facts.version for facts in request.plan.servers}
    runs = tuple(dict.fromkeys((request.change, *request.changes)))
    found = [strong(f"rollback of {request.fleet.name}: undo the upgrade {', '.join(runs)}"), ""]
    rows = []
    if request.core:
        folder = request.core_backup.folder if request.core_backup else ""
        rows.append(("core", f"{request.fleet.target} → {request.plan.core.version}", folder))
        if request.core_agent and request.plan.core.agent:
            name = request.plan.core.agent_server or request.plan.core.agent.service
            rows.append((name, f"{request.fleet.target} → {request.plan.core.agent.version}", "with Core"))
    rows += [
        (name, f"{request.fleet.target} → {versions.get(name) or '?'}", backup.folder)
        for name, backup in zip(request.servers, request.backups, strict=False)
    ]
    wide = max((len(name) for name, *_ in rows), default=0)
    found += [f"  {name:<{wide}}  {way:<16}  {faint(folder)}".rstrip() for name, way, folder in rows]
    found += [f"  {bad('✗')} {one.name}: {one.why}" for one in request.left if not one.harmless]
    found += [faint(f"  · {one.name}: {one.why}") for one in request.left if one.harmless]
    found += ["", *_database(request)]
    if not request.core and not request.core_is_back:
        found.append(f"Core stays on {request.fleet.target}: these servers are then unreachable from it")
    found.append(f"about {span(rollback_time(request))}; nothing is touched before gate rollback is approved")
    return found


def _database(request: RollbackRequest) -> list[str]:
    dump = request.dump
    if dump is None:
        return ["database: not touched, nothing is lost"]
    if request.database == "keep":
        return [
            "database: dumped as `pre_rollback`, then taken to v1's form: what was written since is kept",
            "LOST: Updates and alerts that v1 cannot read, and what v2 keeps of servers (their keys)",
        ]
    holds = f"{dump.documents} documents in {len(dump.collections)} collections, {size(dump.bytes)}"
    return [
        f"database: dropped and restored from the final dump of {moment(dump.taken_at)}: {holds}",
        f"          {dump.path}",
        f"LOST: everything written to Komodo since {moment(dump.taken_at)}; it is dumped first, as `pre_rollback`",
    ]
