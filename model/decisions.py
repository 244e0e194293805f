"""Gates, and what people say at them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SIGNAL_DECIDE = "decide"
"""Name of the signal and of the update that carry a Decision."""
SIGNAL_CONTROL = "control"
"""Name of the signal and of the update that carry a Control."""
QUERY_PROGRESS = "progress"
QUERY_SERVER_PROGRESS = "server_progress"
QUERY_PLAN = "plan"
QUERY_RESULT = "result"
"""The FleetResult as it stands: also of a run that was cancelled or terminated and so returned none."""


class GateKind(StrEnum):
    """What a gate is about."""

    CORE = "core"
    WAVE = "wave"
    FAILURE = "failure"
    ROLLBACK = "rollback"


class Verdict(StrEnum):
    """Answers. Which ones a gate takes is written on the gate."""

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
    """What an informed person needs, one line each."""
    verdicts: tuple[Verdict, ...]
    opened_at: datetime
    plan_digest: str = ""
    """When set, a decision must name it (gates `core` and `rollback`)."""
    confirm: str = ""
    """When set, the fleet's name, which a person types (checked by the CLI)."""
    subject: str = ""
    """The server, wave or "core"."""


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


class ControlVerb(StrEnum):
    """What a person may say at any time."""

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
