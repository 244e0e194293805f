"""The dashboard's pages and answers, against a real Temporal server with doubles of the workflows behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from service.connection import connect
from service.embedded.state import Running
from tests.cli.conftest import Call
from web.access.rules import Options, rules
from web.access.sessions import Sessions
from web.dashboard import Dashboard

Fleet = Callable[..., Path]
Browse = Callable[[], contextlib.AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def browse(service: Running) -> Browse:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[httpx2.AsyncClient]:
        found = rules(Options())
        sessions = Sessions()
        app = Dashboard(await connect({"target_host": service.address}), found, sessions, lambda: False).app()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app, client=("127.0.0.1", 40000)),
            base_url=found.url,
            headers={"Origin": found.origins[0]},
            follow_redirects=True,
        ) as browser:
            assert (await browser.get(f"enter?token={sessions.link('alice')}")).status_code == 200
            yield browser

    return opened


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of the form at the gate."""
    form = page[page.index("/answer") :]
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")]))


def buttons(page: str) -> list[str]:
    return re.findall(r'name="verdict" value="(\w+)"', page)


async def until(browser: httpx2.AsyncClient, path: str, text: str) -> str:
    for _ in range(100):
        page = (await browser.get(path)).text
        if text in page:
            return page
        await asyncio.sleep(0.2)
    raise AssertionError(f"{text} never appeared:\n{page}")


def test_a_whole_upgrade_is_answered_on_the_page(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, browse: Browse
) -> None:
    fleet("web-1", "broken-1")
    komodo_upgrade("start", "--detach", code=6)

    async def visit() -> None:
        path = f"fleets/{fleet_name}"
        async with browse() as browser:
            assert "Upgrade at gate core?" in (await browser.get("")).text
            page = (await browser.get(path)).text
            for part in ("2 servers are unmanaged until upgraded", "Warnings", "web-1, broken-1", "correct it"):
                assert part in page, part
            assert '<span class="plus">+new</span>' in page
            assert buttons(page) == ["approve", "reject"]

            form = {**hidden(page), "verdict": "approve", "reason": "checked <b>"}
            for wrong in ({}, {"confirm": "prod"}):
                refused = await browser.post(f"{path}/answer", data={**form, **wrong})
                assert refused.status_code == 409
                assert "name" in refused.text
                assert "nothing was sent" in refused.text
            stale = await browser.post(f"{path}/answer", data={**form, "digest": "0" * 16, "confirm": fleet_name})
            assert "the plan has changed" in stale.text
            other = await browser.post(f"{path}/answer", data={**form, "gate": "wave/2", "confirm": fleet_name})
            assert "gate wave/2 is not open" in other.text
            assert (await browser.post(f"{path}/answer", data={**form, "verdict": "retry"})).status_code == 409
            assert (await browser.post(f"{path}/answer", data={**form, "verdict": "dance"})).status_code == 400

            accepted = await browser.post(f"{path}/answer", data={**form, "confirm": fleet_name})
            assert "Your answer was accepted." in accepted.text
            again = await browser.post(f"{path}/answer", data={**form, "confirm": fleet_name})
            assert again.status_code == 409

            page = await until(browser, path, "Upgrade at gate failure/broken-1/1?")
            assert buttons(page) == ["retry", "rollback", "skip"]
            assert "gate core: approve by alice: checked &lt;b&gt;" in page
            paused = {"form_token": hidden(page)["form_token"], "verb": "pause", "reason": "network"}
            assert "Paused" in (await browser.post(f"{path}/control", data=paused)).text
            await browser.post(f"{path}/answer", data={**hidden(page), "verdict": "retry"})
            page = await until(browser, path, "upgraded</span>")
            assert "How to roll back" in page
            file = await browser.get(f"{path}/report.html")
            assert "attachment" in file.headers["content-disposition"]
            assert f"<h1>Komodo {fleet_name}: upgraded</h1>" in file.text
            assert "/etc/komodo/periphery.config.toml" in (await browser.get(f"{path}/plan")).text

    asyncio.run(visit())


def test_the_events_bring_what_changed_and_nothing_twice(
    komodo_upgrade: Call, fleet: Fleet, fleet_name: str, service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through uvicorn: httpx's own transport waits for the end of an answer."""
    from web.server import serve

    monkeypatch.setattr("web.live.EVERY", 0.1)
    fleet("web-1")
    komodo_upgrade("start", "--detach", code=6)

    async def visit(address: str) -> list[dict[str, list[str]]]:
        events = []
        client = await connect({"target_host": address})
        async with serve(client, rules(Options(listen="0")), "alice") as running, httpx2.AsyncClient() as browser:
            await browser.get(running.link())
            page = (await browser.get(f"{running.rules.url}/fleets/{fleet_name}")).text
            keys = dict(re.findall(r'id="(\w+)" data-key="(\w+)"', page))
            form = {**hidden(page), "verdict": "reject", "reason": "not now"}
            headers = {"Origin": running.rules.origins[0]}
            url = f"{running.rules.url}/fleets/{fleet_name}"
            async with browser.stream("GET", f"{url}/events") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for line in answer.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    events.append(json.loads(line[6:])["parts"])
                    if len(events) == 1:
                        assert {name: key for name, (key, _) in events[0].items()} == keys
                        await browser.post(f"{url}/answer", data=form, headers=headers)
                    if "stopped" in line:
                        return events
        raise AssertionError("the events ended")

    first, *rest = asyncio.run(visit(service.address))
    assert set(first) == {"state", "gate", "servers", "log"}
    assert "Upgrade at gate core?" in first["gate"][1]
    assert rest
    assert not any(changed.get("servers") == first["servers"] for changed in rest), "sent twice"


def test_a_fleet_that_is_unknown_is_a_page_with_a_hint(browse: Browse) -> None:
    async def visit() -> None:
        async with browse() as browser:
            missing = await browser.get("fleets/none")
            assert missing.status_code == 404
            assert "there is no upgrade of a fleet named none" in missing.text
            assert "komodo-upgrade list" in missing.text

    asyncio.run(visit())
