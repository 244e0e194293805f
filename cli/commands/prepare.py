"""init, discover, check, plan: preparation of an upgrade. None of them changes a host."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import file_argument, limit_option, output_option, plan_output_option, timeout_option
from cli.output import data, run, say, show_error
from cli.target import limited, load_file
from model.errors import FleetFileError, UpgradeError

if TYPE_CHECKING:
    from model.fleet.spec import FleetSpec
    from model.status import CheckResult

NOT_SENT, REFUSED, CHANGES, NOTHING = 3, 4, 5, 0
_TERRAFORM = {REFUSED: 1, CHANGES: 2, NOTHING: 0}
"""`terraform plan -detailed-exitcode`."""


@click.command("init")
@click.argument("path", default="fleet.toml", type=click.Path(), metavar="[PATH]")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@output_option
def init_command(path: str, *, force: bool) -> None:
    """Write a commented fleet.toml to PATH (default fleet.toml; "-" prints it).

    `komodo-upgrade discover` writes one with the servers that Core knows.

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
    say(
        f"wrote {path}: enter your hosts, then run `komodo-upgrade check {path}`; or enter [core] and [ssh] alone, and "
        f"`komodo-upgrade discover {path}` adds the servers that Core knows"
    )
    data({"path": str(file.absolute())}, str(file))


@click.command("discover")
@click.argument("path", default="fleet.toml", type=click.Path(), metavar="[PATH]")
@click.option("--core", metavar="HOST", help="New file: the host of Core, as SSH reaches it; left out: that of --url.")
@click.option("--url", metavar="URL", help="New file: Core's address; left out: through the SSH connection.")
@click.option("--api-key-env", metavar="NAME", help="New file: the variable that holds an admin's API key.")
@click.option("--api-secret-env", metavar="NAME", help="New file: the variable that holds the key's secret.")
@click.option("--name", metavar="NAME", help='New file: the name of the fleet; left out: "prod".')
@click.option("--user", metavar="NAME", help="New file: the remote user; left out: as ~/.ssh/config says.")
@click.option("--sudo", type=click.Choice(["passwordless", "none"]), help='New file: "none" where the user is root.')
@click.option(
    "--from", "source", type=click.Choice(["api", "database"]),
    help="Where Core's servers are read; left out: from the API if there is a key.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the file, or the changes of an existing one; write nothing.")
@click.option("--yes", is_flag=True, help="Write the changes of an existing file without asking.")
@timeout_option
@output_option
def discover_command(
    path: str, source: str | None, timeout: timedelta | None, *, dry_run: bool, yes: bool, **new: str | None
) -> None:
    """Write PATH (default fleet.toml; "-" prints it) with every enabled Server that Core knows. Changes no host.

    The Servers are read from Core's API, or from its database through SSH to Core's host alone. Each new host is
    surveyed for the kind of its agent; one that is not reached is written with a note that says what is missing. SSH
    host keys are verified: a note has the command for an unknown one.

    An existing file is extended with what its [core] and [ssh] reach: new servers are added, those that disappeared get
    a note, every other line stays. The changes are shown, and written after a confirmation. Notes are lines that begin
    with "# discover:"; each run writes them again.

    \b
    Examples:
      komodo-upgrade discover --core core.example.net                   # from the database, through SSH
      komodo-upgrade discover --url https://komodo.example.net --api-key-env KEY --api-secret-env SECRET
      komodo-upgrade discover prod.toml --dry-run                       # an existing file: only the changes
      komodo-upgrade discover prod.toml --yes -o json | jq '.servers[] | select(.problem != "")'

    \b
    Exit codes: 0 written, or nothing to change · 2 usage, or an error in the file · 5 changes shown, not written
    """
    from cli.discovery import discover

    raise click.exceptions.Exit(run(discover(path, source or "", new, timeout=timeout, dry_run=dry_run, yes=yes)))


