"""The protocol between stand-in Core and stand-in agent, instead of Komodo's websocket and its Noise handshake.

Only stand-ins use it: HTTPS requests in which Core proves that it holds its private key. The agent sends an ephemeral
X25519 key, and Core answers with an HMAC under the shared secret. An agent that pins another key refuses, as a real one
does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http
import json
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sandbox.periphery.agent import CoreSide, Refusal, refused_websocket
from sandbox.periphery.config import AgentConfig

_PREFIX = bytes.fromhex("302a300506032b656e032100")


def raw(public: str) -> bytes:
    """The 32 bytes of `MCow…=`."""
    return base64.b64decode(public)[len(_PREFIX) :]


def proof(private: X25519PrivateKey, public: str, challenge: str) -> str:
    """HMAC of the challenge's id under the secret shared by both keys."""
    shared = private.exchange(X25519PublicKey.from_public_bytes(raw(public)))
    return hmac.new(shared, challenge.encode(), hashlib.sha256).hexdigest()


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # agents have self-signed certificates; Komodo does not check them
    return context


class RemoteAgent:
    """An agent at an address, with the interface that the sandbox's Core expects."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port or 8120}"
        self._place = (str(parts.hostname), parts.port or 8120)
        self.host = self._place[0]
        self.version = ""
        self.public_key = ""
        self.sessions: dict[str, str] = {}
        self.config = AgentConfig()
        self.started = 0.0
        self.private: X25519PrivateKey | None = None
        self.names: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        """Whether its port answers."""
        try:
            socket.create_connection(self._place, timeout=1.5).close()
        except OSError:
            return False
        return True

    def _ask(self, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.base + path, data, head)
        try:
            with urllib.request.urlopen(request, timeout=3, context=_context()) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, ValueError):
            return 0, None

    def request(self, passkey: str, _address: str) -> int:
        """A v1 Core asks for the version."""
        status, body = self._ask("/", {"type": "GetVersion", "params": {}}, {"Authorization": passkey})
        if status == 200:
            self.version = str(body["version"])
        return status

    def connect(self, core: CoreSide, url: str) -> Refusal | None:
        """Log in as a v2 Core. None: accepted."""
        status, challenge = self._ask("/standin/challenge", None)
        if status != 200:
            if not status:
                return refused_websocket(url, "IO error: Connection reset by peer (os error 104)")
            return refused_websocket(url, f"HTTP error: {status} {http.HTTPStatus(status).phrase}")
        assert self.private is not None
        login = {
            "id": challenge["id"], "server_id": core.server_id, "host": core.host, "public_key": core.public_key,
            "passkey": core.passkey, "url_host": core.url_host, "url": url,
            "proof": proof(self.private, challenge["public"], challenge["id"]),
        }  # fmt: skip
        status, answer = self._ask("/standin/login", login)
        if status != 200:
            return refused_websocket(url, f"HTTP error: {status or 500} Internal Server Error")
        if answer.get("error"):
            return Refusal(answer["error"], tuple(answer["trace"]))
        self.version, self.public_key = answer["version"], answer["public_key"]
        self.config.values.update(answer["settings"])
        self.sessions[core.host] = core.server_id
        self.names = {"host": core.host, "server_id": core.server_id}
        return None

    def alive(self) -> None:
        """End the session if the agent no longer knows it."""
        if self.sessions and self._ask("/standin/alive", self.names)[0] != 200:
            self.sessions.clear()

    def closed(self, core_host: str) -> None:
        """Close the session."""
        if self.sessions.pop(core_host, None):
            self._ask("/standin/bye", self.names)
