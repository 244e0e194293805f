"""A fleet installed as v2: the agent in Core's project connects by itself, as the real ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.fleet import Sandbox
from sandbox.komodo_core.core import Status
from tests.fleet.conftest import until


def local(sandbox: Sandbox) -> Status:
    core = sandbox.core
    server = next((s for s in core.servers() if s["name"] == "Local"), None) if core else None
    return (core.status.get(str(server["_id"])) if core and server else None) or Status()


@pytest.mark.parametrize("files", ["v2", "v2-keys-inside"])
async def test_who_may_connect(tmp_path: Path, files: str) -> None:
    """With the shared keys Core knows the agent's key by its file; without them it has to be the Server's."""
    async with await Sandbox.start(
        tmp_path, servers=1, files=files, core_version="2.0.0", agent_version="2.0.0", speed=20
    ) as sandbox:
        core, engine = sandbox.core, sandbox.engine
        assert core is not None
        agent = engine.find("komodo-periphery-1")
        assert agent is not None

        async def every() -> bool:
            return all(s.state == "Ok" for s in core.status.values())

        async def seen() -> bool:
            return local(sandbox).state == "Ok"

        if files == "v2":
            await until(every, "Core sees every agent")
            log = "\n".join(text for _, _, text in agent.logs)
            assert "Initiating outbound connection to ws://core:9120/ws/periphery?server=Local" in log
            assert "Logged in to Komodo Core core:9120 websocket as Server Local" in log
            container = engine.find("komodo-core-1")
            assert container is not None
            await engine.stop(container)
            await engine.start(container)
            await until(seen, "the agent connects to the restarted Core")
            await engine.stop(agent)

            async def gone() -> bool:
                return local(sandbox).state == "NotOk"

            await until(gone, "Core misses it")
            return
        assert local(sandbox).state != "Ok"
        key = next(t for _, _, t in agent.logs if "Public Key: " in t).rpartition("Public Key: ")[2]
        change = {"$set": {"info.public_key": key.strip()}}
        core.store.update("komodo", "Server", {"name": "Local"}, change, many=False, upsert=False)
        await until(seen, "Core accepts the agent's key")
