"""What the dashboard refuses (docs/security.md, Dashboard): browsers, pages and users that should stay outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import bcrypt
import httpx2
import pytest

from web.access.passwords import PasswordFile, PasswordFileUnusable, Tries
from web.access.rules import DashboardRefused, Options, Rules, rules, warnings
from web.access.sessions import LONGEST, Sessions
from web.dashboard import Dashboard

ORIGIN = "http://127.0.0.1:8240"
FORM = {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
ANSWER = "verdict=approve&gate=core&confirm=prod"


class Site:
    """A dashboard without a Temporal server, and browsers that visit it."""

    def __init__(self, found: Rules) -> None:
        self.rules = found
        self.sessions = Sessions()
        self.app = Dashboard(None, found, self.sessions, lambda: False).app()  # type: ignore[arg-type]

    def browser(self, address: str = "127.0.0.1", url: str = "") -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, client=(address, 40000))
        return httpx2.AsyncClient(transport=transport, base_url=url or self.rules.url)

    async def entered(self, actor: str = "alice") -> httpx2.AsyncClient:
        """A browser that used the printed link."""
        browser = self.browser()
        answer = await browser.get(f"enter?token={self.sessions.link(actor)}")
        assert answer.status_code == 200
        return browser


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Temporal knows no run; what reaches the client of a run is recorded."""
    reached: list[str] = []

    async def none(_: Any) -> list[Any]:
        return []

    class Recorder:
        def __init__(self, client: Any, fleet: str) -> None:
            reached.append(fleet)

        async def describe(self) -> None:
            raise AssertionError("a message reached the upgrade")

    monkeypatch.setattr("web.dashboard.fleets", none)
    monkeypatch.setattr("web.dashboard.Upgrade", Recorder)
    yield reached
    assert not reached


def site(**options: Any) -> Site:
    return Site(rules(Options(**options)))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    path = tmp_path / "users"
    path.write_text(f"# made by htpasswd -B\nalice:{hashed}\n")
    path.chmod(0o600)
    return path


def token_of(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found
    return found[1]


# --- the link and the session -----------------------------------------------------------------------------------------


async def test_the_link_works_once_and_the_cookie_is_for_this_browser_only() -> None:
    here = site()
    browser = here.browser()
    link = f"enter?token={here.sessions.link('alice')}"
    assert (await browser.head(link)).status_code == 401, "a preview does not use the link up"
    entered = await browser.get(link)
    cookie = entered.headers["set-cookie"]
    assert f"Path={here.rules.prefix}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await browser.get("")).status_code == 200
    second = here.browser()
    again = await second.get(link)
    assert again.status_code == 401
    assert "used already" in again.text
    refused = await second.get("")
    assert refused.status_code == 401
    assert here.rules.prefix not in refused.text
    assert (await second.get("events")).status_code == 401
    assert (await second.get(f"{ORIGIN}/")).status_code == 401


async def test_a_session_ends_after_its_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    here = site()
    browser = await here.entered()
    later = monotonic() + LONGEST + 1
    monkeypatch.setattr("web.access.sessions.monotonic", lambda: later)
    assert (await browser.get("")).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example:8240", "127.0.0.1:8241", "127.0.0.1", "localhost.evil.example:8240", ""]
)
async def test_another_name_that_points_here_reads_nothing(host: str) -> None:
    browser = await site().entered()
    assert (await browser.get("", headers={"Host": host})).status_code == 421


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ORIGIN, "Content-Type": "text/plain"},
        {"Origin": ORIGIN, "Content-Type": "multipart/form-data; boundary=x"},
    ],
)
async def test_a_form_of_another_page_sends_nothing(headers: dict[str, str]) -> None:
    here = site()
    browser = await here.entered()
    token = here.sessions.form_token(f"session:{browser.cookies['komodo_upgrade']}")
    answer = await browser.post(
        "fleets/prod/answer", content=f"{ANSWER}&form_token={token}", headers={**FORM, **headers}
    )
    assert answer.status_code in (403, 415)


@pytest.mark.parametrize("token", ["", "0" * 64, "ü", "of-another-session"])
async def test_a_form_without_the_token_of_this_session_sends_nothing(token: str) -> None:
    here = site()
    browser = await here.entered()
    if token == "of-another-session":
        token = here.sessions.form_token(f"session:{here.sessions.begin('bob').id}")
    for path in ("fleets/prod/answer", "fleets/prod/control"):
        answer = await browser.post(path, content=f"{ANSWER}&verb=stop&form_token={token}", headers=FORM)
        assert answer.status_code == 403
        assert "nothing was sent" in answer.text


async def test_read_only_takes_no_answer() -> None:
    here = site(read_only=True)
    browser = await here.entered()
    token = here.sessions.form_token(f"session:{browser.cookies['komodo_upgrade']}")
    for path in ("fleets/prod/answer", "fleets/prod/control"):
        answer = await browser.post(path, content=f"{ANSWER}&verb=stop&form_token={token}", headers=FORM)
        assert answer.status_code == 403
        assert "--read-only" in answer.text


async def test_forms_are_bounded_and_other_methods_refused() -> None:
    browser = await site().entered()
    for content in ("reason=" + "x" * 20_000, "&".join(f"a{n}=1" for n in range(50)), b"reason=\xff\xfe"):
        answer = await browser.post("fleets/prod/answer", content=content, headers=FORM)
        assert answer.status_code in (400, 403, 413)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert (await browser.request(method, "")).status_code == 405


async def test_another_page_may_open_this_one_but_not_read_it() -> None:
    browser = await site().entered()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await browser.get("", headers=link)).status_code == 200
    for source in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": source, "Sec-Fetch-Mode": "no-cors"}
        assert (await browser.get("static/dashboard.js", headers=headers)).status_code == 403


