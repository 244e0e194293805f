"""What an upgrade meets: stale Ok, wrong keys, passkeys, mixed versions, broken Cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.fleet import Sandbox
from sandbox.keys import ensure_pair
from sandbox.komodo_core.core import Core, Status
from tests.sandbox.conftest import Run, until


def core_of(sandbox: Sandbox) -> Core:
    assert sandbox.core is not None
    return sandbox.core


def status(sandbox: Sandbox, name: str) -> Status:
    core = core_of(sandbox)
    found = core.store.find("komodo", "Server", {"name": name}) if core.store else []
    return core.status.get(str(found[0]["_id"])) or Status(state="")


async def restart(sandbox: Sandbox, name: str, *, version: str = "", config: str | None = None) -> None:
    """What an upgrade does to an agent, without SSH."""
    from sandbox.releases import binary

    host = sandbox.hosts[name]
    service = host.systemd.find("periphery")
    assert service is not None
    path = host.root / "etc/komodo/periphery.config.toml"
    if config is not None:
        path.write_text(config)
    await host.systemd.stop(service)
    if version:
        (host.root / "usr/local/bin/periphery").write_bytes(binary(version, "x86_64"))
    await host.systemd.start(service)


def pinned(sandbox: Sandbox, name: str, key: str) -> str:
    text = (sandbox.hosts[name].root / "etc/komodo/periphery.config.toml").read_text()
    return f'core_public_keys = ["{key}"]\n{text}'


@pytest.fixture
async def v2(tmp_path: Path) -> Any:
    async with await Sandbox.start(
        tmp_path, servers=3, core_version="2.3.2", agent_version="1.19.5", speed=20
    ) as sandbox:
        yield sandbox
        assert sandbox.world.defects == []


async def test_ok_is_stale_until_the_next_tick(tmp_path: Path) -> None:
    async with await Sandbox.start(
        tmp_path, servers=1, core_version="2.3.2", agent_version="2.3.2", speed=1, monitoring_interval="15-sec"
    ) as sandbox:
        await until(lambda: status(sandbox, "web-1").state == "Ok")
        wrong, _ = ensure_pair(tmp_path / "other.key")
        await restart(sandbox, "web-1", config=pinned(sandbox, "web-1", wrong))
        needle = "Core failed to login to connection | Periphery failed to validate Core public key"
        await until(lambda: any(needle in line for line in sandbox.logs("web-1")), what="refused login")
        assert (status(sandbox, "web-1").state, status(sandbox, "web-1").version) == ("Ok", "2.3.2")
        core_of(sandbox).tick()
        after = status(sandbox, "web-1")
        assert after.state == "NotOk"
        assert after.err is not None
        assert after.err.trace[-1] == f"{core_of(sandbox).public_key} is invalid"


async def test_v1_agents_refuse_a_v2_core_and_come_back_as_v2(v2: Sandbox) -> None:
    await until(lambda: status(v2, "web-1").err is not None)
    err = status(v2, "web-1").err
    assert err is not None
    assert err.trace == ("HTTP error: 401 Unauthorized",)
    await restart(v2, "web-1", version="2.3.2", config=pinned(v2, "web-1", core_of(v2).public_key))
    await until(lambda: status(v2, "web-1").state == "Ok")
    lines = [line for line in v2.logs("web-1") if "Logged in to Komodo Core komodo.example.com websocket" in line]
    assert len(lines) == 1
    assert not any("using Passkeys" in line for line in v2.logs("web-1"))


async def test_passkeys(v2: Sandbox) -> None:
    """The never-edited server refuses everybody as v2; one with Core's passkey logs in without a key."""
    await restart(v2, "nas" if "nas" in v2.hosts else "web-1", version="2.3.2")
    await restart(v2, "web-1", version="2.3.2")
    await until(lambda: status(v2, "web-1").state == "Ok")
    assert any("Authenticating using Passkeys" in line for line in v2.logs("web-1"))
    err = None
    await until(lambda: (status(v2, "nas").err or err) and "Invalid passkey" in str(status(v2, "nas").err))
    assert sum("Core failed to login to connection | Invalid passkey" in line for line in v2.logs("nas")) == 1


async def test_a_wrong_key_behind_a_stale_ok(v2: Sandbox) -> None:
    v2.fault("wrong-key", "web-1", stale=1)
    await restart(v2, "web-1", version="2.3.2", config=pinned(v2, "web-1", core_of(v2).public_key))
    await until(lambda: (status(v2, "web-1").state, status(v2, "web-1").version) == ("Ok", "2.3.2"))
    assert not any("Logged in" in line for line in v2.logs("web-1"))
    await until(lambda: status(v2, "web-1").state == "NotOk")
    assert "is invalid" in str(status(v2, "web-1").err)


async def test_an_agent_that_ignores_its_config(v2: Sandbox) -> None:
    """It runs, logs in, and is open to anyone: only its own log tells."""
    v2.fault("agent-ignores-config", "web-1")
    await restart(v2, "web-1", version="2.3.2", config=pinned(v2, "web-1", core_of(v2).public_key))
    await until(lambda: status(v2, "web-1").state == "Ok")
    assert any("core_public_keys: None, passkeys: None" in line for line in v2.logs("web-1"))


