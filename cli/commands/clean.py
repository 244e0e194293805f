"""clean: remove run folders that no rollback needs from the hosts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.options import confirm_option, fleet_argument, output_option
from cli.output import bad, data, faint, on_terminal, prompting, run, say, strong, wants_json
from cli.target import Target, resolve
from model.errors import NotAccepted
from model.text.outside import terminal

if TYPE_CHECKING:
    from model.cleanup import FolderRow
    from model.fleet.spec import FleetSpec
    from model.run_folders import CleanResult, FleetFolders, Unwanted

NOT_CONFIRMED, INCOMPLETE = 5, 3


@click.command("clean")
@fleet_argument
@click.option("--change", default="", metavar="STAMP", help="Only the folders of this upgrade.")
@click.option("--include-needed", "also_needed", is_flag=True, help="Also those that a rollback needs.")
@confirm_option
@output_option
def clean_command(arguments: tuple[str, ...], change: str, *, also_needed: bool, confirm: str) -> None:
    """Remove the run folders of finished upgrades from the hosts, with their dumps and the containers of old images.

    Shows sizes and ages, then asks for the fleet's name. Folders that a rollback may still need are kept: on every host
    the newest upgrade in place. No other command removes these folders. The copies next to the configs (….bak_v1) are
    kept.

    \b
    Examples:
      komodo-upgrade clean fleet.toml                              # shows them, then asks
      komodo-upgrade clean prod --confirm prod -o json
      komodo-upgrade clean prod --change 20261123T221500Z --include-needed
    """
    raise click.exceptions.Exit(
        run(_clean(resolve(arguments), change=change, also_needed=also_needed, confirm=confirm))
    )


async def _clean(target: Target, *, change: str, also_needed: bool, confirm: str) -> int:
    from cli.commands.start import refuse_second
    from cli.follow import wait_for_servers
    from cli.session import open_session
    from model.cleanup import rows, unwanted
    from service.history import fleet_for
    from service.requests import folders, remove_folders

    session = await open_session(only_existing=target.fleet is None)
    fleet = await fleet_for(session.client, target.name, target.fleet)
    await refuse_second(session, fleet.name)
    await session.require_worker()
    await wait_for_servers(session.client, fleet.name)
    await session.share_secrets(fleet)
    say("reading the run folders on the hosts …")
    seen = await folders(session.client, fleet, brief=True)
    found = rows(seen, change)
    going = unwanted(found, also_needed=also_needed)
    if not wants_json():
        for line in _lines(fleet, seen, found, going):
            click.echo(terminal(line))
    if not going:
        data({"folders": found, "removed": []}, "nothing to remove")
        return 0
    if not _confirmed(fleet, confirm):
        data({"folders": found, "removed": []}, f"nothing was removed; to remove them, add --confirm {fleet.name}")
        return NOT_CONFIRMED
    result = await remove_folders(session.client, fleet, going)
    bad_hosts = [host for host in result.hosts if host.problem]
    text = "\n".join(_reported(result))
    data({"folders": found, "removed": result.hosts}, text)
    return INCOMPLETE if bad_hosts else 0


def _confirmed(fleet: FleetSpec, confirm: str) -> bool:
    if confirm:
        if confirm != fleet.name:
            raise NotAccepted(
                f"--confirm {confirm} is not the name of this fleet ({fleet.name})", residue="nothing was removed"
            )
        return True
    if not on_terminal() or wants_json():
        return False
    with prompting():
        return bool(click.prompt(f"type the fleet's name ({fleet.name}) to remove them", err=True) == fleet.name)


def _lines(
    fleet: FleetSpec, seen: FleetFolders, found: tuple[FolderRow, ...], going: tuple[Unwanted, ...]
) -> list[str]:
    from model.serialization import span
    from workflows.runtime.messages import size

    now = datetime.now(UTC)
    goes = {(one.name, change) for one in going for change in one.changes}
    wide = max((len(row.name) for row in found), default=0)
    lines = [strong(f"run folders of {fleet.name}")]
    for row in found:
        age = row.age(now)
        old = f"{span(age)} old" if age is not None else "unfinished"
        what = f"{row.version} → {row.target}" if row.version else ""
        todo = bad("remove") if (row.name, row.change) in goes else "keep  "
        why = f" ({row.needed})" if row.needed else ""
        lines.append(
            f"  {todo}  {row.name:<{wide}}  {row.change}  {size(row.bytes):>9}  {old:<13}  {what:<16}  {row.state}{why}"
        )
    lost = [host for host in (seen.core, *seen.servers) if host.problem]
    lines += [f"  {bad('✗')} {host.name} cannot be read: {host.problem}" for host in lost]
    total = sum(row.bytes for row in found if (row.name, row.change) in goes)
    if goes:
        lines.append(
            f"{len(goes)} folders, {size(total)}, with the containers and images that they keep for a rollback"
        )
    if any(row.needed and (row.name, row.change) in goes for row in found):
        lines.append(bad("a rollback needs some of these: without them, none will be possible"))
    lines.append(faint("the copies next to the configs (….bak_v1) are kept"))
    return lines


def _reported(result: CleanResult) -> list[str]:
    lines = []
    for host in result.hosts:
        lines += [f"  {host.name}: removed {what}" for what in host.removed]
        if host.problem:
            lines.append(f"  {bad('✗')} {host.name}: {host.problem}")
    return lines or ["nothing was left to remove"]
