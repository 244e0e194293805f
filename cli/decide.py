"""approve, reject, retry, skip: answers at the gate that is open."""

from __future__ import annotations

import click

from cli.options import confirm_option, output_option, reason_option, servers_argument
from cli.output import data, run
from cli.target import Target, resolve
from model.decisions import Verdict


def _gate_option(command: click.decorators.FC) -> click.decorators.FC:
    text = "Answer only this gate; needed where there is no terminal to ask."
    return click.option("--gate", default="", metavar="ID", help=text)(command)


def _yes_option(command: click.decorators.FC) -> click.decorators.FC:
    text = "Do not ask again. Never enough for the gates core and rollback."
    return click.option("--yes", "-y", is_flag=True, help=text)(command)


@click.command("approve")
@servers_argument
@_gate_option
@click.option("--plan", "digest", default="", metavar="DIGEST", help="Approve only a plan with this digest.")
@confirm_option
@reason_option
@_yes_option
@output_option
def approve_command(
    arguments: tuple[str, ...], gate: str, digest: str, confirm: str, reason: str, *, yes: bool
) -> None:
    """Open the gate that an upgrade waits at, after showing its facts and its question.

    The gates `core` and `rollback` want the fleet's name typed (--confirm NAME where there is no terminal). The answer
    is bound to the gate and to the plan that were shown: it opens no other.

    \b
    Examples:
      komodo-upgrade approve
      komodo-upgrade approve prod --confirm prod
      komodo-upgrade approve prod --gate wave/2 --reason "web-1 looked at"

    \b
    With Temporal's own tool:
      temporal workflow signal --workflow-id komodo-upgrade/prod --name decide \\
        --input '{"gate": "wave/2", "verdict": "approve", "actor": "alice"}'
    """
    answer = _answer(Verdict.APPROVE, gate=gate, reason=reason, confirm=confirm, yes=yes, digest=digest)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("reject")
@servers_argument
@_gate_option
@reason_option
@_yes_option
@output_option
def reject_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Say no at a gate: at `core` nothing is changed; at a wave the rollout stops there.

    \b
    Example:
      komodo-upgrade reject prod --gate core --reason "not tonight"
    """
    answer = _answer(Verdict.REJECT, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("retry")
@servers_argument
@_gate_option
@reason_option
@_yes_option
@output_option
def retry_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Try the failed server again that an upgrade waits for.

    \b
    Examples:
      komodo-upgrade retry web-3
      komodo-upgrade retry prod web-3 --yes
    """
    answer = _answer(Verdict.RETRY, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("skip")
@servers_argument
@_gate_option
@reason_option
@_yes_option
@output_option
def skip_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Go on without the failed server; it stays as it is and is named in the report.

    \b
    Example:
      komodo-upgrade skip web-3 --reason "to be replaced on Friday"
    """
    answer = _answer(Verdict.SKIP, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


def _answer(
    verdict: Verdict, *, gate: str, reason: str, confirm: str = "", yes: bool = False, digest: str = ""
) -> dict[str, object]:
    # As plain values: the module with Answer imports Temporal, which --help shall not pay for.
    return {"verdict": verdict, "gate": gate, "reason": reason, "confirm": confirm, "yes": yes, "digest": digest}


async def _decide(target: Target, flags: dict[str, object]) -> int:
    from cli import gates
    from cli.session import open_session
    from cli.upgrade import Upgrade
    from model.errors import NoWorker

    answer = gates.Answer(**flags)  # type: ignore[arg-type]
    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    await upgrade.describe()
    try:
        progress = await upgrade.progress()
    except NoWorker as error:
        return await gates.blind(upgrade, answer, target, error)
    gate = gates.check(progress.gate, answer, target)
    if not gates.confirm(gate, answer, target):
        return 1
    accepted = await gates.send(upgrade, gate, answer.verdict, answer.reason)
    record = {"gate": gate.id, "verdict": answer.verdict, "stored_only": accepted.stored_only}
    data(record, f"{gate.id}: {answer.verdict.value}")
    return 0
