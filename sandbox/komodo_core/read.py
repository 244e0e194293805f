"""`/read` of Core: lists and documents in the shapes of each version."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import bson

from sandbox.komodo_core import v1_schema
from sandbox.komodo_core.core import UNIT, Core, Status
from sandbox.komodo_core.errors import ApiError
from sandbox.mongo.store import Document
from sandbox.periphery.agent import Refusal

Params = dict[str, Any]
V2_ONLY = frozenset(
    {"UpdateServerKey", "RotateAllServerKeys", "RotateCoreKeys", "CheckStackForUpdate", "CheckDeploymentForUpdate",
     "CancelAction", "CancelProcedure"}
)  # fmt: skip
"""Operations that a v1 Core does not know: one such Update makes its ListUpdates fail."""
_ALERTS = ("send_unreachable_alerts", "send_cpu_alerts", "send_mem_alerts", "send_disk_alerts",
           "send_version_mismatch_alerts")  # fmt: skip
_THRESHOLDS = {"cpu_warning": 90.0, "cpu_critical": 99.0, "mem_warning": 75.0, "mem_critical": 95.0,
               "disk_warning": 75.0, "disk_critical": 95.0}  # fmt: skip


def gone(major: int) -> frozenset[str]:
    """Reads that this version does not have."""
    return frozenset({"GetPeripheryInformation"}) if major == 1 else frozenset({"GetPeripheryVersion"})


def _documents(core: Core, collection: str) -> list[Document]:
    if core.unreadable(collection) and collection in {"Server", "Deployment"}:
        raise ApiError(f"failed to pull {collection}s from mongo", UNIT)
    found = core.store.find(core.database, collection)
    problem = next(filter(None, (v1_schema.problem(collection, d) for d in found)), "") if core.major == 1 else ""
    if problem:
        raise ApiError(f"failed to pull {collection}s from mongo", f"Kind: {problem}, labels: {{}}, source: None")
    return sorted(found, key=lambda d: str(d.get("name", "")))


def find(core: Core, collection: str, reference: str) -> Document:
    """One resource by id or name, or Core's error."""
    for document in core.store.find(core.database, collection):
        if reference in (str(document["_id"]), document.get("name")):
            if core.major == 1 and isinstance(document.get("info"), dict) and collection in {"Server", "Deployment"}:
                raise ApiError("failed to query db for resource", UNIT)
            return document
    word = "did not" if core.major == 1 else "Did not"
    raise ApiError(f"{word} find any {collection} matching {reference}")


def _page(core: Core, params: Params, items: list[Any]) -> list[Any]:
    """From v2.3.0 lists hold 50 items by default; limit 0 means all."""
    if core.major == 1 or core.minor < 3:
        return items
    limit = params.get("limit")
    limit = 50 if limit is None else int(limit)
    start = int(params.get("page") or 0) * limit
    return items[start : start + limit] if limit else items


def _status(core: Core, server: Document) -> Status:
    return core.status.get(str(server["_id"])) or Status(version="Unknown" if core.major == 1 else "")


def _item(kind: str, document: Document, info: Params) -> Params:
    return {
        "id": str(document["_id"]),
        "type": kind,
        "name": document["name"],
        "template": document.get("template", False),
        "tags": document.get("tags", []),
        "info": info,
    }


def _refusal(refusal: Refusal | None) -> Params | None:
    return {"error": refusal.error, "trace": list(refusal.trace)} if refusal else None


def _server_info(core: Core, server: Document) -> Params:
    config, status = server["config"], _status(core, server)
    up = status.state == "Ok"
    agent = status.agent.config if up and status.agent else None
    terminals = bool(agent.get("disable_terminals", False)) if agent else True
    containers = bool(agent.get("disable_container_terminals", False)) if agent else True
    alerts = {key: config.get(key, True) for key in _ALERTS}
    if core.major == 1:
        return {
            "state": status.state, "region": config.get("region", ""), "address": config.get("address", ""),
            "external_address": config.get("external_address", ""),
            "version": status.version or "Unknown", **alerts, "terminals_disabled": terminals,
            "container_exec_disabled": containers,
        }  # fmt: skip
    info: Params = {"state": status.state}
    if core.minor >= 1:
        info["err"] = _refusal(status.err)
    if core.minor >= 3:
        info["stats"] = _stats(core, status) if up else None
        if core.patch >= 2 or core.minor > 3:
            info["alerting_thresholds"] = dict(_THRESHOLDS)
        info["core_count"] = info["logical_core_count"] = 2 if up else None
    return {
        **info, "region": config.get("region", ""), "address": config.get("address") or None,
        "external_address": config.get("external_address") or None, "public_ip": None, **alerts,
        "version": status.version if up else None, "public_key": (status.public_key or None) if up else None,
        "attempted_public_key": None, "terminals_disabled": terminals, "container_terminals_disabled": containers,
    }  # fmt: skip


