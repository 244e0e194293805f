"""pause, resume, stop: what a person may say at any time."""

from __future__ import annotations

import click

from cli.options import fleet_argument, output_option, reason_option
from cli.output import data, run
from cli.target import Target, resolve
from model.decisions import Control, ControlVerb


@click.command("pause")
@fleet_argument
@reason_option
@output_option
def pause_command(arguments: tuple[str, ...], reason: str) -> None:
    """Begin nothing new until `resume`; steps in progress go on to their end.

    \b
    Example:
      komodo-upgrade pause prod --reason "network maintenance until 23:30"
    """
    run(_say(resolve(arguments), ControlVerb.PAUSE, reason))


@click.command("resume")
@fleet_argument
@reason_option
@output_option
def resume_command(arguments: tuple[str, ...], reason: str) -> None:
    """Go on after `pause`.

    \b
    Example:
      komodo-upgrade resume prod
    """
    run(_say(resolve(arguments), ControlVerb.RESUME, reason))


@click.command("stop")
@fleet_argument
@reason_option
@output_option
def stop_command(arguments: tuple[str, ...], reason: str) -> None:
    """End the upgrade: the server in the middle finishes or undoes itself, what is done stays.

    Servers that were not begun stay on v1 and out of v2 Core's sight until a later `start` goes on with them. To put
    everything back instead: `komodo-upgrade rollback`.

    \b
    Example:
      komodo-upgrade stop prod --reason "enough for tonight"
    """
    run(_say(resolve(arguments), ControlVerb.STOP, reason))


async def _say(target: Target, verb: ControlVerb, reason: str) -> None:
    from cli import gates
    from cli.session import open_session
    from cli.upgrade import Upgrade
    from service.connection import actor

    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    await upgrade.describe()
    accepted = await upgrade.control(Control(verb=verb, actor=actor(), reason=reason))
    gates.tell(accepted, verb.value)
    data({"verb": verb, "stored_only": accepted.stored_only}, verb.value)
