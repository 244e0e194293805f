"""Client of Core's HTTP API, for v1 and v2, with typed errors and nothing secret in any of them.

Shapes of requests and answers: v1.19.5 and v2.3.2 `bin/core/src/api/`, as seen on the running programs. Unknown fields
are ignored, missing ones have defaults, `limit: 0` (all) is always sent because v2.3.0 answers 50 items otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx2

from model.errors import CoreAnswered, CoreBusy, CoreRefused, CoreUnreachable

_LOCK_OUT = timedelta(seconds=15)
"""v2's window for failed logins (auth_rate_limit_window_seconds), used where a 429 names no delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreInfo:
    """`GetCoreInfo`. `public_key` is empty on v1."""

    title: str
    monitoring_interval: timedelta
    public_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOptions:
    """`GetLoginOptions`: which ways of logging in Core offers."""

    local: bool
    oidc: bool
    github: bool
    google: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The user whose API key is used."""

    username: str
    admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One entry of `ListServers`. `err` is "" when Core has no complaint and before v2.1.0, which lacks the field."""

    id: str
    name: str
    address: str
    state: str
    """Ok | NotOk | Disabled"""
    version: str
    """Without v; "" when unknown."""
    err: str = ""
    public_key: str = ""
    has_err_field: bool = False

    @property
    def enabled(self) -> bool:
        """Core watches it."""
        return self.state != "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One piece of work of Core. `success` means nothing before `status` is "Complete"."""

    id: str
    operation: str
    status: str
    success: bool
    target: str

    def __str__(self) -> str:
        return f"{self.operation} {self.target}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One entry of `ListSchedules`."""

    name: str
    kind: str
    enabled: bool
    next_run: datetime | None
    id: str = ""
    """Of the Procedure or Action."""
    last_run: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionText:
    """An Action's script."""

    id: str
    name: str
    text: str


