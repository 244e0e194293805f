"""Gates on a terminal: shown, asked about, answered."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import Any

import click

from cli.output import careful, on_terminal, prompting, say, strong
from cli.target import Target
from model.errors import NoWorker
from model.gates import Decision, Gate, Verdict
from service import answers
from service.answers import Answer
from service.client import Accepted, Upgrade
from service.connection import actor

_LONG_PATH = re.compile(r"(?<!sh )(?<!\S)/\S{48,}")
_WRAP: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def show(gate: Gate, target: Target, *, commands: bool = True) -> None:
    """Print question and facts to stderr; with `commands`, also the command for each answer."""
    say()
    say(f"{careful('waiting at gate')} {strong(gate.id)}: {gate.question}")
    say_facts(gate)
    for verdict in gate.verdicts if commands else ():
        say(f"    {gate.command(verdict, target.argument)}")


def say_facts(gate: Gate) -> None:
    """Print the facts by topic, one bullet each. On a terminal they are wrapped, and long paths are shortened."""
    for topic, facts in gate.by_topic():
        if topic:
            say(f"  {strong(topic)}")
        for fact in facts:
            for line in _bullet(fact, _width()):
                say(line)


def _width() -> int:
    """Of the terminal; 0: there is none."""
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else 0


def _bullet(fact: str, width: int) -> list[str]:
    """Lines with a hanging indent; `width` 0: as they are."""
    lines = fact.split("\n")
    if width:
        lines = [part for line in lines for part in textwrap.wrap(_shortened(line), max(width - 4, 40), **_WRAP)]
    return [("  • " if place == 0 else "    ") + line for place, line in enumerate(lines)]


def _shortened(line: str) -> str:
    """A long path keeps its end; commands stay whole, because they are copied. `status -o json` has all of it."""
    return _LONG_PATH.sub(lambda path: "…/" + "/".join(path[0].split("/")[-2:]), line)


def ask(gate: Gate, target: Target) -> Answer | None:
    """Ask on the terminal for the verdict and a typed confirmation. None: leave the gate open."""
    show(gate, target, commands=False)
    with prompting():
        return _prompt(gate, target)


def _prompt(gate: Gate, target: Target) -> Answer | None:
    known = {verdict.value: verdict for verdict in gate.verdicts}
    while True:
        text = click.prompt(f"{'/'.join(known)} (or later)", default="later", show_default=False, err=True)
        word = text.strip().lower()
        if word in {"later", "l"}:
            return None
        if word in known:
            break
        say(f"  one of: {', '.join(known)}, later")
    verdict = known[word]
    if gate.needs_name(verdict):
        typed = click.prompt(f"type the fleet's name ({gate.confirm}) to continue", err=True).strip()
        if typed != gate.confirm:
            say("  the name does not match: nothing was sent")
            return _prompt(gate, target)
    return Answer(verdict=verdict, confirm=gate.confirm)


async def send(upgrade: Upgrade, gate: Gate, answer: Answer) -> Accepted:
    """Send the answer for this gate and this plan."""
    accepted = await upgrade.decide(answers.decision(gate, answer, actor()))
    report(accepted, f"gate {gate.id}: {answer.verdict.value}")
    return accepted


def report(accepted: Accepted, what: str) -> None:
    """Print how a message was delivered."""
    if accepted.stored_only:
        say(f"{careful('stored')} {what}; no worker answered within 10 s, so it takes effect when one runs again")
    else:
        say(f"accepted: {what}")


def confirm(gate: Gate, answer: Answer, target: Target) -> bool:
    """Ask for the typed confirmation. False: it was refused. Raises UsageError if there is no terminal to ask on."""
    if gate.needs_name(answer.verdict):
        if answer.confirm:
            answers.check_name(gate, answer)
            return True
        if not on_terminal():
            raise click.UsageError(f"there is no terminal to ask on: add --confirm {gate.confirm}")
        show(gate, target, commands=False)
        with prompting():
            typed = click.prompt(f"type the fleet's name ({gate.confirm}) to approve", err=True).strip()
        if typed != gate.confirm:
            say("the name does not match: nothing was sent")
        return bool(typed == gate.confirm)
    if answer.gate or answer.yes:
        return True
    if not on_terminal():
        raise click.UsageError(f"there is no terminal to ask on: add --gate {gate.id}")
    show(gate, target, commands=False)
    with prompting():
        return click.confirm(f"{answer.verdict.value}?", err=True)


async def send_unseen(upgrade: Upgrade, answer: Answer, target: Target, why: NoWorker) -> int:
    """Store a decision although no worker can show the gate. It has to name the gate (and the plan)."""
    if not answer.gate:
        raise NoWorker(
            f"{why.what}: the open gate cannot be shown",
            residue="nothing was sent",
            hint=f"{why.hint}; or add --gate ID (for core and rollback also --plan DIGEST and --confirm NAME)",
        )
    needs_more = answer.verdict is Verdict.APPROVE and answer.gate.split("/")[0] in {"core", "rollback"}
    if needs_more and (answer.confirm != target.name or not answer.digest):
        raise click.UsageError(f"gate {answer.gate} needs --plan DIGEST and --confirm {target.name}")
    decision = Decision(
        gate=answer.gate, verdict=answer.verdict, actor=actor(), reason=answer.reason, plan_digest=answer.digest
    )
    report(await upgrade.decide(decision), f"gate {answer.gate}: {answer.verdict.value}")
    return 0
