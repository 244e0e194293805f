"""start: start the upgrade of a fleet, and follow it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import StartTime, confirm_option, file_argument, limit_option, output_option, timeout_option
from cli.output import data, on_terminal, run, say, wants_json
from cli.target import Target, limited, load_file
from model.serialization import moment

if TYPE_CHECKING:
    from cli.follow import Mode
    from cli.session import Session
    from model.fleet.spec import FleetSpec
    from model.gates import GateKind
    from model.plan import ApprovedPlan


@click.command("start")
@file_argument
@limit_option
@click.option("--detach", is_flag=True, help="Do not ask: end at the first gate (exit code 6).")
@click.option("--wait", is_flag=True, help="Do not ask; wait until the upgrade ends. The gates are answered elsewhere.")
@click.option("--at", type=StartTime(), metavar="TIME", help='Begin then: "22:30", "2026-12-05 22:30 Europe/Berlin".')
@click.option(
    "--plan", "plan_file", type=click.Path(), metavar="FILE", help="Do exactly what `plan -o FILE` wrote, or refuse."
)
@confirm_option
@timeout_option
@output_option
def start_command(
    fleet_file: str | None,
    patterns: tuple[str, ...],
    *,
    detach: bool,
    wait: bool,
    at: datetime | None,
    plan_file: str | None,
    confirm: str,
    timeout: timedelta | None,
) -> None:
    """Start or continue the upgrade of a fleet. Nothing is changed before gate `core` is approved.

    On a terminal, this command asks at the gates. Without one, it ends at the first gate with exit code 6 and shows how
    to answer it. Ctrl-C ends the command, not the upgrade. After an upgrade has ended, `start` continues with what is
    not yet upgraded. --limit starts it for a part of the servers, with Core; those left out are unreachable from a new
    Core until a later `start`. With --confirm NAME, gate `core` is shown and approved; the other gates are not.

    With --plan, the hosts are surveyed again, and each one that differs from the plan of that file refuses the upgrade
    with its new diff, also when it is compared again before it is changed. Gate `core` still asks.

    With --at, no host is contacted before that time; `status` shows it, and `stop` ends the wait. A time without a zone
    is one of this machine. To approve in advance, set `window` under [rollout] in the fleet file instead: gates then
    open at once, and what was approved begins in the next maintenance window.

    \b
    Examples:
      komodo-upgrade start
      komodo-upgrade start prod.toml --detach      # then: komodo-upgrade approve prod --confirm prod
      komodo-upgrade start prod.toml --wait -o json > result.json
      komodo-upgrade start prod.toml --limit 'web-*' --limit db-1
      komodo-upgrade start prod.toml --plan plan.json
      komodo-upgrade start prod.toml --at 22:30 --detach
    """
    if detach and wait:
        raise click.UsageError("--detach ends at a gate, --wait does not: use one of them")
    fleet = limited(load_file(fleet_file), patterns)
    ask = on_terminal() and not (detach or wait)
    from cli.follow import Mode

    mode = Mode(
        ask=ask and not wants_json(), end_at_gate=not wait, confirmed=_confirmed(fleet.name, confirm), timeout=timeout
    )
    approved = _read_plan(plan_file, fleet) if plan_file else None
    raise click.exceptions.Exit(run(_start(fleet, mode, at, approved, detach=detach)))


def _read_plan(path: str, fleet: FleetSpec) -> ApprovedPlan:
    from cli.plan_file import read

    return read(Path(path).expanduser(), fleet)


async def _start(
    fleet: FleetSpec, mode: Mode, at: datetime | None, approved: ApprovedPlan | None, *, detach: bool
) -> int:
    from cli.follow import IN_PROGRESS, Follower, wait_for_servers
    from cli.session import open_session
    from service.client import Upgrade

    session = await open_session()
    await session.require_worker()
    await refuse_second(session, fleet.name)
    await wait_for_servers(session.client, fleet.name)
    await session.share_secrets(fleet)
    change = await begin(session, fleet, at, approved)
    say(f"upgrade {change} of {fleet.name} to {fleet.target} has begun; nothing is changed before gate core")
    if approved:
        say(f"it does what plan {approved.digest} says, or refuses")
    if at:
        say(f"no host is contacted before {moment(at)}")
        if detach:
            data({"change": change, "start_at": at}, change)
            return IN_PROGRESS
    return await Follower(Upgrade(session.client, fleet.name), Target(fleet.name, fleet), mode).follow()


def _confirmed(name: str, typed: str) -> GateKind | None:
    """Gate `core`, if its confirmation was given. Raises NotAccepted."""
    from model.gates import GateKind
    from service.answers import check_typed

    check_typed(name, typed)
    return GateKind.CORE if typed else None


async def begin(
    session: Session, fleet: FleetSpec, at: datetime | None = None, approved: ApprovedPlan | None = None
) -> str:
    """Start the workflow; returns the change. Raises UpgradeAlreadyRunning."""
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from model.fleet.spec import TASK_QUEUE, workflow_id
    from model.status import UpgradeRequest
    from service.connection import actor
    from service.history import end_watches
    from service.operation.search_attributes import for_start
    from service.requests import new_change
    from service.version import release

    request = UpgradeRequest(fleet=fleet, change=new_change(), requested_by=actor(), start_at=at, approved=approved)
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
                "release": release(),
            },
            static_summary=f"Komodo {fleet.name} to {fleet.target}",
            search_attributes=await for_start(session.client, fleet.name),
        )
    except WorkflowAlreadyStartedError:
        await refuse_second(session, fleet.name)
        raise
    await end_watches(session.client, fleet.name)
    return request.change


async def refuse_second(session: Session, name: str) -> None:
    """Raises UpgradeAlreadyRunning with who started the run and when. Called before the worker is changed."""
    from model.errors import NoSuchUpgrade, UpgradeAlreadyRunning
    from service.client import Upgrade

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
        residue="nothing was started",
        hint=f"komodo-upgrade status {name}; to follow it: komodo-upgrade watch {name}",
    )
    raise error
