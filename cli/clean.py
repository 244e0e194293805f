"""clean: remove the run folders on the hosts that no rollback needs any more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.options import confirm_option, fleet_argument, output_option
from cli.output import bad, data, faint, on_terminal, prompting, run, say, strong, wants_json
from cli.target import Target, resolve
from model.errors import NotAccepted

if TYPE_CHECKING:
    from cli.session import Session
    from model.cleaning import FolderRow
    from model.fleet import FleetSpec
    from model.folders import CleanResult, FleetFolders, Unwanted

NOT_CONFIRMED, INCOMPLETE = 5, 3


@click.command("clean")
@fleet_argument
@click.option("--change", default="", metavar="STAMP", help="Only the folders of this upgrade.")
@click.option("--give-up-the-way-back", "also_needed", is_flag=True, help="Also those that a rollback would need.")
@confirm_option
@output_option
def clean_command(arguments: tuple[str, ...], change: str, *, also_needed: bool, confirm: str) -> None:
    """Remove what finished upgrades left on the hosts: run folders, dumps, and the containers that hold old images.

    Shows sizes and ages first, then wants the fleet's name. What a rollback may still need stays: the newest upgrade in
    place, on every host. Nothing else removes these folders, ever. The copies beside the configs (….bak_v1) stay too.

    \b
    Examples:
      komodo-upgrade clean fleet.toml                              # shows, then asks
      komodo-upgrade clean prod --confirm prod -o json
      komodo-upgrade clean prod --change 20261123T221500Z --give-up-the-way-back
    """
    raise click.exceptions.Exit(
        run(_clean(resolve(arguments), change=change, also_needed=also_needed, confirm=confirm))
    )


async def _clean(target: Target, *, change: str, also_needed: bool, confirm: str) -> int:
    from cli.aftermath import wait_for_servers
    from cli.looking_back import fleet_meant, folders
    from cli.session import open_session
    from cli.start import refuse_second
    from model.cleaning import rows, unwanted

    session = await open_session(only_existing=target.fleet is None)
    fleet = await fleet_meant(session.client, target)
    await refuse_second(session, fleet.name)
    await session.require_worker()
    await wait_for_servers(session.client, fleet.name)
    await session.share_secrets(fleet)
    say("looking at the folders on the hosts …")
    seen = await folders(session.client, fleet, brief=True)
    found = rows(seen, change)
    going = unwanted(found, also_needed=also_needed)
    if not wants_json():
        for line in _lines(fleet, seen, found, going):
            click.echo(line)
    if not going:
        data({"folders": found, "removed": []}, "nothing to remove")
        return 0
    if not _confirmed(fleet, confirm):
        data({"folders": found, "removed": []}, f"nothing was removed; to do it: --confirm {fleet.name}")
        return NOT_CONFIRMED
    result = await _remove(session, fleet, going)
    bad_hosts = [host for host in result.hosts if host.problem]
    text = "\n".join(_told(result))
    data({"folders": found, "removed": result.hosts}, text)
    return INCOMPLETE if bad_hosts else 0


async def _remove(session: Session, fleet: FleetSpec, going: tuple[Unwanted, ...]) -> CleanResult:
    from cli.checking import stamp
    from cli.looking_back import short
    from model.folders import CleanRequest, CleanResult
    from service.connection import actor

    request = CleanRequest(fleet=fleet, change=stamp(), unwanted=going, requested_by=actor())
    result: CleanResult = await short(session.client, "CleanFleet", request, CleanResult, fleet)
    return result


def _confirmed(fleet: FleetSpec, confirm: str) -> bool:
    if confirm:
        if confirm != fleet.name:
            raise NotAccepted(
                f"--confirm {confirm} is not the name of this fleet ({fleet.name})", left="nothing was removed"
            )
        return True
    if not on_terminal() or wants_json():
        return False
    with prompting():
        return bool(click.prompt(f"type the fleet's name ({fleet.name}) to remove them", err=True) == fleet.name)


def _lines(
    fleet: FleetSpec, seen: FleetFolders, found: tuple[FolderRow, ...], going: tuple[Unwanted, ...]
) -> list[str]:
    from model.plain import span
    from workflows.texts import size

    now = datetime.now(UTC)
    goes = {(one.name, change) for one in going for change in one.changes}
    wide = max((len(row.name) for row in found), default=0)
    lines = [strong(f"run folders of {fleet.name}")]
    for row in found:
        age = row.age(now)
        old = f"{span(age)} old" if age is not None else "unfinished"
        what = f"{row.version} → {row.target}" if row.version else ""
        fate = bad("goes ") if (row.name, row.change) in goes else "stays"
        why = f" ({row.needed})" if row.needed else ""
        lines.append(
            f"  {fate}  {row.name:<{wide}}  {row.change}  {size(row.bytes):>9}  {old:<13}  {what:<16}  {row.state}{why}"
        )
    lost = [host for host in (seen.core, *seen.servers) if host.problem]
    lines += [f"  {bad('✗')} {host.name} cannot be looked at: {host.problem}" for host in lost]
    total = sum(row.bytes for row in found if (row.name, row.change) in goes)
    if goes:
        lines.append(f"{len(goes)} folders, {size(total)}, with the containers and images kept for their way back")
    if any(row.needed and (row.name, row.change) in goes for row in found):
        lines.append(bad("with these goes the way back of what is in place: no rollback will be possible"))
    lines.append(faint("the copies beside the configs (….bak_v1) stay"))
    return lines


def _told(result: CleanResult) -> list[str]:
    lines = []
    for host in result.hosts:
        lines += [f"  {host.name}: removed {what}" for what in host.removed]
        if host.problem:
            lines.append(f"  {bad('✗')} {host.name}: {host.problem}")
    return lines or ["nothing was there any more"]
