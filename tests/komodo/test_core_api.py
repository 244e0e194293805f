"""The Core API client against what real Cores answered (captures), and when things go wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from komodo.core.answers import join_error, parse_interval
from komodo.core.api import CoreApi
from model.errors import CoreAnswered, CoreBusy, CoreRefused, CoreUnreachable

KEY, SECRET = "K_abcdefgh_K", "S_ijklmnop_S"


class Replay(httpx2.AsyncBaseTransport):
    """Answers as a captured Core did; anything not captured fails the test."""

    def __init__(self, path: Path) -> None:
        self.entries = json.loads(path.read_text())
        self.seen: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        line = f"{request.method} {request.url.path}"
        key = "x-api-key" in request.headers
        fits = [e for e in self.entries if e["request"] == line]
        assert fits, f"no capture of {line}"
        exact = [e for e in fits if e["with_api_key"] == key] or fits
        entry = exact[0]
        if entry["content_type"] and "json" in entry["content_type"]:
            return httpx2.Response(entry["status"], json=entry["answer"])
        return httpx2.Response(entry["status"], text=entry["answer"] or "")


def api_of(captures: Path, name: str, *, key: bool = True) -> tuple[CoreApi, Replay]:
    replay = Replay(captures / f"{name}.json")
    return CoreApi("http://127.0.0.1:9120", KEY if key else "", SECRET if key else "", transport=replay), replay


def answering(status: int, **kwargs: Any) -> CoreApi:
    handler = httpx2.MockTransport(lambda _: httpx2.Response(status, **kwargs))
    return CoreApi("http://127.0.0.1:9120", KEY, SECRET, transport=handler)


@pytest.mark.parametrize(
    ("name", "flavour", "open_version"),
    [
        ("core-v1.19.5-agent-v1.19.5", 1, ""),
        ("core-v1.19.5-on-v2-database", 1, ""),
        ("core-v2.0.0-agent-v2.3.2", 2, "2.0.0"),
        ("core-v2.3.2-agent-v2.3.2", 2, "2.3.2"),
    ],
)
async def test_versions_without_a_key(captures: Path, name: str, flavour: int, open_version: str) -> None:
    api, replay = api_of(captures, name, key=False)
    async with api:
        assert await api.flavour() == flavour
        assert await api.open_version() == open_version
        assert (await api.login_options()).local
    assert not any("x-api-key" in r.headers for r in replay.seen)


async def test_login_calls_never_carry_the_key(captures: Path) -> None:
    api, replay = api_of(captures, "core-v2.3.2-agent-v2.3.2")
    async with api:
        await api.flavour()
        await api.open_version()
    assert not any("x-api-key" in r.headers for r in replay.seen)


@pytest.mark.parametrize(
    ("name", "version", "key"),
    [("core-v1.19.5-agent-v1.19.5", "1.19.5", ""), ("core-v2.3.2-agent-v2.3.2", "2.3.2", "MCowBQYDK2VuAyEA")],
)
async def test_reads(captures: Path, name: str, version: str, key: str) -> None:
    api, replay = api_of(captures, name)
    async with api:
        assert await api.version() == version
        info = await api.core_info()
        assert info.monitoring_interval == timedelta(seconds=1)
        assert info.public_key.startswith(key)
        assert bool(info.public_key) is bool(key)
        dead, web = await api.list_servers()
        assert (dead.name, dead.state, dead.version, dead.enabled) == ("dead", "NotOk", "", True)
        assert (web.name, web.state, web.version) == ("web-1", "Ok", version)
        assert web.address == "https://127.0.0.1:8120"
        assert [a.name for a in await api.list_actions()] == ["old-term"]
        assert "execute_terminal" in (await api.list_actions())[0].text
        assert {s.name for s in await api.list_schedules()} == {"Backup Core Database", "Global Auto Update"}
        assert all(s.next_run and s.enabled for s in await api.list_schedules())
        assert len(await api.list_updates()) > 5
        assert await api.list_updates(open_only=True) == ()
        assert await api.server_stats_at("web-1") is not None
    listing = [r for r in replay.seen if r.url.path in ("/read/ListServers", "/read/ListFullActions")]
    assert all(json.loads(r.content)["limit"] == 0 for r in listing)


async def test_v2_error_of_a_server_is_one_line(captures: Path) -> None:
    api, _ = api_of(captures, "core-v2.3.2-agent-v1.19.5")
    async with api:
        servers = {s.name: s for s in await api.list_servers()}
    assert servers["dead"].err.startswith(
        "Failed to connect to websocket | url: wss://127.0.0.1:8199/?core=localhost <- "
    )
    assert servers["web-1"].state == "NotOk"
    assert servers["web-1"].has_err_field


async def test_v2_0_has_no_error_field(captures: Path) -> None:
    api, _ = api_of(captures, "core-v2.0.0-agent-v2.3.2")
    async with api:
        assert not any(s.has_err_field or s.err for s in await api.list_servers())


async def test_v1_on_a_v2_database_says_why_it_cannot_list(captures: Path) -> None:
    api, _ = api_of(captures, "core-v1.19.5-on-v2-database")
    async with api:
        with pytest.raises(CoreAnswered, match="failed to pull Servers from mongo <- Kind: ") as caught:
            await api.list_servers()
        assert caught.value.status == 500
        assert not caught.value.transient


async def test_caller_of_v2(captures: Path) -> None:
    api, _ = api_of(captures, "core-v2.3.2-agent-v2.3.2")
    async with api:
        caller = await api.caller()
    assert (caller.username, caller.admin) == ("admin", True)


async def test_caller_of_v1_falls_back_to_its_own_route() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/user":
            return httpx2.Response(405)
        assert (request.method, request.url.path) == ("POST", "/auth/GetUser")
        return httpx2.Response(200, json={"username": "bob", "admin": False})

    async with CoreApi("http://127.0.0.1:1", KEY, SECRET, transport=httpx2.MockTransport(handler)) as api:
        caller = await api.caller()
    assert (caller.username, caller.admin) == ("bob", False)


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_is_permanent_and_names_no_secret(status: int) -> None:
    body = {"error": f"Invalid user credentials for {KEY} {SECRET} | You have 4 attempts remaining", "trace": []}
    async with answering(status, json=body) as api:
        with pytest.raises(CoreRefused, match="4 attempts remaining") as caught:
            await api.list_servers()
    assert not caught.value.transient
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "error", "seconds"),
    [
        ({"retry-after": "7"}, "Too many attempts", 7),
        ({}, "Too many attempts | Try again in 12 seconds", 13),
        ({}, "Too many attempts", 15),
    ],
)
async def test_busy_carries_its_own_delay(headers: dict[str, str], error: str, seconds: int) -> None:
    async with answering(429, headers=headers, json={"error": error}) as api:
        with pytest.raises(CoreBusy) as caught:
            await api.list_servers()
    assert caught.value.retry_after == timedelta(seconds=seconds)
    assert caught.value.transient


async def test_login_wall_is_named_for_what_it_is() -> None:
    async with answering(302, headers={"location": "https://sso.example.com"}) as api:
        with pytest.raises(CoreAnswered, match="login wall"):
            await api.list_servers()
    async with answering(200, text="<html>please log in</html>") as api:
        with pytest.raises(CoreAnswered, match="not JSON"):
            await api.list_servers()
    async with answering(200, text="<html>please log in</html>") as api:
        assert await api.open_version() == ""
        assert await api.flavour() is None


async def test_no_answer_is_transient() -> None:
    def handler(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused")

    async with CoreApi("http://127.0.0.1:1", KEY, SECRET, transport=httpx2.MockTransport(handler)) as api:
        with pytest.raises(CoreUnreachable, match="Connection refused") as caught:
            await api.flavour()
    assert caught.value.transient
    there = "127.0.0.1:9120 on core.example.net, through the SSH connection"
    async with CoreApi("http://127.0.0.1:35925", called=there, transport=httpx2.MockTransport(handler)) as api:
        with pytest.raises(CoreUnreachable, match=r"at 127\.0\.0\.1:9120 on core") as caught:
            await api.flavour()
    assert "35925" not in str(caught.value), "a port of ours says nothing to the reader"


async def test_proxies_of_the_environment_are_ignored_for_a_forward_and_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with CoreApi("http://core", socket=Path("/nowhere/forward.sock")) as forwarded:
        assert not forwarded._http.trust_env
    async with CoreApi("http://127.0.0.1:9") as local:
        assert not local._http.trust_env
    async with CoreApi("https://komodo.example.com") as public:
        assert public._http.trust_env


def test_intervals() -> None:
    assert parse_interval("15-sec") == timedelta(seconds=15)
    assert parse_interval('"1-min"') == timedelta(minutes=1)
    assert parse_interval("nonsense") == timedelta(seconds=15)


def test_errors_are_joined_outermost_first() -> None:
    assert join_error({"error": "a", "trace": ["b", "c"]}) == "a <- b <- c"
    assert join_error(None) == ""
    assert join_error({"error": "a"}) == "a"
