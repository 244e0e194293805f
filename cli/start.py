"""start: begin the upgrade of a fleet, and follow it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.options import file_argument, output_option, timeout_option
from cli.output import on_terminal, run, say, wants_json
from cli.target import Target, load_file

if TYPE_CHECKING:
    from cli.session import Session
    from model.fleet import FleetSpec


@click.command("start")
@file_argument
@click.option("--detach", is_flag=True, help="Ask nothing: leave at the first gate (exit code 6).")
@click.option("--wait", is_flag=True, help="Ask nothing, but stay until the end; others answer the gates.")
@timeout_option
@output_option
def start_command(fleet_file: str | None, *, detach: bool, wait: bool, timeout: timedelta | None) -> None:
    """Begin the upgrade of a fleet. Nothing is changed before gate `core` is approved.

    On a terminal the gates are asked here; without one, the command leaves at the first gate with exit code 6 and says
    how to answer it. Ctrl-C leaves the watching, never the upgrade. Started again after an end, it goes on with what
    is not yet upgraded.

    \b
    Examples:
      komodo-upgrade start
      komodo-upgrade start prod.toml --detach      # then: komodo-upgrade approve prod --confirm prod
      komodo-upgrade start prod.toml --wait -o json > result.json
    """
    if detach and wait:
        raise click.UsageError("--detach leaves at a gate, --wait stays: give one of them")
    fleet = load_file(fleet_file)
    raise click.exceptions.Exit(
        run(_start(fleet, ask=on_terminal() and not (detach or wait), wait=wait, timeout=timeout))
    )


async def _start(fleet: FleetSpec, *, ask: bool, wait: bool, timeout: timedelta | None) -> int:
    from cli.aftermath import wait_for_servers
    from cli.follow import Follower, Manner
    from cli.session import open_session
    from cli.upgrade import Upgrade

    session = await open_session()
    await session.require_worker()
    await refuse_second(session, fleet.name)
    await wait_for_servers(session.client, fleet.name)
    await session.share_secrets(fleet)
    change = await begin(session, fleet)
    say(f"upgrade {change} of {fleet.name} to {fleet.target} has begun; nothing is changed before gate core")
    target = Target(fleet.name, fleet)
    manner = Manner(ask=ask and not wants_json(), leave_at_gate=not wait, timeout=timeout)
    return await Follower(Upgrade(session.client, fleet.name), target, manner).follow()


async def begin(session: Session, fleet: FleetSpec) -> str:
    """Start the workflow; returns the change. Raises UpgradeAlreadyRunning."""
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from cli.checking import stamp
    from cli.watching import end_watches
    from model.fleet import TASK_QUEUE, workflow_id
    from model.progress import UpgradeRequest
    from service.connection import actor

    request = UpgradeRequest(fleet=fleet, change=stamp(), requested_by=actor())
    try:
        await session.client.start_workflow(
            "UpgradeFleet",
            request,
            id=workflow_id(fleet.name),
            task_queue=TASK_QUEUE,
            memo={
                "fleet": fleet.name,
                "requested_by": request.requested_by,
                "target": fleet.target,
                "change": request.change,
            },
            static_summary=f"Komodo {fleet.name} to {fleet.target}",
        )
    except WorkflowAlreadyStartedError:
        await refuse_second(session, fleet.name)
        raise
    await end_watches(session.client, fleet.name)
    return request.change


async def refuse_second(session: Session, name: str) -> None:
    """Raises UpgradeAlreadyRunning with who, when, and how to look. Before anything of the worker is touched."""
    from cli.upgrade import Upgrade
    from model.errors import NoSuchUpgrade, UpgradeAlreadyRunning
    from model.plain import moment

    try:
        found = await Upgrade(session.client, name).describe()
    except NoSuchUpgrade:
        return
    if not found.is_running:
        return
    by = f" by {found.requested_by}" if found.requested_by else ""
    word = "being rolled back" if found.kind == "rollback" else "being upgraded"
    error = UpgradeAlreadyRunning(
        f"{name} is {word}: begun{by}, {moment(found.started_at)}",
        left="nothing was started",
        cure=f"komodo-upgrade status {name}; to follow it: komodo-upgrade watch {name}",
    )
    raise error