async def test_a_binary_that_does_not_run_here(v2: Sandbox) -> None:
    v2.fault("old-libc", "web-1")
    await restart(v2, "web-1", version="2.3.2")
    assert v2.agent_version("web-1") == ""
    assert any("GLIBC_2.34' not found" in line for line in v2.logs("web-1"))


async def test_v2_agents_and_v1_core(tmp_path: Path) -> None:
    async with await Sandbox.start(tmp_path, servers=2, agent_version="2.3.2", speed=20) as sandbox:
        await until(lambda: status(sandbox, "web-1").state == "NotOk")
        assert status(sandbox, "web-1").version == "Unknown"


async def test_core_touches_the_database(v2: Sandbox) -> None:
    assert all(d["info"] == {"attempted_public_key": "", "public_key": ""} for d in v2.store.find("komodo", "Server"))
    assert "OnboardingKey" in v2.store.databases["komodo"]


@pytest.mark.parametrize("fault", ["core-never-up", "core-v2-broken", "wrong-key", "none"])
async def test_core_faults(v2: Sandbox, fault: str, run_core: Any) -> None:
    key = core_of(v2).public_key
    if fault != "none":
        v2.fault(fault, "core")
    container = core_of(v2).container
    await v2.engine.stop(container)
    await v2.engine.start(container)
    if fault == "core-never-up":
        with pytest.raises(httpx2.ConnectError):
            await run_core(v2, "/version")
        return
    await until(lambda: core_of(v2).listening)
    assert (await run_core(v2, "/version")).text == "2.3.2"
    assert (core_of(v2).public_key == key) == (fault != "wrong-key")
    core_of(v2).tick()
    if fault == "core-v2-broken":
        assert {(s.state, s.err) for s in core_of(v2).status.values()} == {("NotOk", None)}


@pytest.fixture
def run_core() -> Any:
    async def get(sandbox: Sandbox, path: str) -> httpx2.Response:
        base = f"http://{sandbox.hosts['core'].address}:9120"
        async with httpx2.AsyncClient(base_url=base) as client:
            return await client.get(path)

    return get


async def test_v1_core_cannot_list_updates_of_v2(fleet: Sandbox, run: Run) -> None:
    headers = {"X-Api-Key": fleet.api_key, "X-Api-Secret": fleet.own_secrets.api_secret}
    base = f"http://{fleet.hosts['core'].address}:9120"
    async with httpx2.AsyncClient(base_url=base, headers=headers) as client:
        assert (await client.post("/read/ListUpdates", json={"query": {}})).status_code == 200
        update = {**fleet.store.find("komodo", "Update")[0], "operation": "UpdateServerKey"}
        update.pop("_id")
        fleet.store.insert("komodo", "Update", [update])
        answer = await client.post("/read/ListUpdates", json={"query": {}})
        assert answer.status_code == 500
        assert "unknown variant `UpdateServerKey`" in answer.text


async def test_executions_leave_updates(fleet: Sandbox) -> None:
    headers = {"X-Api-Key": fleet.api_key, "X-Api-Secret": fleet.own_secrets.api_secret}
    base = f"http://{fleet.hosts['core'].address}:9120"
    async with httpx2.AsyncClient(base_url=base, headers=headers) as client:
        update = (await client.post("/execute/RestartStack", json={"stack": "web", "services": []})).json()
        assert (update["status"], update["success"]) == ("InProgress", True)
        identity = update["_id"]["$oid"]

        def now() -> Any:
            return next(u for u in fleet.store.find("komodo", "Update") if str(u["_id"]) == identity)["status"]

        await until(lambda: now() == "Complete")
        assert (await client.post("/read/GetUpdate", json={"id": identity})).json()["status"] == "Complete"


async def test_without_its_database_core_is_restarted(fleet: Sandbox) -> None:
    mongo, core = fleet.engine.find("komodo-mongo-1"), fleet.engine.find("komodo-core-1")
    assert mongo is not None
    assert core is not None
    await fleet.engine.stop(core)
    await fleet.engine.stop(mongo)
    await fleet.engine.start(core)
    await until(lambda: core.restarts >= 1, what="a restart")
    await fleet.engine.start(mongo)
    await until(lambda: fleet.core is not None and fleet.core.listening)


async def test_default_fleet(fleet: Sandbox) -> None:
    await until(lambda: all(status(fleet, n).state == "Ok" for n in ("Local", *fleet.hosts) if n != "core"))
    text = fleet.fleet_file.read_text()
    assert not [s for s in fleet.secrets if s in text]
    assert len(fleet.secrets) == len(set(fleet.secrets)) >= 9
    nas = fleet.hosts["nas"].systemd.find("periphery")
    assert nas is not None
    assert nas.agent is not None
    assert nas.agent.open_to_all
