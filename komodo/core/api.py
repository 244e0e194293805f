"""Client of Core's HTTP API, for v1 and v2. Errors are typed and contain no secret; answers are bounded.

Shapes of requests and answers: v1.19.5 and v2.3.2 `bin/core/src/api/`, as seen on the running programs. Unknown fields
are ignored, missing ones have defaults, `limit: 0` (all) is always sent because v2.3.0 answers 50 items otherwise.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from komodo.core.answers import (
    ActionText,
    Caller,
    CoreInfo,
    KnownConnection,
    LoginOptions,
    Schedule,
    ServerView,
    Update,
    from_milliseconds,
    join_error,
    list_of,
    mapping,
    object_id,
    parse_interval,
    server_view,
    update_view,
)
from model.errors import CoreAnswered, CoreBusy, CoreRefused, CoreUnreachable
from model.text.outside import single_line

_LOCK_OUT = timedelta(seconds=15)
"""v2's window for failed logins (auth_rate_limit_window_seconds), used where a 429 names no delay."""
_LIMIT = 16 * 1024 * 1024
"""Bytes of one answer. 2,000 Servers are about 4 MiB."""
_LONGEST_REASON = 600
"""Characters of Core's own words."""
_WHOLE_ANSWER = timedelta(seconds=20)
"""From the request to the last byte of its answer."""
_RESOURCES = (
    *("Stacks", "Deployments", "Builds", "Repos", "Procedures", "Actions"),
    *("Builders", "Alerters", "ResourceSyncs"),
)
"""Every kind of resource that v1 and v2 have, but Servers."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises ValueError, also for values that Python refuses to build (depth, digits of an integer).

        Halves of a surrogate pair, which JSON can escape and UTF-8 cannot hold, become question marks.
        """
        try:
            return json.loads(_encodable(self.body))
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _encodable(body: bytes) -> bytes:
    """The same JSON, with texts that UTF-8 can hold."""
    if not _SURROGATE.search(body):
        return body
    return json.dumps(json.loads(body), ensure_ascii=False).encode(errors="replace")