def _stats(core: Core, status: Status) -> Params:
    base: Params = {
        "cpu_perc": 3.517588,
        "load_average": {"one": 0.8, "five": 1.35, "fifteen": 1.88},
        "mem_free_gb": 21.025554656982425,
        "mem_used_gb": 0.7105979919433594,
        "mem_total_gb": 23.540576934814453,
    }
    disks = [{"mount": "/", "file_system": "ext4", "used_gb": 186.6077461242676, "total_gb": 251.9722785949707}]
    if core.major >= 2 and core.minor >= 3:
        base |= {"mem_buff_cache_gb": 2.144977569580078, "mem_zfs_arc_gb": 0.0, "swap_total_gb": 0.0,
                 "swap_used_gb": 0.0}  # fmt: skip
    return {
        **base,
        "disks": disks,
        "network_ingress_bytes": 7366.0,
        "network_egress_bytes": 7366.0,
        "polling_rate": "5-sec",
        "refresh_ts": int(status.refreshed) * 1000,
        "refresh_list_ts": 0,
    }


def _list_servers(core: Core, params: Params) -> Any:
    items = []
    for server in _documents(core, "Server"):
        info = _server_info(core, server)
        if info.get("stats"):  # the list has sums instead of the disks
            disks = info["stats"].pop("disks")
            info["stats"] |= {"disk_total_gb": sum(d["total_gb"] for d in disks),
                              "disk_used_gb": sum(d["used_gb"] for d in disks)}  # fmt: skip
        items.append(_item("Server", server, info))
    return _page(core, params, items)


def _get_server(core: Core, params: Params) -> Any:
    server = find(core, "Server", str(params.get("server", "")))
    config = dict(server["config"])
    if core.major >= 2:
        config.pop("timeout_seconds", None)
        config = {"insecure_tls": True, "auto_rotate_keys": True, **config}
    return {**server, "config": config}


def _get_server_state(core: Core, params: Params) -> Any:
    server = find(core, "Server", str(params.get("server", "")))
    if str(server["_id"]) not in core.status:
        raise ApiError("did not find cached status for server")
    return {"status": _status(core, server).state}


def _periphery_version(core: Core, params: Params) -> Any:
    status = _status(core, find(core, "Server", str(params.get("server", ""))))
    return {"version": status.version if status.state == "Ok" else "unknown"}


def _periphery_information(core: Core, params: Params) -> Any:
    status = _status(core, find(core, "Server", str(params.get("server", ""))))
    if status.state != "Ok" or status.agent is None:
        raise ApiError("Server status missing Periphery Info. The Server may be disconnected.")
    return {
        "version": status.version,
        "public_key": status.public_key,
        "terminals_disabled": bool(status.agent.config.get("disable_terminals", False)),
        "container_terminals_disabled": bool(status.agent.config.get("disable_container_terminals", False)),
        "stats_polling_rate": status.agent.config.get("stats_polling_rate", "5-sec"),
        "docker_connected": True,
        "public_ip": None,
    }


def _system_stats(core: Core, params: Params) -> Any:
    status = _status(core, find(core, "Server", str(params.get("server", ""))))
    if status.state != "Ok":
        raise ApiError("Server status missing system stats. The Server may be disconnected.")
    return _stats(core, status)


def _secrets(core: Core, params: Params) -> Any:
    """Core's own secrets and those of the server's agent, which is asked each time: their names."""
    target = params.get("target") or {}
    if target.get("type") == "Server":
        server = find(core, "Server", str(target.get("id", "")))
        status = _status(core, server)
        silent = status.agent is not None and core.world.faults.on("agent-silent", status.agent.host)
        if status.state != "Ok" or silent:
            raise ApiError(f"failed to get secrets from server {server['name']}")
    return []


