"""`/execute` and `/write` of Core: what leaves Updates behind, and the few writes that tests use."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import bson

from sandbox.komodo_core import read
from sandbox.komodo_core.core import Core
from sandbox.komodo_core.errors import ApiError
from sandbox.komodo_core.seed_documents import resource

Params = dict[str, Any]
_EXECUTIONS = {
    "RestartStack": ("Stack", "stack"),
    "DeployStack": ("Stack", "stack"),
    "RunProcedure": ("Procedure", "procedure"),
    "RunAction": ("Action", "action"),
    "BackupCoreDatabase": ("System", ""),
}
_WRITABLE = {"Server": "server", "Action": "action", "Procedure": "procedure", "Stack": "stack"}
RUNNING = 1.0
"""Seconds an execution takes."""


def run(core: Core, group: str, kind: str, params: Params, user: str) -> Any:
    """One execution or write."""
    if group == "execute" and kind == "RotateCoreKeys" and core.major >= 2:
        return _rotate(core, params, user)
    if group == "execute" and kind in _EXECUTIONS:
        return _execute(core, kind, params, user)
    if group == "write":
        if kind == "UpdateServerPublicKey" and core.major >= 2:
            return _pin(core, params, user)
        for collection in _WRITABLE:
            if kind == f"Create{collection}":
                return _create(core, collection, params, user)
            if kind == f"Update{collection}":
                return _change(core, collection, params)
            if kind == f"Delete{collection}":
                return _delete(core, collection, params, user)
    raise ApiError(f"unknown variant `{kind}`, expected one of …")


def note(core: Core, operation: str, target: Params, user: str, *, status: str = "Complete") -> Params:
    """Write an Update. While it is in progress it says `success: true`, as Komodo does."""
    at = int(time.time() * 1000)
    update: Params = {
        "_id": bson.ObjectId(), "operation": operation, "start_ts": at, "success": True, "operator": user,
        "target": target, "logs": [], "end_ts": at if status == "Complete" else None, "status": status,
        "version": {"major": 0, "minor": 0, "patch": 0}, "commit_hash": "", "other_data": "", "prev_toml": "",
        "current_toml": "",
    }  # fmt: skip
    core.store.insert(core.database, "Update", [dict(update)])
    return update


def _execute(core: Core, kind: str, params: Params, user: str) -> Any:
    collection, name = _EXECUTIONS[kind]
    target = {"type": "System", "id": "system"}
    if name:
        document = read.find(core, collection, str(params.get(name, "")))
        target = {"type": collection, "id": str(document["_id"])}
    update = note(core, kind, target, user, status="InProgress")
    core.world.spawn(_finish(core, update))
    return update


def _rotate(core: Core, params: Params, user: str) -> Any:
    """A new key pair. Agents replace the files that they pin; a key in a config stays, and is reported as rotated, too.

    As seen on v2.3.2. What the agents pin is read when Core logs in, which is after their next start.
    """
    for server in core.servers():
        status = core.status.get(str(server["_id"]))
        if not params.get("force") and (status is None or status.state == "NotOk"):
            refusal = "stopping key rotation. Pass `force: true` to continue anyways."
            raise ApiError(f"Server {server['name']} is NotOk, {refusal}")
    core.rotate_keys()
    return note(core, "RotateCoreKeys", {"type": "System", "id": "system"}, user)


async def _finish(core: Core, update: Params) -> None:
    await asyncio.sleep(core.world.scaled(RUNNING))
    if core.listening:
        at = int(time.time() * 1000)
        change = {"$set": {"status": "Complete", "end_ts": at}}
        running = {"_id": update["_id"], "status": "InProgress"}
        core.store.update(core.database, "Update", running, change, many=False, upsert=False)


def _pin(core: Core, params: Params, user: str) -> Any:
    """Writes an Update that a v1 Core cannot read."""
    server = read.find(core, "Server", str(params.get("server", "")))
    change = {"$set": {"info.public_key": str(params.get("public_key", ""))}}
    core.store.update(core.database, "Server", {"_id": server["_id"]}, change, many=False, upsert=False)
    return note(core, "UpdateServerKey", {"type": "Server", "id": str(server["_id"])}, user)


def _create(core: Core, collection: str, params: Params, user: str) -> Any:
    if core.store.find(core.database, collection, {"name": params.get("name")}):
        raise ApiError(f"Resource with name '{params.get('name')}' already exists")
    document = resource(collection, str(params["name"]), params.get("config") or {})
    if core.major >= 2 and collection == "Server":
        document["info"] = {"attempted_public_key": "", "public_key": str(params.get("public_key") or "")}
    core.store.insert(core.database, collection, [document])
    note(core, f"Create{collection}", {"type": collection, "id": str(document["_id"])}, user)
    return document


def _change(core: Core, collection: str, params: Params) -> Any:
    document = read.find(core, collection, str(params.get("id", "")))
    fields = {f"config.{key}": value for key, value in (params.get("config") or {}).items()}
    if fields:
        query = {"_id": document["_id"]}
        core.store.update(core.database, collection, query, {"$set": fields}, many=False, upsert=False)
    return read.find(core, collection, str(document["_id"]))


def _delete(core: Core, collection: str, params: Params, user: str) -> Any:
    document = read.find(core, collection, str(params.get("id", "")))
    core.store.delete(core.database, collection, {"_id": document["_id"]}, 1)
    note(core, f"Delete{collection}", {"type": collection, "id": str(document["_id"])}, user)
    return document