class CoreApi:
    """Requests to one Core. Use as an async context manager.

    `socket` is a forward to Core: then proxies in the worker's environment and the name in Core's certificate are
    ignored. `called` is the address that messages name.
    """

    def __init__(
        self,
        base_url: str,
        key: str = "",
        secret: str = "",
        *,
        socket: Path | None = None,
        called: str = "",
        timeout: timedelta = timedelta(seconds=10),
        whole: timedelta = _WHOLE_ANSWER,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._called = called or self.base_url
        self._secrets = tuple(s for s in (key, secret) if s)
        self._credentials = {"X-Api-Key": key, "X-Api-Secret": secret} if key and secret else {}
        self._whole = whole
        if socket is not None:
            transport = httpx2.AsyncHTTPTransport(uds=str(socket), verify=False)  # SSH proves the host
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            # A compressed answer could be small on the way and huge in memory.
            headers={"Accept-Encoding": "identity"},
            timeout=timeout.total_seconds(),
            transport=transport,
            trust_env=socket is None and not _is_loopback(self.base_url),
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
            if answer.status == 200:
                body = mapping(_json(answer, path))
                return LoginOptions(
                    local=bool(body.get("local")),
                    oidc=bool(body.get("oidc")),
                    github=bool(body.get("github")),
                    google=bool(body.get("google")),
                )
        raise CoreAnswered(
            f"{self.base_url} answers, but not as Komodo Core does", status=answer.status, hint="check [core].url"
        )

    async def open_version(self) -> str:
        """v2's `GET /version`, which needs no key; "" where there is no such route (v1: 404)."""
        answer = await self._send("GET", "/version", None, credentials=False)
        if answer.status != 200:
            return ""
        text = answer.body[:100].decode(errors="replace")
        found = re.fullmatch(r"\s*v?([0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*)\s*", text)
        return found.group(1) if found else ""

    # --- reading ------------------------------------------------------------------------------------------------------

    async def version(self) -> str:
        """Core's version without v. Needs a key on v1."""
        return await self.open_version() or str(mapping(await self.read("GetVersion")).get("version", "")).lstrip("v")

    async def caller(self) -> Caller:
        """Whose key this is: `GET /user` in v2, `POST /auth/GetUser` in v1."""
        answer = await self._send("GET", "/user", None)
        if answer.status in (404, 405):
            body = mapping(await self._call("POST", "/auth/GetUser", {}))
        else:
            body = mapping(self._checked(answer, "/user"))
        return Caller(username=str(body.get("username", "")), admin=bool(body.get("admin") or body.get("super_admin")))

    async def core_info(self) -> CoreInfo:
        """`GetCoreInfo`."""
        body = mapping(await self.read("GetCoreInfo"))
        return CoreInfo(
            title=str(body.get("title", "")),
            monitoring_interval=parse_interval(str(body.get("monitoring_interval", ""))),
            public_key=str(body.get("public_key") or ""),
        )

    async def list_servers(self) -> tuple[ServerView, ...]:
        """All Servers that this user sees, by name."""
        found = list_of(await self.read("ListServers", {"query": {}, "limit": 0}))
        return tuple(sorted((server_view(item) for item in found), key=lambda s: s.name))

    async def require_lists(self) -> None:
        """List every kind of resource. One document that Core cannot read fails a whole list. Raises CoreAnswered."""
        for kind in _RESOURCES:
            await self.read(f"List{kind}", {"query": {}, "limit": 0})

    async def list_updates(self, *, open_only: bool = False) -> tuple[Update, ...]:
        """The newest page of Updates; with `open_only` those queued or in progress."""
        query: dict[str, Any] = {"status": {"$in": ["Queued", "InProgress"]}} if open_only else {}
        body = mapping(await self.read("ListUpdates", {"query": query, "page": 0}))
        updates = tuple(update_view(item) for item in list_of(body.get("updates", [])))
        return tuple(u for u in updates if u.status != "Complete") if open_only else updates

    async def list_actions(self) -> tuple[ActionText, ...]:
        """Every Action with its script."""
        found = list_of(await self.read("ListFullActions", {"query": {}, "limit": 0}))
        return tuple(
            ActionText(
                id=object_id(item.get("_id")),
                name=str(item.get("name", "")),
                text=str(mapping(item.get("config")).get("file_contents") or ""),
            )
            for item in found
        )

    async def list_schedules(self) -> tuple[Schedule, ...]:
        """Every schedule of Procedures and Actions."""
        return tuple(
            Schedule(
                name=str(item.get("name", "")),
                kind=str(mapping(item.get("target")).get("type", "")),
                enabled=bool(item.get("enabled")),
                next_run=from_milliseconds(item.get("next_scheduled_run")),
                id=str(mapping(item.get("target")).get("id", "")),
                last_run=from_milliseconds(item.get("last_run_at")),
            )
            for item in list_of(await self.read("ListSchedules", {"limit": 0}))
        )

    async def server_stats_at(self, server: str) -> datetime | None:
        """When the stats that Core holds of this Server were made, by that server's clock; None when it holds none."""
        try:
            body = mapping(await self.read("GetSystemStats", {"server": server}))
        except CoreAnswered:
            return None
        return from_milliseconds(body.get("refresh_ts"))

    async def ask_agent(self, server: str) -> None:
        """Have Core send the agent a request. Raises CoreAnswered if the agent gives no answer, after 10 s.

        ListSecrets (names only) goes to the agent each time, and every agent can answer it. What Core says about
        containers and stats is what it noted at its last poll (v1.19.5, v2.3.2:bin/core/src/api/read/).
        """
        await self.read("ListSecrets", {"target": {"type": "Server", "id": server}})

    async def get_update(self, update: str) -> Update:
        """One Update by id."""
        return update_view(mapping(await self.read("GetUpdate", {"id": update})))

    # --- doing --------------------------------------------------------------------------------------------------------

    async def restart_stack(self, stack: str) -> Update:
        """Starts a restart of all services of a Stack; the Update tells how it goes."""
        return update_view(mapping(await self._call("POST", "/execute/RestartStack", {"stack": stack, "services": []})))

    async def stack_restarts(self, stack: str, since: datetime) -> tuple[Update, ...]:
        """Updates of restarts of this Stack that began at `since` or later, oldest first."""
        document = mapping(await self.read("GetStack", {"stack": stack}))
        query = {
            "operation": "RestartStack",
            "target.id": object_id(document.get("_id")),
            "start_ts": {"$gte": int(since.timestamp() * 1000)},
        }
        body = mapping(await self.read("ListUpdates", {"query": query, "page": 0}))
        return tuple(reversed([update_view(item) for item in list_of(body.get("updates", []))]))

    # --- writing ------------------------------------------------------------------------------------------------------

    async def server(self, name: str) -> KnownConnection:
        """`GetServer`: how Core reaches this Server."""
        document = mapping(await self.read("GetServer", {"server": name}))
        config = mapping(document.get("config"))
        return KnownConnection(
            id=object_id(document.get("_id")),
            address=str(config.get("address") or ""),
            external_address=str(config.get("external_address") or ""),
            public_key=str(mapping(document.get("info")).get("public_key") or ""),
        )

    async def pin_server_key(self, server: str, key: str) -> None:
        """From now on Core accepts only the agent with this key as this Server (v2)."""
        await self._call("POST", "/write/UpdateServerPublicKey", {"server": server, "public_key": key})

    async def set_server_address(self, server: str, address: str, external_address: str) -> None:
        """Where Core connects to; empty: the agent connects to Core. Other settings of the Server stay."""
        config = {"address": address, "external_address": external_address}
        await self._call("POST", "/write/UpdateServer", {"id": server, "config": config})

    # --- transport ----------------------------------------------------------------------------------------------------

    async def read(self, request: str, params: Mapping[str, Any] | None = None) -> Any:
        """`POST /read/<request>` with credentials. The parsed JSON."""
        return await self._call("POST", f"/read/{request}", dict(params or {}))

    async def _call(self, method: str, path: str, body: Any) -> Any:
        return self._checked(await self._send(method, path, body), path)

    async def _offers_login(self, path: str) -> bool:
        answer = await self._send("POST", path, {}, credentials=False)
        try:
            return answer.status == 200 and "local" in mapping(answer.json())
        except ValueError:
            return False

    async def _send(self, method: str, path: str, body: Any, *, credentials: bool = True) -> _Answer:
        headers = self._credentials if credentials else {}
        content = {} if body is None else {"json": body}
        try:
            async with (
                asyncio.timeout(self._whole.total_seconds()),
                self._http.stream(method, path, headers=headers, **content) as answer,
            ):
                return _Answer(answer.status_code, answer.headers, await self._body(answer, path))
        except TimeoutError:
            seconds = f"{self._whole.total_seconds():g} s"
            raise CoreUnreachable(
                f"Core at {self._called} did not finish its answer to {path} within {seconds}",
                hint="is Core's host overloaded, or the connection very slow? `docker logs` of Core's container",
            ) from None
        except httpx2.TransportError as error:
            raise CoreUnreachable(
                f"Core does not answer at {self._called}: {type(error).__name__} {self._clean(str(error))}".rstrip(),
                hint="is Core running? `docker ps` on its host; with [core].url: is the address right from the worker?",
            ) from None

    async def _body(self, answer: httpx2.Response, path: str) -> bytes:
        body = bytearray()
        if answer.headers.get("content-encoding", "identity") != "identity":
            return b""  # not asked for, so not decoded
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _LIMIT:
                raise CoreAnswered(
                    f"the answer of {self._called} to {path} is larger than {_LIMIT // 1024**2} MiB",
                    status=answer.status_code,
                    hint="check that [core].url leads to Komodo Core; left out, Core is reached through SSH",
                )
        return bytes(body)

    def _checked(self, answer: _Answer, path: str) -> Any:
        status = answer.status
        if status == 200:
            return _json(answer, path)
        words = self._clean(_describe(answer))
        what = f"Core answered {status} to {path}" + (f": {words}" if words else "")
        if status in (401, 403):
            raise CoreRefused(
                what,
                hint="check the API key and secret that the fleet file refers to, and that their user is enabled and "
                "an admin; this is not tried again, because Core locks out after a few failures",
            )
        if status == 429:
            raise CoreBusy(what, retry_after=_retry_after(answer, words))
        if 300 <= status < 400:
            what += "; something in front of Core (a proxy, a login wall) answered instead of it"
            raise CoreAnswered(what, status=status, hint="leave [core].url out: Core is then reached through SSH")
        raise CoreAnswered(what, status=status)

    def _clean(self, text: str) -> str:
        """One line without the key, cut after that: a part of a secret would not be recognized."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return single_line(text, _LONGEST_REASON)


def _describe(answer: _Answer) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    return join_error(body)


def _json(answer: _Answer, path: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise CoreAnswered(
            f"the answer to {path} is not JSON; something in front of Core (a proxy, a login wall) may have given it",
            status=answer.status,
            hint="leave [core].url out: Core is then reached through SSH",
        ) from None


def _retry_after(answer: _Answer, words: str) -> timedelta:
    header = answer.headers.get("retry-after", "")
    if re.fullmatch("[0-9]{1,6}", header):
        return timedelta(seconds=int(header))
    found = re.search(r"[Tt]ry again in ([0-9]{1,6})", words)
    return timedelta(seconds=int(found.group(1)) + 1) if found else _LOCK_OUT


def _is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    return host in ("localhost", "::1") or host.startswith("127.")
