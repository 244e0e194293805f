"""Core's HTTP API: statuses, keys and types as v1.19.5, v2.0.0 and v2.3.2 gave them to the same requests."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import bson

from sandbox.komodo_core import execute, read
from sandbox.komodo_core.core import Core
from sandbox.komodo_core.errors import ApiError
from sandbox.web import Request, Response

JSON = "application/json"
ATTEMPTS, WINDOW = 5, 15.0
"""auth_rate_limit_* of v2."""


def plain(value: Any) -> Any:
    """BSON values as Komodo's JSON shows them."""
    if isinstance(value, bson.ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


class CoreApi:
    """Routes of one Core."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def answer(self, request: Request) -> Response:
        """One request."""
        try:
            return await self._route(request)
        except ApiError as error:
            return Response(error.status, json.dumps(error.body).encode(), JSON)

    async def _route(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        v1 = self.core.major == 1
        if request.method == "GET":
            if path == "/version" and not v1:
                return Response(200, self.core.version.encode(), "text/plain; charset=utf-8")
            if path == "/user":
                return Response(405) if v1 else _json(read.user(self.core, self._user(request)))
            return Response(404)
        if request.method != "POST":
            return Response(405)
        parts = path.strip("/").split("/")
        if parts[0] == "auth":
            return self._auth(parts[1:], request)
        if parts[0] in {"read", "write", "execute", "user"} and not (parts[0] == "user" and not v1):
            user = self._user(request)
            kind, params = _body(parts, request)
            return _json(await self._call(parts[0], kind, params, user))
        return Response(405)

    async def _call(self, group: str, kind: str, params: dict[str, Any], user: str) -> Any:
        if group == "read":
            handler = read.HANDLERS.get(kind)
            if handler is None or kind in read.gone(self.core.major):
                raise ApiError(f"unknown variant `{kind}`, expected one of `GetVersion`, `GetCoreInfo`, …")
            return handler(self.core, params)
        return execute.run(self.core, group, kind, params, user)

    # --- who is calling -----------------------------------------------------------------------------------------------

    def _user(self, request: Request) -> str:
        core = self.core
        token = request.headers.get("authorization", "")
        if token:
            known = core.tokens.get(token if core.major == 1 else token.removeprefix("Bearer "))
            if known is None:
                raise ApiError("failed to verify jwt", "InvalidToken", status=500 if core.major > 1 else 401)
            return known
        key, secret = request.headers.get("x-api-key", ""), request.headers.get("x-api-secret", "")
        if not key and not secret:
            if core.major == 1:
                text = "must attach either AUTHORIZATION header with jwt OR pass X-API-KEY and X-API-SECRET"
                raise ApiError(text, status=401)
            raise ApiError("Invalid client credentials", status=401)
        caller = self._caller(request)
        self._limit(caller)
        found = core.store.find(core.database, "ApiKey", {"key": key})
        if not found or secret != core.world.api_secret:
            raise self._denied(caller)
        return str(found[0]["user_id"])

    def _caller(self, request: Request) -> str:
        forwarded = request.headers.get("x-forwarded-for", "").split(",")[0].strip()
        return forwarded or request.headers.get("x-real-ip", "") or request.peer

    def _recent(self, caller: str) -> list[float]:
        now = time.monotonic()
        recent = [t for t in self.core.failures.get(caller, []) if now - t < WINDOW]
        self.core.failures[caller] = recent
        return recent

    def _limit(self, caller: str) -> None:
        core = self.core
        if core.major == 1 or core.env.get("KOMODO_AUTH_RATE_LIMIT_DISABLED", "").lower() == "true":
            return
        recent = self._recent(caller)
        if len(recent) >= ATTEMPTS:
            left = WINDOW - (time.monotonic() - recent[0])
            raise ApiError(f"Too many attempts | Try again in {int(left) + 1} seconds", status=429)

    def _denied(self, caller: str) -> ApiError:
        if self.core.major == 1:
            return ApiError("invalid api credentials", status=401)
        recent = self._recent(caller)
        recent.append(time.monotonic())
        left = ATTEMPTS - len(recent)
        return ApiError(f"Invalid user credentials | You have {left} attempts remaining", status=401)

    # --- logging in ---------------------------------------------------------------------------------------------------

    def _auth(self, parts: list[str], request: Request) -> Response:
        core = self.core
        wanted = parts[:1] if core.major == 1 else parts[1:2] if parts[:1] == ["login"] else []
        kind = wanted[0] if wanted and len(parts) == (1 if core.major == 1 else 2) else ""
        if kind == "GetLoginOptions":
            options = {"local": True, "github": False, "google": False, "oidc": False, "registration_disabled": False}
            if core.major >= 2 and core.minor >= 2:
                options["oidc_auto_redirect"] = False
            return _json(options)
        if kind == "LoginLocalUser":
            return self._login(json.loads(request.body or b"{}"))
        if kind == "GetUser" and core.major == 1:
            return _json(read.user(core, self._user(request)))
        return Response(405)

    def _login(self, body: dict[str, Any]) -> Response:
        core = self.core
        name = str(body.get("username", ""))
        found = core.store.find(core.database, "User", {"username": name})
        if not found or str(body.get("password", "")) != core.env.get("KOMODO_INIT_ADMIN_PASSWORD", "changeme"):
            raise ApiError("invalid credentials", status=500 if core.major == 1 else 401)
        token = f"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.{secrets.token_urlsafe(60)}"
        user = core.tokens[token] = str(found[0]["_id"])
        if core.major == 1:
            return _json({"user_id": user, "jwt": token})
        span = 'LoginLocalUser{ip="127.0.0.1"}'
        core.log("INFO", f'User logged in user_id="{user}" username="{name}"', span=span)
        return _json({"type": "Jwt", "data": {"jwt": token}})


def _body(parts: list[str], request: Request) -> tuple[str, dict[str, Any]]:
    """`POST /read {"type","params"}` or `POST /read/Type {params}`."""
    if JSON not in request.headers.get("content-type", ""):
        raise ApiError("Expected request with `Content-Type: application/json`", status=415)
    try:
        body = json.loads(request.body or b"{}")
    except ValueError as error:
        raise ApiError("Failed to parse the request body as JSON", str(error), status=400) from error
    if len(parts) > 1:
        return parts[1], body
    return str(body.get("type", "")), body.get("params") or {}


def _json(value: Any) -> Response:
    return Response(200, json.dumps(plain(value)).encode(), JSON)
