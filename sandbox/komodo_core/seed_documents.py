"""The initial documents of a fleet's database: those of a v1.19.5 Core after some use."""

from __future__ import annotations

import random
import time
from typing import Any

import bson

from sandbox.mongo.store import Document, Store

_SERVER_CONFIG: Document = {
    "address": "", "external_address": "", "region": "", "enabled": True, "timeout_seconds": 3, "passkey": "",
    "ignore_mounts": [], "stats_monitoring": True, "auto_prune": True, "links": [], "send_unreachable_alerts": True,
    "send_cpu_alerts": True, "send_mem_alerts": True, "send_disk_alerts": True, "send_version_mismatch_alerts": True,
    "cpu_warning": 90.0, "cpu_critical": 99.0, "mem_warning": 75.0, "mem_critical": 95.0, "disk_warning": 75.0,
    "disk_critical": 95.0, "maintenance_windows": [],
}  # fmt: skip
_ACTION_CONFIG: Document = {
    "run_at_startup": False, "schedule_format": "English", "schedule": "", "schedule_enabled": True,
    "schedule_timezone": "", "schedule_alert": True, "failure_alert": True, "webhook_enabled": True,
    "webhook_secret": "", "reload_deno_deps": False, "file_contents": "", "arguments_format": "key_value",
    "arguments": "",
}  # fmt: skip
_DEFAULTS: dict[str, tuple[Any, Document]] = {
    "Server": (None, _SERVER_CONFIG),
    "Deployment": (None, {"server_id": "", "image": {"type": "Image", "params": {"image": ""}}, "network": "bridge"}),
    "Action": ({}, _ACTION_CONFIG),
    "Procedure": ({}, {"stages": [], "schedule_format": "English", "schedule": "", "schedule_enabled": True,
                       "schedule_timezone": "", "schedule_alert": True, "failure_alert": True}),
    "Stack": ({"missing_files": [], "deployed_services": None, "latest_services": []},
              {"server_id": "", "file_contents": "", "environment": "", "files_on_host": False}),
}  # fmt: skip

V1_ACTION = """// reports the free disk space of a server (v1 call shape)
await komodo.write("CreateTerminal", {
  server: "%s",
  name: "disk-report",
  command: "bash",
  recreate: "Always",
});
await komodo.execute_terminal(
  { server: "%s", terminal: "disk-report", command: "df -h / && echo disk-report done" },
  { onLine: (line) => console.log(line) },
);
"""
_STACK = """services:
  nginx:
    image: nginx:1.29
    restart: unless-stopped
"""


def resource(collection: str, name: str, config: Document) -> Document:
    """One resource document as v1.19.5 writes it."""
    info, defaults = _DEFAULTS.get(collection, ({}, {}))
    return {
        "_id": bson.ObjectId(),
        "name": name,
        "description": "",
        "template": False,
        "tags": [],
        "info": info,
        "config": {**defaults, **config},
        "base_permission": "None",
        "updated_at": int(time.time() * 1000),
    }


def fill(store: Store, database: str, servers: list[tuple[str, str]], api_key: str) -> None:
    """A database with `servers` (name, address), an admin, an API key, and some history."""
    admin = bson.ObjectId()
    at = int(time.time() * 1000)
    store.insert(database, "User", [_user(admin, at)])
    store.insert(
        database,
        "ApiKey",
        [{"_id": bson.ObjectId(), "name": "komodo-upgrade", "key": api_key, "user_id": str(admin), "created_at": at,
          "secret": "$2b$10$abcdefghijklmnopqrstuuJ3uWJ8Vn0nXcGxM5uO8mYj6cC2b9Q2S", "expires": bson.Int64(0)}],
    )  # fmt: skip
    documents = [resource("Server", name, {"address": address}) for name, address in servers]
    store.insert(database, "Server", documents)
    first, second = documents[0], documents[min(1, len(documents) - 1)]
    actions = [
        resource("Action", "disk-report", {"file_contents": V1_ACTION % (first["name"], first["name"])}),
        resource("Action", "list-servers", {"file_contents": 'console.log(await komodo.read("ListServers", {}));\n'}),
    ]
    store.insert(database, "Action", actions)
    stack = resource("Stack", "web", {"server_id": str(first["_id"]), "file_contents": _STACK})
    stack["info"] = {**stack["info"], "deployed_services": [{"service_name": "nginx", "image": "nginx:1.29"}]}
    store.insert(database, "Stack", [stack])
    image = {"type": "Image", "params": {"image": "busybox"}}
    store.insert(database, "Deployment", [resource("Deployment", "pinger", {"server_id": str(second["_id"]),
                                                                            "image": image})])  # fmt: skip
    tag = bson.ObjectId()
    store.insert(database, "Procedure", _procedures(str(tag)))
    store.insert(database, "Tag", [{"_id": tag, "name": "system", "owner": "System", "color": "Red"}])
    variable = {"name": "GREETING", "value": "hello from v1", "description": "", "is_secret": False}
    store.insert(database, "Variable", [{"_id": bson.ObjectId(), **variable}])
    store.insert(database, "Update", _updates(str(admin), documents, stack, at))
    store.insert(database, "Alert", _alerts(documents, at))
    store.insert(database, "Stats", _stats(documents, at))
    for name in ("UserGroup", "Permission", "GitProviderAccount", "DockerRegistryAccount", "Build", "Builder", "Repo",
                 "Alerter", "ResourceSync"):  # fmt: skip
        store.collection(database, name)
    for name in ("Server", "Action", "Procedure", "Stack", "Deployment"):
        index = {"v": 2, "key": {"name": 1}, "name": "name_1", "unique": True}
        store.collection(database, name).indexes.append(index)