@click.command("check")
@file_argument
@limit_option
@click.option(
    "--explain", metavar="CHECK", help="Explain a check by its id or code (KU012, alias-pair), and nothing else."
)
@timeout_option
@output_option
def check_command(
    fleet_file: str | None, patterns: tuple[str, ...], timeout: timedelta | None, explain: str | None
) -> None:
    """Survey every host through the worker and show everything that has to be solved first. Changes nothing.

    Secrets are resolved and SSH connections opened where the worker runs, as in the upgrade itself. Exit code 0: ready,
    or already current; 4: refused.

    \b
    Examples:
      komodo-upgrade check
      komodo-upgrade check prod.toml
      komodo-upgrade check prod.toml --limit 'web-*'
      komodo-upgrade check prod.toml -o json | jq '.plan.servers[] | select(.reachable | not) | .name'
      komodo-upgrade check --explain KU012
    """
    if explain:
        _explain(explain)
        return
    from cli.plans import check_text

    fleet = limited(load_file(fleet_file), patterns)
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
@limit_option
@click.option(
    "--detailed-exitcode", is_flag=True, help="End as Terraform does: 0 nothing to do, 2 changes, 1 refused or failed."
)
@click.option(
    "--patch",
    "patches",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write the edits of files in git work trees there, as patches for their repositories.",
)
@timeout_option
@plan_output_option
def plan_command(
    fleet_file: str | None,
    patterns: tuple[str, ...],
    patches: str | None,
    timeout: timedelta | None,
    output: str,
    *,
    detailed_exitcode: bool,
) -> None:
    """Show what would be done: diffs without secrets, commands, order, rollback, and the plan's digest.

    Exit code 0: nothing to do; 4: refused; 5: there are changes. Gate `core` of `start` shows a plan with the same
    digest, as long as nothing changes in between. With a file for -o, the plan is shown and written there, and `start
    --plan` does exactly that or refuses. The file holds no secret.

    \b
    Examples:
      komodo-upgrade plan
      komodo-upgrade plan prod.toml | less -R
      komodo-upgrade plan prod.toml --limit 'web-*'
      komodo-upgrade plan prod.toml -o json | jq .plan.waves
      komodo-upgrade plan prod.toml -o plan.json   # then: komodo-upgrade start prod.toml --plan plan.json
      komodo-upgrade plan prod.toml --detailed-exitcode
      komodo-upgrade plan prod.toml --patch patches/
    """
    try:
        code = _plan(limited(load_file(fleet_file), patterns), timeout, output, patches)
    except UpgradeError as error:
        if not detailed_exitcode:
            raise
        show_error(error)
        code = REFUSED
    raise click.exceptions.Exit(_TERRAFORM[code] if detailed_exitcode else code)


def _plan(fleet: FleetSpec, timeout: timedelta | None, output: str, patches: str | None) -> int:
    from cli import patches as git
    from cli.plan_file import write
    from cli.plans import has_changes, plan_text

    result = run(_check(fleet, timeout))
    data(result, plan_text(result.plan, fleet))
    if patches:
        for line in git.describe(git.write(Path(patches).expanduser(), result.plan)):
            say(line)
    if result.plan.refusals:
        if output.endswith(".json"):
            say(f"{output} was not written: the plan is refused")
        return REFUSED
    if output.endswith(".json"):
        write(Path(output).expanduser(), result.plan, result.found_at)
        say(f"wrote {output}: komodo-upgrade start --plan {output} does exactly this, or refuses")
    return CHANGES if has_changes(result.plan) else NOTHING


async def _check(fleet: FleetSpec, timeout: timedelta | None) -> CheckResult:
    from cli.session import open_session
    from service.requests import PATIENCE, check

    session = await open_session()
    await session.require_worker()
    await session.share_secrets(fleet)
    count = len(fleet.in_run) + 1
    say(f"surveying {count} {'host' if count == 1 else 'hosts'} …")
    return await check(session.client, fleet, timeout=timeout or PATIENCE, say=say)


@click.command("notify")
@file_argument
@click.option("--test", is_flag=True, required=True, help="Send a notice that asks nobody to do anything.")
@output_option
def notify_command(fleet_file: str | None, *, test: bool) -> None:  # noqa: ARG001 - says what will be done
    """Send a test notice by the command and the addresses under [notify], from the worker as in an upgrade.

    Exit code 0: every service took it; 3: some did not, and the message names them.

    \b
    Examples:
      komodo-upgrade notify --test
      komodo-upgrade notify prod.toml --test
    """
    fleet = load_file(fleet_file)
    if not (fleet.notify.command or fleet.notify.urls):
        raise FleetFileError("the fleet file has no [notify]", hint='add urls_file = "notify.urls" under [notify]')
    problems = run(_notify(fleet))
    for problem in problems:
        say(problem)
    data({"problems": problems}, "" if problems else "sent")
    raise click.exceptions.Exit(NOT_SENT if problems else NOTHING)


async def _notify(fleet: FleetSpec) -> tuple[str, ...]:
    from cli.session import open_session
    from model.steps import Notice
    from service.requests import send_notice

    session = await open_session()
    await session.require_worker()
    await session.share_secrets(fleet)
    text = f"This is how gates, failures and the end of upgrades of {fleet.name} are announced."
    # The first of the chosen events, so that it is sent.
    notice = Notice(
        fleet=fleet.name, event=fleet.notify.events[0], subject="a test notice", text=text, notify=fleet.notify
    )
    return (await send_notice(session.client, notice, fleet, say=say)).facts
