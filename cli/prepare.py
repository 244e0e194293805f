"""init, check, plan: everything before an upgrade. Nothing here changes a host."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import file_argument, output_option, timeout_option
from cli.output import data, run, say
from cli.target import load_file
from model.errors import FleetFileError

if TYPE_CHECKING:
    from model.fleet import FleetSpec
    from model.progress import CheckResult

REFUSED, CHANGES, NOTHING = 4, 5, 0
LOOKING = timedelta(minutes=15)


@click.command("init")
@click.argument("path", default="fleet.toml", type=click.Path(), metavar="[PATH]")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@output_option
def init_command(path: str, *, force: bool) -> None:
    """Write a commented fleet.toml to PATH (default fleet.toml; "-" prints it).

    \b
    Examples:
      komodo-upgrade init
      komodo-upgrade init /srv/komodo/fleet.toml
      komodo-upgrade init - | less
    """
    from model.fleet_example import COMMENTED_EXAMPLE

    if path == "-":
        click.echo(COMMENTED_EXAMPLE, nl=False)
        return
    file = Path(path).expanduser()
    if file.exists() and not force:
        raise FleetFileError(f"{path} is there already", left="it was not touched", cure="--force overwrites it")
    try:
        file.write_text(COMMENTED_EXAMPLE, encoding="utf-8")
    except OSError as error:
        raise FleetFileError(f"{path}: {error.strerror}", cure="name a path that you may write") from None
    say(f"wrote {path}: fill in your hosts, then `komodo-upgrade check {path}`")
    data({"path": str(file.absolute())}, str(file))


@click.command("check")
@file_argument
@timeout_option
@output_option
def check_command(fleet_file: str | None, timeout: timedelta | None) -> None:
    """Look at every host through the worker and say all that stands in the way. Changes nothing.

    Secrets are resolved and SSH is tried where the worker runs, as in the upgrade itself. Exit code 0: ready or
    already current; 4: refused.

    \b
    Examples:
      komodo-upgrade check
      komodo-upgrade check prod.toml
      komodo-upgrade check prod.toml -o json | jq '.plan.servers[] | select(.reachable | not) | .name'
    """
    from cli.findings import check_text

    fleet = load_file(fleet_file)
    result = run(_look(fleet, timeout or LOOKING))
    data(result, check_text(result.plan, fleet))
    raise click.exceptions.Exit(REFUSED if result.plan.refusals else NOTHING)


@click.command("plan")
@file_argument
@timeout_option
@output_option
def plan_command(fleet_file: str | None, timeout: timedelta | None) -> None:
    """Show what would be done: masked diffs, commands, order, the way back, and the plan's digest.

    Exit code 0: nothing to do; 4: refused; 5: there are changes. Gate `core` of `start` is about a plan with the same
    digest, as long as no file changed in between.

    \b
    Examples:
      komodo-upgrade plan
      komodo-upgrade plan prod.toml | less -R
      komodo-upgrade plan prod.toml -o json > plan.json
    """
    from cli.findings import has_changes, plan_text

    fleet = load_file(fleet_file)
    result = run(_look(fleet, timeout or LOOKING))
    data(result, plan_text(result.plan, fleet))
    if result.plan.refusals:
        raise click.exceptions.Exit(REFUSED)
    raise click.exceptions.Exit(CHANGES if has_changes(result.plan) else NOTHING)


async def _look(fleet: FleetSpec, timeout: timedelta) -> CheckResult:
    from cli.checking import check
    from cli.session import open_session

    session = await open_session()
    await session.require_worker()
    await session.share_secrets(fleet)
    count = len(fleet.servers) + 1
    say(f"looking at {count} {'host' if count == 1 else 'hosts'} …")
    return await check(session.client, fleet, timeout=timeout)
