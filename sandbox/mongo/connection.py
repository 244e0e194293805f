"""The state of one client of the simulated mongod, and its SCRAM-SHA-256 login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from sandbox.mongo.store import Document, Store

ITERATIONS = 4096


@dataclass(slots=True)
class Connection:
    """State of one client."""

    store: Store
    version: str
    auth: bool
    ferretdb: bool = False
    user: str = ""
    """Authenticated as; empty: not."""
    cursors: dict[int, tuple[str, list[Document]]] = field(default_factory=dict)
    scram: Scram | None = None


class Scram:
    """One SCRAM-SHA-256 conversation (RFC 7677)."""

    def __init__(self, database: str, passwords: dict[tuple[str, str], str]) -> None:
        self._database = database
        self._passwords = passwords
        self.user = ""
        self._auth = ""
        self._salted = b""
        self.done = False

    def first(self, payload: bytes) -> bytes:
        """The client's first message."""
        bare = payload.decode().split(",", 2)[2]
        fields = dict(part.split("=", 1) for part in bare.split(","))
        self.user = fields["n"].replace("=2C", ",").replace("=3D", "=")
        salt = hashlib.sha256(f"salt {self.user}".encode()).digest()[:28]
        password = self._passwords.get((self._database, self.user), secrets.token_hex(8))
        self._salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
        nonce = fields["r"] + base64.b64encode(secrets.token_bytes(18)).decode()
        answer = f"r={nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}"
        self._auth = f"{bare},{answer}"
        return answer.encode()

    def final(self, payload: bytes) -> bytes | None:
        """The client's proof; None when it is wrong."""
        text = payload.decode()
        without, _, proof = text.rpartition(",p=")
        auth = f"{self._auth},{without}".encode()
        client_key = hmac.digest(self._salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
        wanted = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if (self._database, self.user) not in self._passwords or not hmac.compare_digest(
            wanted, base64.b64decode(proof)
        ):
            return None
        server_key = hmac.digest(self._salted, b"Server Key", "sha256")
        self.done = True
        return b"v=" + base64.b64encode(hmac.digest(server_key, auth, "sha256"))
