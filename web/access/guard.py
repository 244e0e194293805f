"""What every request passes before a page sees it, and the headers of every answer (docs/security.md, Dashboard)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.access.rules import Rules
from web.access.sessions import Sessions
from web.render import page

COOKIE = "komodo_upgrade"
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
OPEN_PATHS = ("/enter", "/login")
"""Of those without a session; files in /static are open, too."""
_LARGEST_FORM = 16 << 10
_MOST_FIELDS = 20
_LONGEST_ACTOR = 100
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("style-src", "script-src", "connect-src", "img-src", "form-action")),
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # "no-referrer" would make browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is answered with this status and one sentence."""

    def __init__(self, status: HTTPStatus, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.status, self.why, self.hint = status, why, hint


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks; pages read it from `request.state.visitor`."""

    actor: str
    """Empty: nobody is logged in."""
    form_token: str
    address: str
    read_only: bool
    can_log_out: bool = False


class Guard:
    """ASGI: checks the request, then calls the application with `state.visitor` and, for POST, `state.form`."""

    def __init__(self, app: ASGIApp, rules: Rules, sessions: Sessions) -> None:
        self._app, self._rules, self._sessions = app, rules, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            state = await self._check(scope, receive)
        except Refused as error:
            await self.refusal(error)(scope, receive, send_with_headers)
            return
        scope["state"] = {**scope.get("state", {}), **state}
        await self._app(scope, receive, send_with_headers)

    def refusal(self, error: Refused) -> Response:
        """The page for a refused request. It names no fleet and no path."""
        text = page("refused.html", status=error.status.value, why=error.why, hint=error.hint)
        return HTMLResponse(text, error.status.value)

    async def _check(self, scope: Scope, receive: Receive) -> dict[str, object]:
        headers = Headers(scope=scope)
        method = str(scope["method"])
        self._check_name(headers)
        self._check_source(method, headers)
        path = str(scope["path"])
        if self._rules.prefix and not path.startswith(f"{self._rules.prefix}/"):
            raise _without_link()
        inner = path.removeprefix(self._rules.prefix)
        visitor, identity = self._visitor(scope, headers)
        is_open = inner in OPEN_PATHS or inner.startswith("/static/")
        if not visitor.actor and not is_open:
            raise _without_link() if self._rules.by_token else Refused(HTTPStatus.UNAUTHORIZED, "log in first", "login")
        state: dict[str, object] = {"visitor": visitor}
        if method == "POST":
            form = await _form(headers, receive)
            if not is_open:
                self._check_form(form, identity, inner)
            state["form"] = form
        return state

    def _check_name(self, headers: Headers) -> None:
        """A page of another name that resolves to this address (DNS rebinding) reads nothing."""
        if [host.lower() for host in headers.getlist("host")] not in [[name] for name in self._rules.authorities]:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this is not the name of this dashboard")

    def _check_source(self, method: str, headers: Headers) -> None:
        if method in ("GET", "HEAD"):
            cross = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
            if cross and headers.get("sec-fetch-mode") != "navigate":
                raise Refused(HTTPStatus.FORBIDDEN, "another page asked for this")
            return
        if method != "POST":
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST")
        fetch_site = headers.get("sec-fetch-site", "same-origin")
        if headers.getlist("origin") not in [[origin] for origin in self._rules.origins] or fetch_site != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "this form did not come from a page of this dashboard")

    def _visitor(self, scope: Scope, headers: Headers) -> tuple[Visitor, str]:
        """The visitor, and what its forms are bound to."""
        address = str((scope.get("client") or ("", 0))[0])
        if self._rules.trust_header:
            actor = self._named_by_proxy(address, headers)
            identity = f"user:{actor}"
        else:
            session = self._sessions.find(cookie(headers))
            actor = session.actor if session else ""
            identity = f"session:{session.id}" if session else "nobody"
        return Visitor(
            actor=actor,
            form_token=self._sessions.form_token(identity),
            address=address,
            read_only=self._rules.read_only,
            can_log_out=self._rules.passwords is not None,
        ), identity

    def _named_by_proxy(self, address: str, headers: Headers) -> str:
        if not self._rules.trusts(address):
            raise Refused(HTTPStatus.FORBIDDEN, "only the proxy may connect to this dashboard")
        names = headers.getlist(self._rules.trust_header)
        name = names[0].strip() if len(names) == 1 else ""
        if not name or len(name) > _LONGEST_ACTOR or not name.isprintable():
            raise Refused(HTTPStatus.UNAUTHORIZED, "the proxy named no user")
        return name

    def _check_form(self, form: Mapping[str, str], identity: str, inner: str) -> None:
        if not self._sessions.is_form_token(identity, form.get(FORM_TOKEN, "")):
            raise Refused(
                HTTPStatus.FORBIDDEN, "this form is from an earlier session; nothing was sent", "Go back and reload."
            )
        if self._rules.read_only and inner != "/logout":
            raise Refused(HTTPStatus.FORBIDDEN, "this dashboard only shows: it was started with --read-only")


def cookie(headers: Headers) -> str:
    """The session id of a request."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(response: Response, rules: Rules, session_id: str) -> None:
    """A cookie that scripts cannot read, that other sites do not send, for this dashboard's own paths."""
    response.set_cookie(
        COOKIE, session_id, path=rules.prefix or "/", secure=rules.secure, httponly=True, samesite="strict"
    )


async def _form(headers: Headers, receive: Receive) -> dict[str, str]:
    if headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not a form of this dashboard")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(HTTPStatus.BAD_REQUEST, "the connection ended")
        body += message.get("body", b"")
        if len(body) > _LARGEST_FORM:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the form is too large")
        if not message.get("more_body"):
            break
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "the form cannot be read") from None
    return dict(fields)


def _without_link() -> Refused:
    return Refused(
        HTTPStatus.UNAUTHORIZED,
        "this dashboard opens with the link that the command printed",
        "Each link works once. Press Enter in the terminal of `komodo-upgrade dashboard` for another one.",
    )
