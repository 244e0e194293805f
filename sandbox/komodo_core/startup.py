"""What Core does to its database when it starts, and the log lines about it."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from sandbox.komodo_core.core import UNIT, Core
from sandbox.mongo.store import Store
from sandbox.periphery.log import panic

_ETAG = (
    "Failed to create ETag header for index.html, using 'Cache-Control: no-cache' | Failed to read static UI index.html"
    " for content hash: No such file or directory (os error 2)"
)
_FIRST_SERVER = (
    "Failed to initialize first Server. Failed to query db. Error { kind: BsonDeserialization(DeserializationError {"
    ' message: "invalid type: unit value, expected struct ServerInfo" }), labels: {},'
    " wire_version: None, source: None }"
)
V2_COLLECTIONS = ("OnboardingKey", "Swarm")


def run(core: Core) -> bool:
    """Before the port opens. Returns whether this Core will never reach an agent (its own host setting, or a fault)."""
    store = core.store
    _close_updates(core, store)
    if core.major == 1:
        core.log("INFO", "🔑 Local Login Enabled", target="core::api::auth")
        core.log("INFO", "🔓 Core SSL Disabled", target="core")
        if core.unreadable("Server"):
            text = f"Failed to load all resources by id cache | failed to pull Servers from mongo: {UNIT}"
            core.log("ERROR", text, target="core::resource::refresh")
        return False
    _touch(core, store)
    broken = core.world.faults.on("core-v2-broken", core.engine.host.name) is not None
    if not urlsplit(core.url).netloc:
        broken = True
        message = "called `Result::unwrap()` on an `Err` value: Failed to parse config field 'host' as URL"
        for text in panic("bin/core/src/config.rs:36:8", f"{message}\n\nCaused by:\n    relative URL without a base")[
            :-1
        ]:
            core.container.say(text, "stderr")
        core.log("WARN", "Invalid KOMODO_HOST: not URL. Passkeys won't work. | RelativeUrlWithoutBase")
    core.log("WARN", _ETAG)
    core.log("INFO", "CORS using no additional allowed origins.")
    core.log("INFO", "🔓 Server SSL Disabled")
    return broken


def _close_updates(core: Core, store: Store) -> None:
    """Updates in progress are closed as failed by every start, of v1 and v2."""
    log = {"stage": "Komodo shutdown", "command": "", "stdout": "", "stderr": "", "success": False}
    change = {
        "$set": {"status": "Complete", "success": False, "end_ts": int(time.time() * 1000)},
        "$push": {"logs": log},
    }
    store.update(core.database, "Update", {"status": "InProgress"}, change, many=True, upsert=False)


def _touch(core: Core, store: Store) -> None:
    """v2.3.2:bin/core/src/startup.rs: new collections, dangling Action keys removed, `info` given its new shape."""
    database = core.database
    untouched = any(d.get("info") is None for d in store.peek(database, "Server").documents)
    if untouched and core.env.get("KOMODO_FIRST_SERVER_NAME"):
        core.log("ERROR", _FIRST_SERVER, span="CoreStartup")
    for name in V2_COLLECTIONS:
        store.collection(database, name)
    if core.minor >= 3 and not store.peek(database, "DockerRegistryAccount").documents:
        store.collection(database, "ImageRegistryAccount")
    store.delete(database, "ApiKey", {"user_id": "000000000000000000000002"}, 0)
    for name, info in (
        ("Server", {"attempted_public_key": "", "public_key": ""}),
        ("Deployment", {"latest_image_digest": "", "deployed_name": ""}),
    ):
        for document in store.peek(database, name).documents:
            if document.get("info") is None:
                document["info"] = dict(info)