async def test_every_answer_forbids_scripts_of_others_and_frames() -> None:
    here = site()
    browser = await here.entered()
    for path in ("", "fleets/prod/none", "static/style.css", "enter?token=x", f"{ORIGIN}/"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    page = (await browser.get("")).text
    assert not re.search(r"<script>|\son\w+=|style=|javascript:", page)
    assert not re.findall(r'(?:src|href)="(?!/[0-9a-f]{16}/|#)', page), "only files of the dashboard itself"


# --- beyond this machine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"listen": "0.0.0.0:8240"}, "the printed link is not enough"),
        ({"listen": "[::]:8240"}, "the printed link is not enough"),
        (
            {"listen": "upgrade.example.net:8240", "url": "https://upgrade.example.net"},
            "the printed link is not enough",
        ),
        ({"trust_header": "Remote-User"}, "--trust-header needs --trust-from"),
        ({"trust_from": ("10.0.0.2",)}, "--trust-header needs --trust-from"),
        ({"trust_header": "Remote-User", "trust_from": ("proxy",)}, "--trust-from proxy"),
        ({"listen": "10.0.0.5:8240", "trust_header": "u", "trust_from": ("10.0.0.2",)}, "without --url"),
        ({"url": "https://upgrade.example.net/path"}, "is no URL of a dashboard"),
        ({"listen": "8240x"}, "is no address to listen on"),
    ],
)
def test_options_that_would_let_anyone_in_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DashboardRefused, match=why):
        rules(Options(**options))


def test_what_travels_in_the_clear_is_said() -> None:
    behind = {"listen": "10.0.0.5:8240", "trust_header": "Remote-User", "trust_from": ("127.0.0.1",)}
    first, second = warnings(rules(Options(**behind, url="http://upgrade.example.net")))  # type: ignore[arg-type]
    assert "in the clear" in first
    assert "every user of it can claim any name" in second
    assert not warnings(rules(Options()))


async def test_only_the_proxy_names_the_user() -> None:
    here = site(
        listen="10.0.0.5:8240",
        url="https://upgrade.example.net",
        trust_header="Remote-User",
        trust_from=("10.0.0.2", "10.1.0.0/24"),
    )
    named = {"Remote-User": "alice", "X-Forwarded-For": "10.0.0.2"}
    for address in ("10.0.0.3", "127.0.0.1", "::1"):
        assert (await here.browser(address).get("/", headers=named)).status_code == 403
    for address in ("10.0.0.2", "10.1.0.7"):
        page = await here.browser(address).get("/", headers=named)
        assert page.status_code == 200
        assert ">alice<" in page.text
    proxy = here.browser("10.0.0.2")
    for names in ([], [("Remote-User", "")], [("Remote-User", "alice"), ("Remote-User", "root")]):
        assert (await proxy.get("/", headers=names)).status_code == 401
    assert (await proxy.get("/", headers={"Remote-User": "a" * 101})).status_code == 401
    token = here.sessions.form_token("user:bob")
    form = {**FORM, "Origin": "https://upgrade.example.net", "Remote-User": "alice"}
    answer = await proxy.post("/fleets/prod/answer", content=f"{ANSWER}&form_token={token}", headers=form)
    assert answer.status_code == 403, "a form of bob's page, sent as alice"


async def test_a_password_opens_a_session_and_tries_are_limited(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.access.passwords.monotonic", lambda: 1000.0)
    here = site(listen="10.0.0.5:8240", url="https://upgrade.example.net", password_file=str(users))
    form = {**FORM, "Origin": "https://upgrade.example.net"}
    browser = here.browser("10.0.0.9")

    async def log_in(name: str, password: str) -> httpx2.Response:
        return await browser.post("/login", data={"name": name, "password": password}, headers=form)

    assert (await browser.get("/")).status_code == 401
    assert (await log_in("alice", "correct horse")).status_code == 303
    assert "Secure" in (await log_in("alice", "correct horse")).headers["set-cookie"]
    page = (await browser.get("/")).text
    assert ">alice<" in page
    left = await browser.post("/logout", data={"form_token": token_of(page)}, headers=form)
    assert left.status_code == 303
    assert (await browser.get("/")).status_code == 401, "the session is ended, not only forgotten by the browser"

    for name, password in (("alice", "wrong"), ("mallory", "x"), ("alice", ""), ("alice", "correct horse" + "\0" * 80)):
        assert (await log_in(name, password)).status_code == 401
    assert (await log_in("", "")).status_code == 401
    assert (await log_in("alice", "correct horse")).status_code == 429
    assert (await here.browser("10.0.0.10").post("/login", data={"name": "alice"}, headers=form)).status_code == 401


def test_waiting_doubles_and_is_forgotten_after_success(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries()
    waits: list[float] = []
    for _ in range(20):
        tries.failed("10.0.0.9")
        waits.append(round(tries.wait("10.0.0.9")))
    assert waits[:8] == [0, 0, 0, 0, 1, 2, 4, 8]
    assert max(waits) == 300
    assert tries.wait("10.0.0.10") == 0
    tries.succeeded("10.0.0.9")
    assert tries.wait("10.0.0.9") == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.chmod(0o644), "is open to other users"),
        (lambda path: path.write_text("alice:secret\n"), "line 1: not NAME:HASH"),
        (lambda path: path.write_text("# nobody\n"), "names nobody"),
        (lambda path: path.unlink(), "users"),
    ],
)
def test_a_password_file_that_others_read_or_that_is_none_is_refused(
    users: Path, change: Callable[[Path], object], why: str
) -> None:
    change(users)
    with pytest.raises(PasswordFileUnusable, match=why):
        PasswordFile(users).users()
