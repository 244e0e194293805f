"""Who is logged in: sessions in memory, the link that works once, and the token that each form carries."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from time import monotonic

LONGEST = 12 * 3600.0
"""Seconds that a session lives."""
_MOST = 500


@dataclass(frozen=True, slots=True)
class Session:
    """One browser."""

    id: str
    actor: str
    ends: float


@dataclass(slots=True)
class Sessions:
    """All of one dashboard. They end with its process."""

    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _open: dict[str, Session] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)
    """Actor by token that was not used yet."""

    def link(self, actor: str) -> str:
        """A token that opens one session for this person."""
        token = secrets.token_urlsafe(32)
        self._links[_digest(token)] = actor
        return token

    def enter(self, token: str) -> Session | None:
        """The session that this link opens; None: it was used already, or never existed."""
        actor = self._links.pop(_digest(token), None)
        return None if actor is None else self.begin(actor)

    def begin(self, actor: str) -> Session:
        """A new session."""
        session = Session(secrets.token_urlsafe(32), actor, monotonic() + LONGEST)
        self._forget_old()
        self._open[_digest(session.id)] = session
        return session

    def find(self, given: str) -> Session | None:
        """The session of this cookie."""
        session = self._open.get(_digest(given)) if given else None
        return session if session and session.ends > monotonic() else None

    def end(self, given: str) -> None:
        """Log out."""
        self._open.pop(_digest(given), None)

    def form_token(self, identity: str) -> str:
        """Proves that a form came from a page of this session (or, behind a proxy, of this user)."""
        return hmac.new(self._key, identity.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, identity: str, given: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(self.form_token(identity).encode(), given.encode())

    def _forget_old(self) -> None:
        now = monotonic()
        self._open = {key: one for key, one in self._open.items() if one.ends > now}
        while len(self._open) >= _MOST:
            self._open.pop(next(iter(self._open)))


def _digest(token: str) -> str:
    """What is kept and looked up: the time of a search by digest does not reveal how much of a token is right."""
    return hashlib.sha256(token.encode()).hexdigest()