def _containers(core: Core, params: Params) -> Any:
    server = find(core, "Server", str(params.get("server", "")))
    if _status(core, server).state != "Ok":
        return []
    name = "web-nginx-1"
    used = {"name": name, "cpu_perc": "0.67%", "mem_perc": "0.68%", "mem_usage": "164.1MiB / 23.54GiB",
            "net_io": "0B / 0B", "block_io": "0B / 0B", "pids": "31"}  # fmt: skip
    shown = {
        "server_id": str(server["_id"]), "name": name, "id": "00d504da2f65" + "0" * 52, "image": "nginx:1.29",
        "image_id": "sha256:" + "f" * 64, "created": 1795457125, "state": "running", "status": "Up 23 minutes",
        "network_mode": "web_default", "networks": ["web_default"], "volumes": ["web_data"], "stats": used,
    }  # fmt: skip
    if core.major >= 2 and core.minor >= 3:
        shown["server_name"] = server["name"]
    return [shown]


def _stack_info(core: Core, stack: Document) -> Params:
    config = stack["config"]
    servers = {str(s["_id"]): s for s in core.store.find(core.database, "Server")}
    server = servers.get(str(config.get("server_id", "")))
    up = server is not None and not core.unreadable("Server") and _status(core, server).state == "Ok"
    deployed = bool((stack.get("info") or {}).get("deployed_services"))
    service: Params = {"service": "nginx", "image": "nginx:1.29", "update_available": False}
    info: Params = {
        "server_id": config.get("server_id", ""), "files_on_host": bool(config.get("files_on_host", False)),
        "file_contents": bool(config.get("file_contents")), "linked_repo": "", "git_provider": "github.com",
        "repo": "", "branch": "main", "repo_link": "https://github.com//tree/main",
        "state": ("running" if deployed else "down") if up else "unknown",
        "status": "running(1)" if up and deployed else None,
        "services": [service] if up else [], "project_missing": False, "missing_files": [], "deployed_hash": None,
        "latest_hash": None,
    }  # fmt: skip
    if core.major >= 2:
        info["swarm_id"] = ""
    if core.major >= 2 and core.minor >= 3:
        service["latest_image"] = "nginx"
        info |= {"swarm_name": "", "server_name": server["name"] if server else "", "linked_repo_name": "",
                 "auto_update_all_services": False}  # fmt: skip
    return info


def _list_stacks(core: Core, params: Params) -> Any:
    return _page(core, params, [_item("Stack", s, _stack_info(core, s)) for s in _documents(core, "Stack")])


