"""The dashboard: Starlette's routes. It shows what `status`, `plan`, `list` and `report` show, and sends answers."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp
from temporalio.client import Client

from model.errors import NoSuchUpgrade, NotAccepted, NoWorker, TemporalUnavailable, UpgradeError
from model.fleet.spec import slug
from model.gates import Control, ControlVerb, Verdict
from service import answers
from service.answers import Answer
from service.client import Accepted, Upgrade
from web import parts
from web.access.guard import Guard, Refused, Visitor, cookie, set_cookie
from web.access.passwords import Tries
from web.access.rules import Rules
from web.access.sessions import Sessions
from web.data import fleets, load
from web.live import MOST_STREAMS, Feed, stream
from web.render import asset, page
from web.report import render_html, render_sections

ASSETS = ("style.css", "dashboard.js", "icon.svg")
_LONGEST_TEXT = 500
_FEEDS = 50
T = TypeVar("T")
_STATUS = (
    (NoSuchUpgrade, HTTPStatus.NOT_FOUND),
    (NotAccepted, HTTPStatus.CONFLICT),
    (NoWorker, HTTPStatus.SERVICE_UNAVAILABLE),
    (TemporalUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Dashboard:
    """One dashboard. `ended`: the process is about to end, so that open streams end too."""

    def __init__(self, client: Client, rules: Rules, sessions: Sessions, ended: Callable[[], bool]) -> None:
        self._client, self._rules, self._sessions, self._ended = client, rules, sessions, ended
        self._tries = Tries()
        self._feeds: dict[str, Feed[Any]] = {}
        self._streams = 0

    def app(self) -> ASGIApp:
        """The application, guarded."""
        routes = [
            Route("/", self._index),
            Route("/events", self._index_events),
            Route("/fleets/{fleet}", self._fleet),
            Route("/fleets/{fleet}/events", self._fleet_events),
            Route("/fleets/{fleet}/plan", self._plan),
            Route("/fleets/{fleet}/report.html", self._report_file),
            Route("/fleets/{fleet}/answer", self._answer, methods=["POST"]),
            Route("/fleets/{fleet}/control", self._control, methods=["POST"]),
            Route("/enter", self._enter),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/static/{name}", self._static),
        ]
        inner = Starlette(
            routes=[Mount(self._rules.prefix, routes=routes)] if self._rules.prefix else routes,
            exception_handlers={UpgradeError: self._failed, Refused: self._refused, 404: self._missing},
        )
        return Guard(inner, self._rules, self._sessions)

    # --- pages --------------------------------------------------------------------------------------------------------

    async def _index(self, request: Request) -> Response:
        now = datetime.now(UTC)
        found = await fleets(self._client)
        return self._page(request, "index.html", parts=parts.of_index(found, self._rules.prefix, now))

    async def _fleet(self, request: Request) -> Response:
        return await self._show_fleet(request)

    async def _show_fleet(self, request: Request, error: UpgradeError | None = None) -> Response:
        view = await load(self._client, _name(request))
        shown = parts.of_fleet(view, _visitor(request), self._rules.prefix, datetime.now(UTC))
        status = _status(error) if error else HTTPStatus.OK
        sent = request.query_params.get("sent", "")
        report = render_sections(view.result, view.watch) if view.result else ""
        return self._page(request, "fleet.html", status, view=view, parts=shown, report=report, error=error, sent=sent)

    async def _plan(self, request: Request) -> Response:
        view = await load(self._client, _name(request))
        plan = view.plan or (view.result.plan if view.result else None)
        if plan is None:
            raise NoSuchUpgrade(f"there is no plan of {view.run.fleet} yet")
        return self._page(request, "plan.html", view=view, plan=parts.of_plan(plan))

    async def _report_file(self, request: Request) -> Response:
        view = await load(self._client, _name(request))
        if view.result is None:
            raise NoSuchUpgrade(f"the upgrade of {view.run.fleet} is still running: there is no report yet")
        headers = {"Content-Disposition": f'attachment; filename="{slug(view.run.fleet)}.html"'}
        return HTMLResponse(render_html(view.result, view.watch), headers=headers)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return await self._missing(request, Exception())
        kind = mimetypes.guess_type(name)[0]
        return Response(asset(name), media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    # --- live ---------------------------------------------------------------------------------------------------------

    async def _index_events(self, _: Request) -> Response:
        prefix = self._rules.prefix

        return self._stream("", lambda: fleets(self._client), lambda found: parts.of_index(found, prefix, None))

    async def _fleet_events(self, request: Request) -> Response:
        name, visitor, prefix = _name(request), _visitor(request), self._rules.prefix

        return self._stream(
            name, lambda: load(self._client, name), lambda view: parts.of_fleet(view, visitor, prefix, None)
        )

    def _stream(self, name: str, read: Callable[[], Awaitable[T]], render: Callable[[T], parts.Parts]) -> Response:
        if self._streams >= MOST_STREAMS:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open; this one is not updated")
        while len(self._feeds) > _FEEDS:
            self._feeds.pop(next(iter(self._feeds)))
        feed = self._feeds.setdefault(name, Feed(read))
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._counted(stream(feed, render, self._ended)), 200, headers, "text/event-stream")

    async def _counted(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        self._streams += 1
        try:
            async for event in events:
                yield event
        finally:
            self._streams -= 1

    # --- answers ------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        form, name = _form(request), _name(request)
        try:
            answer = Answer(
                verdict=Verdict(form.get("verdict", "")),
                gate=form.get("gate", ""),
                reason=form.get("reason", "").strip()[:_LONGEST_TEXT],
                confirm=form.get("confirm", "").strip(),
                digest=form.get("digest", ""),
            )
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "no such answer") from None
        if not answer.gate:
            raise Refused(HTTPStatus.BAD_REQUEST, "the form names no gate")
        upgrade = Upgrade(self._client, name)
        try:
            await upgrade.describe()
            gate = answers.check((await upgrade.progress()).gate, answer, name)
            answers.check_name(gate, answer)
            accepted = await upgrade.decide(answers.decision(gate, answer, _visitor(request).actor))
        except NotAccepted as error:
            return await self._show_fleet(request, error)
        return self._sent(name, accepted)

    async def _control(self, request: Request) -> Response:
        form, name = _form(request), _name(request)
        try:
            verb = ControlVerb(form.get("verb", ""))
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "no such control") from None
        upgrade = Upgrade(self._client, name)
        reason = form.get("reason", "").strip()[:_LONGEST_TEXT]
        try:
            await upgrade.describe()
            accepted = await upgrade.control(Control(verb=verb, actor=_visitor(request).actor, reason=reason))
        except NotAccepted as error:
            return await self._show_fleet(request, error)
        return self._sent(name, accepted)

    def _sent(self, name: str, accepted: Accepted) -> Response:
        for feed in self._feeds.values():
            feed.answered()
        word = "stored" if accepted.stored_only else "accepted"
        return RedirectResponse(f"{self._rules.prefix}/fleets/{quote(name, safe='')}?sent={word}", HTTPStatus.SEE_OTHER)

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def _enter(self, request: Request) -> Response:
        """The printed link. The page that it opens moves on by itself: the cookie comes from this site then."""
        session = None
        if request.method == "GET" and self._rules.by_token:
            session = self._sessions.enter(request.query_params.get("token", ""))
        if session is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "this link was used already, or it is from another dashboard",
                "Press Enter in the terminal of `komodo-upgrade dashboard` for another one.",
            )
        response = self._page(request, "enter.html")
        set_cookie(response, self._rules, session.id)
        return response

    async def _login(self, request: Request) -> Response:
        passwords = self._rules.passwords
        if passwords is None:
            return RedirectResponse(f"{self._rules.prefix}/", HTTPStatus.SEE_OTHER)
        if request.method != "POST":
            return self._page(request, "login.html", problem="")
        form, address = _form(request), _visitor(request).address
        if wait := self._tries.wait(address):
            problem = f"too many wrong passwords: try again in {max(1, round(wait))} s"
            return self._page(request, "login.html", HTTPStatus.TOO_MANY_REQUESTS, problem=problem)
        self._tries.failed(address)  # counted before it is known, so that parallel tries count too
        name = form.get("name", "").strip()
        if not await passwords.accepts(name, form.get("password", "")):
            return self._page(request, "login.html", HTTPStatus.UNAUTHORIZED, problem="name or password is wrong")
        self._tries.succeeded(address)
        response = RedirectResponse(f"{self._rules.prefix}/", HTTPStatus.SEE_OTHER)
        set_cookie(response, self._rules, self._sessions.begin(name).id)
        return response

    async def _logout(self, request: Request) -> Response:
        self._sessions.end(cookie(request.headers))
        return RedirectResponse(f"{self._rules.prefix}/login", HTTPStatus.SEE_OTHER)

    # --- answers that are no page -------------------------------------------------------------------------------------

    def _page(self, request: Request, template: str, status: int = 200, **values: object) -> Response:
        text = page(template, base=self._rules.prefix, visitor=_visitor(request), version=_assets_version(), **values)
        return HTMLResponse(text, status)

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, UpgradeError)  # noqa: S101 - for the type checker
        return self._page(request, "error.html", _status(error), error=error)

    async def _refused(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101 - for the type checker
        return HTMLResponse(
            page("refused.html", status=error.status.value, why=error.why, hint=error.hint), error.status
        )

    async def _missing(self, request: Request, _: Exception) -> Response:
        return await self._refused(request, Refused(HTTPStatus.NOT_FOUND, "there is no such page"))


def _name(request: Request) -> str:
    return str(request.path_params["fleet"])


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def _form(request: Request) -> Mapping[str, str]:
    form: Mapping[str, str] = request.state.form
    return form


def _status(error: UpgradeError) -> HTTPStatus:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


@cache
def _assets_version() -> str:
    """Part of the assets' URLs, so that a new release does not meet files that a browser kept."""
    return hashlib.sha256("".join(asset(name) for name in ASSETS).encode()).hexdigest()[:12]