class CoreApi:
    """Requests to one Core. Use as an async context manager.

    `forwarded` says that `base_url` is a loopback port of ours: then proxies in the worker's environment are ignored,
    and so is the name in Core's certificate. `called` is what messages say instead of that port.
    """

    def __init__(
        self,
        base_url: str,
        key: str = "",
        secret: str = "",
        *,
        forwarded: bool = False,
        called: str = "",
        timeout: timedelta = timedelta(seconds=10),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._called = called or self.base_url
        self._secrets = tuple(s for s in (key, secret) if s)
        self._credentials = {"X-Api-Key": key, "X-Api-Secret": secret} if key and secret else {}
        loopback = forwarded or _is_loopback(self.base_url)
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            timeout=timeout.total_seconds(),
            transport=transport,
            trust_env=not loopback,
            verify=not forwarded,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def has_key(self) -> bool:
        """Calls that need credentials can be made."""
        return bool(self._credentials)

    # --- without credentials ------------------------------------------------------------------------------------------

    async def flavour(self) -> int | None:
        """1 or 2 by which of the two login paths answers 200; None when neither does (something else listens there)."""
        if await self._offers_login("/auth/login/GetLoginOptions"):
            return 2
        return 1 if await self._offers_login("/auth/GetLoginOptions") else None

    async def login_options(self) -> LoginOptions:
        """Of either version."""
        for path in ("/auth/login/GetLoginOptions", "/auth/GetLoginOptions"):
            answer = await self._send("POST", path, {}, credentials=False)
            if answer.status_code == 200:
                body = _mapping(_json(answer, path))
                return LoginOptions(
                    local=bool(body.get("local")),
                    oidc=bool(body.get("oidc")),
                    github=bool(body.get("github")),
                    google=bool(body.get("google")),
                )
        raise CoreAnswered(
            f"{self.base_url} answers, but not as Komodo Core does", status=answer.status_code, cure="check [core].url"
        )

    async def open_version(self) -> str:
        """v2's `GET /version`, which needs no key; "" where there is no such route (v1: 404)."""
        answer = await self._send("GET", "/version", None, credentials=False)
        if answer.status_code != 200:
            return ""
        found = re.fullmatch(r"\s*v?(\d+\.\d+\.\d+\S*)\s*", answer.text)
        return found.group(1) if found else ""

    # --- reading ------------------------------------------------------------------------------------------------------

    async def version(self) -> str:
        """Core's version without v. Needs a key on v1."""
        return await self.open_version() or str(_mapping(await self.read("GetVersion")).get("version", "")).lstrip("v")

    async def caller(self) -> Caller:
        """Whose key this is: `GET /user` in v2, `POST /auth/GetUser` in v1."""
        answer = await self._send("GET", "/user", None)
        if answer.status_code in (404, 405):
            body = _mapping(await self._call("POST", "/auth/GetUser", {}))
        else:
            body = _mapping(self._checked(answer, "/user"))
        return Caller(username=str(body.get("username", "")), admin=bool(body.get("admin") or body.get("super_admin")))

    async def core_info(self) -> CoreInfo:
        """`GetCoreInfo`."""
        body = _mapping(await self.read("GetCoreInfo"))
        return CoreInfo(
            title=str(body.get("title", "")),
            monitoring_interval=parse_interval(str(body.get("monitoring_interval", ""))),
            public_key=str(body.get("public_key") or ""),
        )

    async def list_servers(self) -> tuple[ServerView, ...]:
        """All Servers that this user sees, by name."""
        items = _items(await self.read("ListServers", {"query": {}, "limit": 0}))
        return tuple(sorted((_server(item) for item in items), key=lambda s: s.name))

    async def list_updates(self, *, open_only: bool = False) -> tuple[Update, ...]:
        """The newest page of Updates; with `open_only` those queued or in progress."""
        query: dict[str, Any] = {"status": {"$in": ["Queued", "InProgress"]}} if open_only else {}
        body = _mapping(await self.read("ListUpdates", {"query": query, "page": 0}))
        updates = tuple(_update(item) for item in _items(body.get("updates", [])))
        return tuple(u for u in updates if u.status != "Complete") if open_only else updates

    async def list_actions(self) -> tuple[ActionText, ...]:
        """Every Action with its script."""
        items = _items(await self.read("ListFullActions", {"query": {}, "limit": 0}))
        return tuple(
            ActionText(
                id=_oid(item.get("_id")),
                name=str(item.get("name", "")),
                text=str(_mapping(item.get("config")).get("file_contents") or ""),
            )
            for item in items
        )

    async def list_schedules(self) -> tuple[Schedule, ...]:
        """Every schedule of Procedures and Actions."""
        return tuple(
            Schedule(
                name=str(item.get("name", "")),
                kind=str(_mapping(item.get("target")).get("type", "")),
                enabled=bool(item.get("enabled")),
                next_run=_milliseconds(item.get("next_scheduled_run")),
                id=str(_mapping(item.get("target")).get("id", "")),
                last_run=_milliseconds(item.get("last_run_at")),
            )
            for item in _items(await self.read("ListSchedules", {"limit": 0}))
        )

    async def server_stats_at(self, server: str) -> datetime | None:
        """When the stats that Core holds of this Server were made, by that server's clock; None when it holds none."""
        try:
            body = _mapping(await self.read("GetSystemStats", {"server": server}))
        except CoreAnswered:
            return None
        return _milliseconds(body.get("refresh_ts"))

    async def get_update(self, update: str) -> Update:
        """One Update by id."""
        return _update(_mapping(await self.read("GetUpdate", {"id": update})))

    # --- doing --------------------------------------------------------------------------------------------------------

    async def restart_stack(self, stack: str) -> Update:
        """Starts a restart of all services of a Stack; the Update tells how it goes."""
        return _update(_mapping(await self._call("POST", "/execute/RestartStack", {"stack": stack, "services": []})))

    async def stack_restarts(self, stack: str, since: datetime) -> tuple[Update, ...]:
        """Updates of restarts of this Stack that began at `since` or later, oldest first."""
        document = _mapping(await self.read("GetStack", {"stack": stack}))
        query = {
            "operation": "RestartStack",
            "target.id": _oid(document.get("_id")),
            "start_ts": {"$gte": int(since.timestamp() * 1000)},
        }
        body = _mapping(await self.read("ListUpdates", {"query": query, "page": 0}))
        return tuple(reversed([_update(item) for item in _items(body.get("updates", []))]))

    # --- transport ----------------------------------------------------------------------------------------------------

    async def read(self, request: str, params: Mapping[str, Any] | None = None) -> Any:
        """`POST /read/<request>` with credentials. The parsed JSON."""
        return await self._call("POST", f"/read/{request}", dict(params or {}))

    async def _call(self, method: str, path: str, body: Any) -> Any:
        return self._checked(await self._send(method, path, body), path)

    async def _offers_login(self, path: str) -> bool:
        answer = await self._send("POST", path, {}, credentials=False)
        try:
            return answer.status_code == 200 and "local" in _mapping(answer.json())
        except ValueError:
            return False

    async def _send(self, method: str, path: str, body: Any, *, credentials: bool = True) -> httpx2.Response:
        headers = self._credentials if credentials else {}
        try:
            if body is None:
                return await self._http.request(method, path, headers=headers)
            return await self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError as error:
            raise CoreUnreachable(
                f"Core does not answer at {self._called}: {type(error).__name__} {self._clean(str(error))}".rstrip(),
                cure="is Core running? `docker ps` on its host; with [core].url: is the address right from the worker?",
            ) from None

    def _checked(self, answer: httpx2.Response, path: str) -> Any:
        status = answer.status_code
        if status == 200:
            return _json(answer, path)
        words = self._clean(_words(answer))
        what = f"Core answered {status} to {path}" + (f": {words}" if words else "")
        if status in (401, 403):
            raise CoreRefused(
                what,
                cure="check the API key and secret that the fleet file refers to, and that their user is enabled and "
                "an admin; this is not tried again, because Core locks out after a few failures",
            )
        if status == 429:
            raise CoreBusy(what, retry_after=_retry_after(answer, words))
        if 300 <= status < 400:
            what += "; something in front of Core (a proxy, a login wall) answered instead of it"
            raise CoreAnswered(what, status=status, cure="leave [core].url out: Core is then reached through SSH")
        raise CoreAnswered(what, status=status)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def parse_interval(text: str) -> timedelta:
    """Komodo's timelength, "15-sec" or "1-min", as a duration; 15 s (Komodo's default) for anything else."""
    found = re.fullmatch(r"(\d+)-(sec|min|hr|day)", text.strip().strip("\"'"))
    if not found:
        return timedelta(seconds=15)
    seconds = {"sec": 1, "min": 60, "hr": 3600, "day": 86400}[found.group(2)]
    return timedelta(seconds=int(found.group(1)) * seconds)


def join_error(value: Any) -> str:
    """Komodo's `{error, trace}` as one line, outermost first; "" for null."""
    if not isinstance(value, Mapping):
        return str(value) if value else ""
    trace = value.get("trace")
    parts = [value.get("error"), *(trace if isinstance(trace, Sequence) and not isinstance(trace, str) else ())]
    return " <- ".join(str(p) for p in parts if p)


def _words(answer: httpx2.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    return join_error(body)[:600]


def _json(answer: httpx2.Response, path: str) -> Any:
    try:
        return answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError, ValueError):
        raise CoreAnswered(
            f"the answer to {path} is not JSON; something in front of Core (a proxy, a login wall) may have given it",
            status=answer.status_code,
            cure="leave [core].url out: Core is then reached through SSH",
        ) from None


def _retry_after(answer: httpx2.Response, words: str) -> timedelta:
    header = answer.headers.get("retry-after", "")
    if header.isdigit():
        return timedelta(seconds=int(header))
    found = re.search(r"[Tt]ry again in (\d+)", words)
    return timedelta(seconds=int(found.group(1)) + 1) if found else _LOCK_OUT


def _server(item: Mapping[str, Any]) -> ServerView:
    info = _mapping(item.get("info"))
    version = str(info.get("version") or "").lstrip("v")
    return ServerView(
        id=str(item.get("id", "")),
        name=str(item.get("name", "")),
        address=str(info.get("address") or ""),
        state=str(info.get("state") or ""),
        version="" if version.lower() == "unknown" else version,
        err=join_error(info.get("err")),
        public_key=str(info.get("public_key") or ""),
        has_err_field="err" in info,
    )


def _update(item: Mapping[str, Any]) -> Update:
    target = _mapping(item.get("target"))
    return Update(
        id=str(item.get("id") or _oid(item.get("_id"))),
        operation=str(item.get("operation", "")),
        status=str(item.get("status", "")),
        success=bool(item.get("success")),
        target=" ".join(str(target[k]) for k in ("type", "id") if target.get(k)),
    )


def _oid(value: Any) -> str:
    return str(value.get("$oid", "")) if isinstance(value, Mapping) else str(value or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _milliseconds(value: Any) -> datetime | None:
    return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int | float) and value > 0 else None


def _is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    return host in ("localhost", "::1") or host.startswith("127.")
