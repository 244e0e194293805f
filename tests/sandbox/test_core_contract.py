"""The sandbox's Core answers every captured request as real Core did: status, content type, keys and types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.fleet import Sandbox
from sandbox.komodo_core.seed_documents import resource
from tests.sandbox.conftest import until
from tests.sandbox.shapes import shape


async def _prepare(sandbox: Sandbox) -> None:
    """The captures' situation: web-1 with an agent, `dead` with nobody, a stack that is down."""
    store = sandbox.store
    store.delete("komodo", "Server", {"name": "Local"}, 0)
    dead = resource("Server", "dead", {"address": f"https://{sandbox.world.net}.250:8199"})
    if sandbox.core and sandbox.core.major >= 2:
        dead["info"] = {"attempted_public_key": "", "public_key": ""}
    store.insert("komodo", "Server", [dead])
    web = store.find("komodo", "Server", {"name": "web-1"})[0]
    store.delete("komodo", "Stack", {}, 0)
    store.insert("komodo", "Stack", [resource("Stack", "st", {"server_id": str(web["_id"]), "file_contents": "x"})])


async def _pin(sandbox: Sandbox) -> None:
    """web-1's agent gets Core's key, as after an upgrade."""
    core = sandbox.core
    assert core is not None
    host = sandbox.hosts["web-1"]
    config = host.root / "etc/komodo/periphery.config.toml"
    config.write_text(f'core_public_keys = ["{core.public_key}"]\n{config.read_text()}')
    service = host.systemd.find("periphery")
    assert service is not None
    await host.systemd.stop(service)
    await host.systemd.start(service)


def _state(sandbox: Sandbox, name: str) -> tuple[str, str]:
    core = sandbox.core
    assert core is not None
    found = sandbox.store.find("komodo", "Server", {"name": name})
    status = core.status.get(str(found[0]["_id"]))
    return (status.state, status.version) if status else ("", "")


def _touch(sandbox: Sandbox) -> None:
    for document in sandbox.store.peek("komodo", "Server").documents:
        document["info"] = {"attempted_public_key": "", "public_key": ""}


async def _replay(sandbox: Sandbox, exchange: dict[str, Any]) -> httpx2.Response:
    method, path = exchange["request"].split(" ")
    headers = {}
    if exchange["with_api_key"]:
        headers = {"X-Api-Key": sandbox.api_key, "X-Api-Secret": sandbox.own_secrets.api_secret}
    async with httpx2.AsyncClient(base_url=f"http://{sandbox.hosts['core'].address}:9120", headers=headers) as client:
        if method == "GET":
            return await client.get(path)
        return await client.post(path, json=exchange["body"])


SITUATIONS = {
    "core-v1.19.5-agent-v1.19.5": ("1.19.5", "1.19.5"),
    "core-v2.0.0-agent-v2.3.2": ("2.0.0", "2.3.2"),
    "core-v2.3.2-agent-v2.3.2": ("2.3.2", "2.3.2"),
    "core-v2.3.2-agent-v1.19.5": ("2.3.2", "1.19.5"),
    "core-v1.19.5-on-v2-database": ("1.19.5", "1.19.5"),
}


@pytest.mark.parametrize("name", SITUATIONS)
async def test_core_answers_as_captured(name: str, captures: Path, tmp_path: Path) -> None:
    core, agent = SITUATIONS[name]
    exchanges = json.loads((captures / f"{name}.json").read_text())
    assert len(exchanges) > 15
    async with await Sandbox.start(tmp_path, servers=1, core_version=core, agent_version=agent, speed=20) as sandbox:
        await _prepare(sandbox)
        if name.endswith("v2-database"):
            _touch(sandbox)
            sandbox.core.status.clear()  # type: ignore[union-attr]
        elif agent == core or core == "2.0.0":
            if agent.startswith("2"):
                await _pin(sandbox)
            await until(lambda: _state(sandbox, "web-1") == ("Ok", agent), what="web-1 Ok")
        if not name.endswith("v2-database"):
            await until(lambda: _state(sandbox, "dead")[0] == "NotOk", what="dead seen")
        if core == "2.3.2":
            assert sandbox.core is not None
            links = sandbox.core.links
            await until(lambda: len(links) == 2 and all(k.agent or k.error for k in links.values()))
            sandbox.core.tick()
        for exchange in exchanges:
            response = await _replay(sandbox, exchange)
            request = f"{exchange['request']} {exchange['body']}"
            assert response.status_code == exchange["status"], request
            assert response.headers.get("content-type") == exchange["content_type"], request
            wanted = exchange["answer"]
            if exchange["content_type"] != "application/json":
                assert response.text == wanted, request
                continue
            found = response.json()
            if isinstance(wanted, dict) and "error" in wanted and "unknown variant" not in wanted["error"]:
                assert found == wanted, request
            elif isinstance(wanted, list) and wanted and "name" in wanted[0]:
                _compare_named(found, wanted, request)
            else:
                assert _loosely(shape(found), shape(wanted)), f"{request}\n{shape(found)}\n{shape(wanted)}"
        assert sandbox.world.defects == []


def _compare_named(found: list[Any], wanted: list[Any], request: str) -> None:
    """Items by name where both have it; else some captured item has the same shape."""
    by_name = {item["name"]: item for item in wanted}
    assert found, request
    shapes = [shape(item) for item in wanted]
    for item in found:
        if item["name"] in by_name:
            assert _loosely(shape(item), shape(by_name[item["name"]])), f"{request}\n{item}\n{by_name[item['name']]}"
        else:
            assert any(_loosely(shape(item), s) for s in shapes), f"{request}\n{item}\n{wanted[0]}"


def _loosely(found: Any, wanted: Any) -> bool:
    """Equal shapes; a list may have fewer kinds of items, but is empty only where the captured one is."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_loosely(found[k], wanted[k]) for k in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return bool(found) == bool(wanted) and all(any(_loosely(f, w) for w in wanted) for f in found)
    return bool(found == wanted)


async def test_wrong_key_and_rate_limit(tmp_path: Path) -> None:
    """v2: 401 with the attempts that are left, then 429; v1 never limits."""
    async with await Sandbox.start(tmp_path, servers=0, core_version="2.3.2", speed=20) as sandbox:
        base = f"http://{sandbox.hosts['core'].address}:9120"
        async with httpx2.AsyncClient(base_url=base, headers={"X-Api-Key": "no", "X-Api-Secret": "no"}) as client:
            answers = [await client.post("/read/GetVersion", json={}) for _ in range(6)]
        assert [a.status_code for a in answers] == [401] * 5 + [429]
        assert answers[0].json()["error"] == "Invalid user credentials | You have 4 attempts remaining"
        assert answers[5].json()["error"].startswith("Too many attempts | Try again in ")


async def test_lists_have_fifty_items_from_v2_3_on(tmp_path: Path) -> None:
    async with await Sandbox.start(tmp_path, servers=0, core_version="2.3.2", speed=20) as sandbox:
        documents = [resource("Server", f"s{n}", {"enabled": False}) for n in range(60)]
        sandbox.store.insert("komodo", "Server", documents)
        headers = {"X-Api-Key": sandbox.api_key, "X-Api-Secret": sandbox.own_secrets.api_secret}
        base = f"http://{sandbox.hosts['core'].address}:9120"
        async with httpx2.AsyncClient(base_url=base, headers=headers) as client:
            short = await client.post("/read", json={"type": "ListServers", "params": {"query": {}}})
            whole = await client.post("/read/ListServers", json={"query": {}, "limit": 0})
        assert (len(short.json()), len(whole.json())) == (50, 61)
