"""Periphery as a process: `periphery [--version] [--config-path FILE]…`, TLS on port 8120."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sandbox import keys
from sandbox.periphery.agent import Agent, CoreSide
from sandbox.periphery.log import line
from sandbox.web import Request, Response
from tests.e2e.standins.line import proof
from tests.e2e.standins.parts import Here, Server, locate, say

SILENCE = 4.0
"""Seconds without a request of Core after which its session ends."""
JSON = "application/json"


class RealAgent(Agent):
    """The sandbox's agent with a certificate that TLS can use."""

    __slots__ = ()

    def files(self) -> tuple[Path, Path]:
        """The paths of key and certificate; create the certificate if it is missing."""
        root = self._root()
        key = Path(str(self.config.get("ssl_key_file") or f"{root}/ssl/key.pem"))
        return key, Path(str(self.config.get("ssl_cert_file") or f"{root}/ssl/cert.pem"))

    def _certificate(self) -> None:
        key, cert = self.files()
        if key.is_file() and cert.is_file():
            return
        span = "generate_self_signed_ssl_certs"
        if self.major == 1:
            self.say(line("INFO", "Generating certs...", ansi=True, span=span, target="periphery::ssl"), "stdout")
        key.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=localhost",
             "-keyout", str(key), "-out", str(cert)],
            check=True, capture_output=True,
        )  # fmt: skip
        if self.major == 1:
            self.say(line("INFO", "✅ SSL Certs generated", ansi=True, span=span, target="periphery::ssl"), "stdout")


class Doors:
    """Answers the requests on the port."""

    def __init__(self, agent: RealAgent) -> None:
        self.agent = agent
        self._challenges: dict[str, X25519PrivateKey] = {}
        self._heard: dict[str, float] = {}

    async def answer(self, request: Request) -> Response:
        """Answer one request of a v1 Core, a v2 Core or any other client."""
        agent, path = self.agent, request.path.partition("?")[0]
        if agent.major == 1:
            return self._v1(request)
        if agent._blocked(request.peer):
            return Response(401)
        if request.method == "GET" and path == "/version":
            return Response(200, agent.version.encode(), "text/plain; charset=utf-8")
        if request.method == "GET" and path == "/standin/challenge":
            return self._challenge()
        if request.method == "POST" and path.startswith("/standin/"):
            return self._of_core(path.rpartition("/")[2], json.loads(request.body or b"{}"), request.peer)
        return Response(405)

    def _v1(self, request: Request) -> Response:
        status = self.agent.request(request.headers.get("authorization", ""), request.peer)
        if status != 200:
            body = {"error": "request was not sent with passkey", "trace": []}
            return Response(status, json.dumps(body).encode(), JSON)
        if request.method != "POST":
            return Response(405)
        return Response(200, json.dumps({"version": self.agent.version}).encode(), JSON)

    def _challenge(self) -> Response:
        key, name = X25519PrivateKey.generate(), secrets.token_hex(16)
        self._challenges[name] = key
        body = {"id": name, "public": keys.public_text(key.public_key())}
        return Response(200, json.dumps(body).encode(), JSON)

    def _of_core(self, verb: str, body: dict[str, Any], peer: str) -> Response:
        host = str(body.get("host", ""))
        if verb == "alive":
            known = self.agent.sessions.get(host) == body.get("server_id")
            if known:
                self._heard[host] = time.monotonic()
            return Response(200 if known else 410)
        if verb == "bye":
            self.agent.closed(host)
            return Response(200)
        key = self._challenges.pop(str(body.get("id")), None)
        if verb != "login" or key is None:
            return Response(405)
        if body["proof"] != proof(key, body["public_key"], body["id"]):
            return Response(500)
        side = CoreSide(
            server_id=body["server_id"], host=host, public_key=body["public_key"], passkey=body["passkey"],
            address=peer, url_host=body["url_host"],
        )  # fmt: skip
        refusal = self.agent.connect(side, body["url"])
        if refusal and refusal.error.startswith("Failed to connect to websocket"):
            status = int(refusal.trace[0].split(" ")[2])
            return Response(status)
        reported: dict[str, Any] = {"version": self.agent.version, "public_key": self.agent.public_key}
        reported["settings"] = {
            k: self.agent.config.get(k, False) for k in ("disable_terminals", "disable_container_terminals")
        }
        if refusal:
            reported = {"error": refusal.error, "trace": list(refusal.trace)}
        else:
            self._heard[host] = time.monotonic()
        return Response(200, json.dumps(reported).encode(), JSON)

    async def close_lost_sessions(self) -> None:
        """End the sessions of a Core that was killed without closing them."""
        while True:
            await asyncio.sleep(0.5)
            for host in list(self.agent.sessions):
                if time.monotonic() - self._heard.get(host, 0) > SILENCE:
                    self.agent.closed(host)


async def serve(version: str, argv: list[str]) -> int:
    """Run until SIGTERM."""
    here = Here()
    agent = RealAgent(
        world=here.world, host=here.name, version=version, argv=argv, env=dict(os.environ), say=say, address="",
        locate=locate,
    )  # fmt: skip
    code = agent.start()
    if code is not None:
        return code
    doors = Doors(agent)
    context = None
    if agent.config.get("ssl_enabled", True):
        key, cert = agent.files()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
    server = Server(doors.answer, context)
    try:
        await server.start("", agent.config.port)
    except OSError as error:
        print(f"Error: failed to bind: {error}", file=sys.stderr)
        return 1
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    watch = asyncio.ensure_future(doors.close_lost_sessions())
    await ended.wait()
    watch.cancel()
    await server.stop()
    await agent.stop()
    return 0


def main(version: str) -> int:
    """Run the program. Returns its exit code."""
    if sys.argv[1:2] in (["--version"], ["-V"]):
        print(f"periphery {version}")
        return 0
    return asyncio.run(serve(version, sys.argv[1:]))
