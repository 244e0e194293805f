"""approve, reject, retry, skip: answers at the open gate. pause, resume, stop: possible at any time."""

from __future__ import annotations

import click

from cli.options import confirm_option, fleet_argument, gate_option, output_option, reason_option, servers_argument
from cli.output import data, run
from cli.target import Target, resolve
from model.gates import Control, ControlVerb, Verdict


def _yes_option(command: click.decorators.FC) -> click.decorators.FC:
    text = "Do not ask again. Not sufficient for the gates core and rollback."
    return click.option("--yes", "-y", is_flag=True, help=text)(command)


@click.command("approve")
@servers_argument
@gate_option
@click.option("--plan", "digest", default="", metavar="DIGEST", help="Approve only a plan with this digest.")
@confirm_option
@reason_option
@_yes_option
@output_option
def approve_command(
    arguments: tuple[str, ...], gate: str, digest: str, confirm: str, reason: str, *, yes: bool
) -> None:
    """Open the gate that an upgrade waits at, after showing its facts and its question.

    The gates `core` and `rollback` require the fleet's name (--confirm NAME without a terminal). The answer is bound to
    the gate and the plan that were shown: it opens no other gate.

    \b
    Examples:
      komodo-upgrade approve
      komodo-upgrade approve prod --confirm prod
      komodo-upgrade approve prod --gate wave/2 --reason "web-1 checked"

    \b
    With Temporal's own tool:
      temporal workflow signal --workflow-id komodo-upgrade/prod --name decide \\
        --input '{"gate": "wave/2", "verdict": "approve", "actor": "alice"}'
    """
    answer = _answer(Verdict.APPROVE, gate=gate, reason=reason, confirm=confirm, yes=yes, digest=digest)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("reject")
@servers_argument
@gate_option
@reason_option
@_yes_option
@output_option
def reject_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Refuse at a gate: at `core`, nothing is changed; at a wave, the rollout stops.

    \b
    Example:
      komodo-upgrade reject prod --gate core --reason "postponed to Friday"
    """
    answer = _answer(Verdict.REJECT, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("retry")
@servers_argument
@gate_option
@reason_option
@_yes_option
@output_option
def retry_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Try the failed server that an upgrade waits for again.

    \b
    Examples:
      komodo-upgrade retry web-3
      komodo-upgrade retry prod web-3 --yes
    """
    answer = _answer(Verdict.RETRY, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


@click.command("skip")
@servers_argument
@gate_option
@reason_option
@_yes_option
@output_option
def skip_command(arguments: tuple[str, ...], gate: str, reason: str, *, yes: bool) -> None:
    """Continue without the failed server. It stays as it is, and the report names it.

    \b
    Example:
      komodo-upgrade skip web-3 --reason "to be replaced on Friday"
    """
    answer = _answer(Verdict.SKIP, gate=gate, reason=reason, yes=yes)
    raise click.exceptions.Exit(run(_decide(resolve(arguments, servers=True), answer)))


def _answer(
    verdict: Verdict, *, gate: str, reason: str, confirm: str = "", yes: bool = False, digest: str = ""
) -> dict[str, object]:
    # Plain values: the module of Answer imports Temporal, which would slow down --help.
    return {"verdict": verdict, "gate": gate, "reason": reason, "confirm": confirm, "yes": yes, "digest": digest}


async def _decide(target: Target, flags: dict[str, object]) -> int:
    from cli import gates
    from cli.session import open_session
    from model.errors import NoWorker
    from service import answers
    from service.client import Upgrade

    answer = answers.Answer(**flags)  # type: ignore[arg-type]
    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    await upgrade.describe()
    try:
        progress = await upgrade.progress()
    except NoWorker as error:
        return await gates.send_unseen(upgrade, answer, target, error)
    gate = answers.check(progress.gate, answer, target.argument, target.servers)
    if not gates.confirm(gate, answer, target):
        return 1
    accepted = await gates.send(upgrade, gate, answer)
    record = {"gate": gate.id, "verdict": answer.verdict, "stored_only": accepted.stored_only}
    data(record, f"{gate.id}: {answer.verdict.value}")
    return 0


# --- controls ---------------------------------------------------------------------------------------------------------


@click.command("pause")
@fleet_argument
@reason_option
@output_option
def pause_command(arguments: tuple[str, ...], reason: str) -> None:
    """Start no further step until `resume`. Steps in progress continue to their end.

    \b
    Example:
      komodo-upgrade pause prod --reason "network maintenance until 23:30"
    """
    run(_control(resolve(arguments), ControlVerb.PAUSE, reason))


@click.command("resume")
@fleet_argument
@reason_option
@output_option
def resume_command(arguments: tuple[str, ...], reason: str) -> None:
    """Continue after `pause`.

    \b
    Example:
      komodo-upgrade resume prod
    """
    run(_control(resolve(arguments), ControlVerb.RESUME, reason))


@click.command("stop")
@fleet_argument
@reason_option
@output_option
def stop_command(arguments: tuple[str, ...], reason: str) -> None:
    """End the upgrade. A server in progress completes or rolls back; completed servers stay upgraded.

    The other servers stay on v1, unmanaged by Core v2, until a later `start` continues with them. To return everything
    to the old version instead: `komodo-upgrade rollback`.

    \b
    Example:
      komodo-upgrade stop prod --reason "maintenance window is over"
    """
    run(_control(resolve(arguments), ControlVerb.STOP, reason))


async def _control(target: Target, verb: ControlVerb, reason: str) -> None:
    from cli import gates
    from cli.session import open_session
    from service.client import Upgrade
    from service.connection import actor

    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    await upgrade.describe()
    accepted = await upgrade.control(Control(verb=verb, actor=actor(), reason=reason))
    gates.report(accepted, verb.value)
    data({"verb": verb, "stored_only": accepted.stored_only}, verb.value)