def _user(identity: bson.ObjectId, at: int) -> Document:
    return {
        "_id": identity, "username": "admin", "enabled": True, "super_admin": True, "admin": True,
        "create_server_permissions": True, "create_build_permissions": True,
        "config": {"type": "Local", "data": {"password": "$2b$10$0123456789abcdefghijkuQf8y0m6Yb1q9"}},
        "last_update_view": 0, "recents": {}, "all": {}, "updated_at": at,
    }  # fmt: skip


def _procedures(tag: str) -> list[Document]:
    def stage(name: str, kind: str, params: Document) -> Document:
        return {"name": name, "enabled": True, "executions": [{"execution": {"type": kind, "params": params},
                                                               "enabled": True}]}  # fmt: skip

    backup = {"stages": [stage("Stage 1", "BackupCoreDatabase", {})], "schedule": "Every day at 01:00"}
    update = {"stages": [stage("Stage 1", "GlobalAutoUpdate", {})], "schedule": "Every day at 03:00"}
    weekly = {"stages": [stage("restart", "RestartStack", {"stack": "web", "services": []}),
                          stage("report", "RunAction", {"action": "disk-report"})]}  # fmt: skip
    made = [resource("Procedure", "Backup Core Database", backup), resource("Procedure", "Global Auto Update", update)]
    for procedure in made:  # those that Komodo creates at its first start
        procedure["tags"] = [tag]
    return [*made, resource("Procedure", "weekly-restart", weekly)]


def _updates(user: str, servers: list[Document], stack: Document, at: int) -> list[Document]:
    found = []
    for position in range(40):
        server = servers[position % len(servers)]
        operation, kind, identity = (
            ("DeployStack", "Stack", stack["_id"]) if position % 4 == 0 else ("PruneImages", "Server", server["_id"])
        )
        began = at - (40 - position) * 3_600_000
        log = {"stage": operation, "command": "docker …", "stdout": "done", "stderr": "", "success": True,
               "start_ts": began, "end_ts": began + 1500}  # fmt: skip
        found.append(
            {"_id": bson.ObjectId(), "operation": operation, "start_ts": began, "end_ts": began + 1500,
             "success": True, "operator": user, "target": {"type": kind, "id": str(identity)}, "logs": [log],
             "status": "Complete", "version": {"major": 0, "minor": 0, "patch": 0}, "commit_hash": "",
             "other_data": "", "prev_toml": "", "current_toml": ""}
        )  # fmt: skip
    return found


def _alerts(servers: list[Document], at: int) -> list[Document]:
    return [
        {"_id": bson.ObjectId(), "ts": at - n * 86_400_000, "resolved": True, "level": "WARNING",
         "target": {"type": "Server", "id": str(servers[n % len(servers)]["_id"])},
         "data": {"type": "ServerMem", "data": {"id": str(servers[n % len(servers)]["_id"]), "used_gb": 19.5}},
         "resolved_ts": at - n * 86_400_000 + 60_000}
        for n in range(6)
    ]  # fmt: skip


def _stats(servers: list[Document], at: int) -> list[Document]:
    dice = random.Random(7)
    return [
        {"_id": bson.ObjectId(), "ts": at - n * 60_000, "sid": str(s["_id"]), "cpu_perc": dice.uniform(1, 60),
         "mem_used_gb": dice.uniform(1, 20), "mem_total_gb": 23.5, "disk_used_gb": 186.6, "disk_total_gb": 251.9,
         "disks": [], "network_ingress_bytes": 0.0, "network_egress_bytes": 0.0}
        for s in servers
        for n in range(30)
    ]  # fmt: skip
