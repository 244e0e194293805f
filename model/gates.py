"""Gates, the decisions at them, and controls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SIGNAL_DECIDE = "decide"
"""Name of the signal and of the update that carry a Decision."""
SIGNAL_CONTROL = "control"
"""Name of the signal and of the update that carry a Control."""
MESSAGE_ID = "message-id"
"""Metadata of an authenticated payload: different for every message, the same when one is sent again."""
MADE_AT = "made-at"
"""Metadata of a client's authenticated payload: seconds since 1970."""
MADE_BY_RUN = "run"
"""Metadata of a worker's authenticated payload: the run that made it."""
FOR_RUN = "for-run"
"""Metadata of a decision or control: the run that it is meant for."""
REFUSED = "komodo-upgrade/refused"
"""Encoding of the marker that replaces a payload that was not authenticated."""
QUERY_PROGRESS = "progress"
QUERY_SERVER_PROGRESS = "server_progress"
QUERY_PLAN = "plan"
QUERY_RESULT = "result"
"""The present FleetResult, also of a run that was cancelled or terminated and therefore returned none."""
QUERY_PLAN_PAGE = "plan_page"
QUERY_RESULT_PAGE = "result_page"
"""The same in parts, by their numbers from 1 on: of a large fleet, `plan` and `result` have no details of servers."""


WARNINGS = "Warnings"
"""The topic of the plan's warnings: pages that show the plan next to the gate omit it."""


class GateKind(StrEnum):
    """The subject of a gate."""

    CORE = "core"
    WAVE = "wave"
    FAILURE = "failure"
    ROLLBACK = "rollback"


class Verdict(StrEnum):
    """Answers; every gate lists those that it takes."""

    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    ROLLBACK = "rollback"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A question that waits for a person. Ids never repeat: `core`, `wave/2`, `failure/web-3/2`, `rollback/1`."""

    id: str
    kind: GateKind
    question: str
    facts: tuple[str, ...]
    """The facts that a person needs to decide, one per line."""
    topics: tuple[tuple[str, int], ...] = ()
    """Headings of the facts, each with the number of facts below it, in order. Empty: no headings."""
    verdicts: tuple[Verdict, ...]
    opened_at: datetime
    plan_digest: str = ""
    """When set, a decision must name it (gates `core` and `rollback`)."""
    confirm: str = ""
    """When set, the fleet's name, which a person types (checked by the CLI)."""
    subject: str = ""
    """The server, wave or "core"."""

    def needs_name(self, verdict: Verdict) -> bool:
        """Whether the fleet's name must be typed for this answer."""
        return bool(self.confirm) and verdict is Verdict.APPROVE

    def command(self, verdict: Verdict, argument: str) -> str:
        """The command that gives this answer, also without a terminal. `argument` names the fleet."""
        words = ["komodo-upgrade", verdict.value]
        if argument:
            words.append(argument)
        words += [self.subject] if verdict is Verdict.ROLLBACK else ["--gate", self.id]
        if self.needs_name(verdict):
            words += ["--confirm", self.confirm]
        return " ".join(words)

    def by_topic(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The facts below their headings; facts without one come last, under ""."""
        found, place = [], 0
        for heading, count in self.topics:
            found.append((heading, self.facts[place : place + count]))
            place += count
        rest = self.facts[place:]
        return (*found, *([("", rest)] if rest else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One answer at one gate, as signal or as update."""

    gate: str
    verdict: Verdict
    actor: str
    reason: str = ""
    plan_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision that was accepted, and when."""

    decision: Decision
    at: datetime
    opened_at: datetime | None = None
    """When its gate was opened."""


class ControlVerb(StrEnum):
    """Controls that a person may send at any time."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """pause, resume, stop or rollback, as signal or as update."""

    verb: ControlVerb
    actor: str
    reason: str = ""
