"""init, check, plan: preparation of an upgrade. None of them changes a host."""

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
    from model.fleet.spec import FleetSpec
    from model.status import CheckResult

REFUSED, CHANGES, NOTHING = 4, 5, 0


@click.command("init")
@click.argument("path", default="fleet.toml", type=click.Path(), metavar="[PATH]")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@output_option
def init_command(path: str, *, force: bool) -> None:
    """Write a commented fleet.toml to PATH (default fleet.toml; "-" prints it).

    \b
    Examples:
      komodo-upgrade init
      komodo-upgrade init /srv/komodo/fleet.toml
      komodo-upgrade init - | less
    """
    from model.fleet.example import COMMENTED_EXAMPLE

    if path == "-":
        click.echo(COMMENTED_EXAMPLE, nl=False)
        return
    file = Path(path).expanduser()
    if file.exists() and not force:
        raise FleetFileError(f"{path} exists", residue="it was not changed", hint="--force overwrites it")
    try:
        file.write_text(COMMENTED_EXAMPLE, encoding="utf-8")
    except OSError as error:
        raise FleetFileError(f"{path}: {error.strerror}", hint="name a path that you may write") from None
    say(f"wrote {path}: enter your hosts, then run `komodo-upgrade check {path}`")
    data({"path": str(file.absolute())}, str(file))


@click.command("check")
@file_argument
@click.option(
    "--explain", metavar="CHECK", help="Explain a check by its id or code (KU012, alias-pair), and nothing else."
)
@timeout_option
@output_option
def check_command(fleet_file: str | None, timeout: timedelta | None, explain: str | None) -> None:
    """Survey every host through the worker and show everything that has to be solved first. Changes nothing.

    Secrets are resolved and SSH connections opened where the worker runs, as in the upgrade itself. Exit code 0: ready,
    or already current; 4: refused.

    \b
    Examples:
      komodo-upgrade check
      komodo-upgrade check prod.toml
      komodo-upgrade check prod.toml -o json | jq '.plan.servers[] | select(.reachable | not) | .name'
      komodo-upgrade check --explain KU012
    """
    if explain:
        _explain(explain)
        return
    from cli.plans import check_text

    fleet = load_file(fleet_file)
    result = run(_check(fleet, timeout))
    data(result, check_text(result.plan, fleet))
    raise click.exceptions.Exit(REFUSED if result.plan.refusals else NOTHING)


def _explain(name: str) -> None:
    from komodo.checks.all import find

    check = find(name)
    if check is None:
        hint = "findings show their codes; docs/checks.md lists all checks"
        raise click.UsageError(f"there is no check {name!r}: {hint}")
    data(check, str(check))


@click.command("plan")
@file_argument
@timeout_option
@output_option
def plan_command(fleet_file: str | None, timeout: timedelta | None) -> None:
    """Show what would be done: diffs without secrets, commands, order, rollback, and the plan's digest.

    Exit code 0: nothing to do; 4: refused; 5: there are changes. Gate `core` of `start` shows a plan with the same
    digest, as long as nothing changes in between.

    \b
    Examples:
      komodo-upgrade plan
      komodo-upgrade plan prod.toml | less -R
      komodo-upgrade plan prod.toml -o json > plan.json
    """
    from cli.plans import has_changes, plan_text

    fleet = load_file(fleet_file)
    result = run(_check(fleet, timeout))
    data(result, plan_text(result.plan, fleet))
    if result.plan.refusals:
        raise click.exceptions.Exit(REFUSED)
    raise click.exceptions.Exit(CHANGES if has_changes(result.plan) else NOTHING)


async def _check(fleet: FleetSpec, timeout: timedelta | None) -> CheckResult:
    from cli.session import open_session
    from service.requests import PATIENCE, check

    session = await open_session()
    await session.require_worker()
    await session.share_secrets(fleet)
    count = len(fleet.servers) + 1
    say(f"surveying {count} {'host' if count == 1 else 'hosts'} …")
    return await check(session.client, fleet, timeout=timeout or PATIENCE, say=say)