def _run_info(document: Document, **more: Any) -> Params:
    enabled = document["config"].get("schedule") and document["config"].get("schedule_enabled")
    upcoming = (int(time.time()) // 86400 + 1) * 86_400_000 + 3_600_000 if enabled else None
    return {**more, "state": "Ok", "last_run_at": None, "next_scheduled_run": upcoming, "schedule_error": None}


def _list_procedures(core: Core, params: Params) -> Any:
    items = [
        _item("Procedure", p, _run_info(p, stages=len(p["config"].get("stages", []))))
        for p in _documents(core, "Procedure")
    ]
    return _page(core, params, items)


def _list_actions(core: Core, params: Params) -> Any:
    return _page(core, params, [_item("Action", a, _run_info(a)) for a in _documents(core, "Action")])


def _full(collection: str) -> Callable[[Core, Params], Any]:
    return lambda core, params: _page(core, params, _documents(core, collection))


def _plain(collection: str) -> Callable[[Core, Params], Any]:
    return lambda core, params: _page(core, params, [_item(collection, d, {}) for d in _documents(core, collection)])


def _one(collection: str, name: str) -> Callable[[Core, Params], Any]:
    return lambda core, params: find(core, collection, str(params.get(name, "")))


def _list_schedules(core: Core, params: Params) -> Any:
    found = []
    for kind in ("Procedure", "Action"):
        for document in _documents(core, kind):
            config = document["config"]
            if config.get("schedule"):
                info = _run_info(document)
                found.append(
                    {
                        "target": {"type": kind, "id": str(document["_id"])},
                        "name": document["name"],
                        "schedule_format": config.get("schedule_format", "English"),
                        "schedule": config["schedule"],
                        "enabled": bool(config.get("schedule_enabled", True)),
                        "schedule_timezone": config.get("schedule_timezone", ""),
                        "last_run_at": None,
                        "next_scheduled_run": info["next_scheduled_run"],
                        "schedule_error": None,
                        "tags": document.get("tags", []),
                    }
                )
    return _page(core, params, found)


def _list_updates(core: Core, params: Params) -> Any:
    found = core.store.find(core.database, "Update", params.get("query") or {})
    found.sort(key=lambda u: -int(u["start_ts"]))
    page = int(params.get("page") or 0)
    listed, rest = found[page * 100 : page * 100 + 100], found[page * 100 + 100 :]
    unknown = next((u["operation"] for u in listed if u["operation"] in V2_ONLY), "")
    if core.major == 1 and unknown:
        trace = (
            f"Kind: unknown variant `{unknown}`, expected one of `None`, `CreateServer`, …, labels: {{}}, source: None"
        )
        raise ApiError("failed to query db for updates", trace)
    names = {str(u["_id"]): u["username"] for u in core.store.find(core.database, "User")}
    updates = [
        {
            "id": str(u["_id"]), "operation": u["operation"], "start_ts": u["start_ts"], "success": u["success"],
            "username": names.get(u["operator"], u["operator"]), "operator": u["operator"], "target": u["target"],
            "status": u["status"],
        }
        for u in listed
    ]  # fmt: skip
    return {"updates": updates, "next_page": page + 1 if rest else None}


def _get_update(core: Core, params: Params) -> Any:
    identity = str(params.get("id", ""))
    known = bson.ObjectId(identity) if bson.ObjectId.is_valid(identity) else None
    found = core.store.find(core.database, "Update", {"_id": known})
    if not found:
        raise ApiError("no update exists with given id")
    return found[0]


def _core_info(core: Core, _params: Params) -> Any:
    info: Params = {
        "title": core.env.get("KOMODO_TITLE", "Komodo"),
        "monitoring_interval": core.interval,
        "webhook_base_url": core.env.get("KOMODO_WEBHOOK_BASE_URL") or core.url,
        "transparent_mode": False,
        "ui_write_disabled": False,
        "disable_non_admin_create": False,
        "disable_confirm_dialog": False,
        "disable_websocket_reconnect": False,
        "enable_fancy_toml": False,
        "timezone": core.env.get("KOMODO_TIMEZONE", core.env.get("TZ", "")),
    }
    if core.major == 1:
        info["github_webhook_owners"] = []
    else:
        info["public_key"] = core.public_key
        if core.minor >= 3:
            info["default_pagination_limit"] = 50
    return info


def user(core: Core, identity: str) -> Any:
    """The calling user."""
    known = bson.ObjectId(identity) if bson.ObjectId.is_valid(identity) else None
    found = core.store.find(core.database, "User", {"_id": known})
    if not found:
        raise ApiError("Failed to find user")
    document = {**found[0], "config": {"type": "Local", "data": {"password": "########"}}}
    if core.major >= 2:
        document = {
            **document, "linked_logins": {}, "totp": {"secret": "", "confirmed_at": 0, "recovery_codes": []},
            "passkey": {"passkey": None, "created_at": 0}, "external_skip_2fa": True,
        }  # fmt: skip
    return document


HANDLERS: dict[str, Callable[[Core, Params], Any]] = {
    "GetVersion": lambda core, _params: {"version": core.version},
    "GetCoreInfo": _core_info,
    "ListServers": _list_servers,
    "ListFullServers": _full("Server"),
    "GetServer": _get_server,
    "GetServerState": _get_server_state,
    "GetPeripheryVersion": _periphery_version,
    "GetPeripheryInformation": _periphery_information,
    "GetSystemStats": _system_stats,
    "ListDockerContainers": _containers,
    "ListSecrets": _secrets,
    "ListStacks": _list_stacks,
    "GetStack": _one("Stack", "stack"),
    "ListActions": _list_actions,
    "ListFullActions": _full("Action"),
    "GetAction": _one("Action", "action"),
    "ListProcedures": _list_procedures,
    "ListFullProcedures": _full("Procedure"),
    "GetProcedure": _one("Procedure", "procedure"),
    **{f"List{kind}s": _plain(kind) for kind in ("Deployment", "Build", "Repo", "Builder", "Alerter", "ResourceSync")},
    "ListSchedules": _list_schedules,
    "ListUpdates": _list_updates,
    "GetUpdate": _get_update,
}
