"""A gate as a person sees it, and as a person answers it."""

from __future__ import annotations

from dataclasses import dataclass

import click

from cli.output import careful, on_terminal, prompting, say, strong
from cli.target import Target
from cli.upgrade import Accepted, Upgrade
from model.decisions import Decision, Gate, Verdict
from model.errors import NotAccepted, NoWorker
from service.connection import actor

_COMMANDS = {
    Verdict.APPROVE: "approve",
    Verdict.REJECT: "reject",
    Verdict.RETRY: "retry",
    Verdict.SKIP: "skip",
    Verdict.ROLLBACK: "rollback",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the flags of a deciding command say."""

    verdict: Verdict
    gate: str = ""
    reason: str = ""
    confirm: str = ""
    yes: bool = False
    digest: str = ""


def show(gate: Gate, target: Target, *, commands: bool = True) -> None:
    """Question, facts, and (where nobody is asked right here) the commands that answer it, on stderr."""
    say()
    say(f"{careful('waiting at gate')} {strong(gate.id)}: {gate.question}")
    say_facts(gate)
    for verdict in gate.verdicts if commands else ():
        say(f"    {command(gate, verdict, target)}")


def say_facts(gate: Gate) -> None:
    """One bullet each; lines of one fact stay together."""
    for fact in gate.facts:
        say("  • " + fact.replace("\n", "\n    "))


def command(gate: Gate, verdict: Verdict, target: Target) -> str:
    """The line that gives this answer without a terminal too."""
    words = ["komodo-upgrade", _COMMANDS[verdict]]
    if target.argument:
        words.append(target.argument)
    if verdict is Verdict.ROLLBACK:
        words.append(gate.subject)
    else:
        words += ["--gate", gate.id]
    if gate.confirm and verdict is Verdict.APPROVE:
        words += ["--confirm", gate.confirm]
    return " ".join(words)


def ask(gate: Gate, target: Target) -> tuple[Verdict, str] | None:
    """Ask on the terminal: the verdict and a typed confirmation. None: leave it open."""
    show(gate, target, commands=False)
    with prompting():
        return _asked(gate, target)


def _asked(gate: Gate, target: Target) -> tuple[Verdict, str] | None:
    words = {verdict.value: verdict for verdict in gate.verdicts}
    while True:
        text = click.prompt(f"{'/'.join(words)} (or later)", default="later", show_default=False, err=True)
        word = text.strip().lower()
        if word in {"later", "l"}:
            return None
        if word in words:
            break
        say(f"  one of: {', '.join(words)}, later")
    verdict = words[word]
    if verdict is Verdict.APPROVE and gate.confirm:
        typed = click.prompt(f"type the fleet's name ({gate.confirm}) to go on", err=True).strip()
        if typed != gate.confirm:
            say("  that is another name: nothing was sent")
            return _asked(gate, target)
    return verdict, word


async def send(upgrade: Upgrade, gate: Gate, verdict: Verdict, reason: str = "") -> Accepted:
    """Send the decision for exactly this gate and this plan."""
    decision = Decision(gate=gate.id, verdict=verdict, actor=actor(), reason=reason, plan_digest=gate.plan_digest)
    accepted = await upgrade.decide(decision)
    tell(accepted, f"gate {gate.id}: {verdict.value}")
    return accepted


def tell(accepted: Accepted, what: str) -> None:
    """How it went in."""
    if accepted.stored_only:
        say(f"{careful('stored')} {what}; no worker answered within 10 s, it takes effect when one is back")
    else:
        say(f"accepted: {what}")


def check(gate: Gate | None, answer: Answer, target: Target) -> Gate:
    """The gate that this answer is for. Raises NotAccepted, or UsageError where a flag is missing."""
    look = f"komodo-upgrade status {target.argument}".strip()
    if gate is None:
        raise NotAccepted("no gate is open: the upgrade waits for nobody", cure=look)
    if answer.gate and answer.gate != gate.id:
        raise NotAccepted(f"gate {answer.gate} is not open; the upgrade waits at {gate.id}", cure=look)
    if target.servers and gate.subject not in target.servers:
        named = ", ".join(target.servers)
        raise NotAccepted(
            f"the open gate {gate.id} is about {gate.subject or 'the fleet'}, not about {named}", cure=look
        )
    if answer.digest and gate.plan_digest and answer.digest != gate.plan_digest:
        raise NotAccepted(
            f"the plan has changed: you name {answer.digest}, gate {gate.id} is about {gate.plan_digest}",
            left="nothing was approved",
            cure=f"read the new one: `komodo-upgrade plan {target.argument}`".replace(" `", "`"),
        )
    if answer.verdict not in gate.verdicts:
        takes = ", ".join(verdict.value for verdict in gate.verdicts)
        raise NotAccepted(f"gate {gate.id} does not take {answer.verdict.value}; it takes {takes}", cure=look)
    return gate


def confirm(gate: Gate, answer: Answer, target: Target) -> bool:
    """The typed yes. False: the person changed their mind. Raises UsageError where nobody can be asked."""
    needs_name = bool(gate.confirm) and answer.verdict is Verdict.APPROVE
    if needs_name and answer.confirm:
        if answer.confirm != gate.confirm:
            raise NotAccepted(
                f"--confirm {answer.confirm} is not the name of this fleet ({gate.confirm})", left="nothing was sent"
            )
        return True
    if needs_name:
        if not on_terminal():
            raise click.UsageError(f"no terminal to ask: type --confirm {gate.confirm}")
        show(gate, target, commands=False)
        with prompting():
            typed = click.prompt(f"type the fleet's name ({gate.confirm}) to approve", err=True).strip()
        if typed != gate.confirm:
            say("that is another name: nothing was sent")
        return bool(typed == gate.confirm)
    if answer.gate or answer.yes:
        return True
    if not on_terminal():
        raise click.UsageError(f"no terminal to ask: name the gate, --gate {gate.id}")
    show(gate, target, commands=False)
    with prompting():
        return click.confirm(f"{answer.verdict.value}?", err=True)


async def blind(upgrade: Upgrade, answer: Answer, target: Target, why: NoWorker) -> int:
    """No worker can show the gate: a decision that names gate (and plan) is stored all the same."""
    if not answer.gate:
        raise NoWorker(
            f"{why.what}: the open gate cannot be shown",
            left="nothing was sent",
            cure=f"{why.cure}; or name the gate (--gate ID, for core and rollback also --plan DIGEST and --confirm)",
        )
    needs_more = answer.verdict is Verdict.APPROVE and answer.gate.split("/")[0] in {"core", "rollback"}
    if needs_more and (answer.confirm != target.name or not answer.digest):
        raise click.UsageError(f"gate {answer.gate} wants --plan DIGEST and --confirm {target.name}")
    decision = Decision(
        gate=answer.gate,
        verdict=answer.verdict,
        actor=actor(),
        reason=answer.reason,
        plan_digest=answer.digest,
    )
    tell(await upgrade.decide(decision), f"gate {answer.gate}: {answer.verdict.value}")
    return 0
