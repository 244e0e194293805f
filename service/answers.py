"""The rules of an answer at a gate, the same for the command line and the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import NotAccepted
from model.gates import Decision, Gate, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person answers, and what it is for."""

    verdict: Verdict
    gate: str = ""
    """The gate that was shown; empty: the open one."""
    reason: str = ""
    confirm: str = ""
    """The fleet's name as it was typed."""
    yes: bool = False
    digest: str = ""
    """The plan that was shown; empty: that of the gate."""


def check(gate: Gate | None, answer: Answer, argument: str, servers: tuple[str, ...] = ()) -> Gate:
    """The gate, if this answer is for it. `argument` is the fleet in commands. Raises NotAccepted."""
    status = f"komodo-upgrade status {argument}".strip()
    if gate is None:
        raise NotAccepted("no gate is open: the upgrade is not waiting for an answer", hint=status)
    if answer.gate and answer.gate != gate.id:
        raise NotAccepted(f"gate {answer.gate} is not open; the upgrade waits at {gate.id}", hint=status)
    if servers and gate.subject not in servers:
        named = ", ".join(servers)
        raise NotAccepted(
            f"the open gate {gate.id} is about {gate.subject or 'the fleet'}, not about {named}", hint=status
        )
    if answer.digest and gate.plan_digest and answer.digest != gate.plan_digest:
        raise NotAccepted(
            f"the plan has changed: you named {answer.digest}, gate {gate.id} is about {gate.plan_digest}",
            residue="nothing was approved",
            hint=f"read it again: komodo-upgrade plan {argument}".rstrip(),
        )
    if answer.verdict not in gate.verdicts:
        takes = ", ".join(verdict.value for verdict in gate.verdicts)
        raise NotAccepted(f"gate {gate.id} does not take {answer.verdict.value}; it takes {takes}", hint=status)
    return gate


def check_name(gate: Gate, answer: Answer) -> None:
    """Raises NotAccepted if the fleet's name is needed and another one, or none, was typed."""
    if gate.needs_name(answer.verdict) and answer.confirm != gate.confirm:
        what = f"{answer.confirm} is not the name of this fleet" if answer.confirm else "the fleet's name is missing"
        raise NotAccepted(f"{what} ({gate.confirm})", residue="nothing was sent")


def check_typed(name: str, typed: str) -> None:
    """Raises NotAccepted if another name than the fleet's was typed in advance."""
    if typed and typed != name:
        raise NotAccepted(f"{typed} is not the name of this fleet ({name})", residue="nothing was started")


def decision(gate: Gate, answer: Answer, actor: str) -> Decision:
    """The message for this gate and this plan."""
    return Decision(
        gate=gate.id,
        verdict=answer.verdict,
        actor=actor,
        reason=answer.reason,
        plan_digest=answer.digest or gate.plan_digest,
    )
