"""list and report: what ran, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import fleet_argument, output_option
from cli.output import data, run, say, wants_json
from cli.target import Target, resolve
from model.errors import NoSuchUpgrade, UpgradeError

if TYPE_CHECKING:
    from model.progress import FleetResult
    from model.watch import WatchReport

NEWEST = 50


@click.command("list")
@click.option("--limit", default=NEWEST, show_default=True, help="At most this many, newest first.")
@output_option
def list_command(limit: int) -> None:
    """Upgrades and rollbacks, running and closed, newest first.

    \b
    Examples:
      komodo-upgrade list
      komodo-upgrade list -o json | jq -r '.[] | select(.status == "running") | .fleet'
    """
    rows = run(_rows(limit))
    data(rows, "\n".join(_line(row) for row in rows))
    if not rows:
        say("no upgrade is known yet; `komodo-upgrade start` begins one")


async def _rows(limit: int) -> list[dict[str, Any]]:
    from cli.session import open_session
    from model.plain import plain
    from service.upgrades import runs

    try:
        session = await open_session(only_existing=True)
    except NoSuchUpgrade:
        return []
    rows: list[dict[str, Any]] = []
    async for found in runs(session.client):
        rows.append({**plain(found), "state": await _state(session.client, found)})
        if len(rows) == limit:
            break
    return rows


async def _state(client: Any, found: Any) -> str:
    """How a closed run ended, in our words; what Temporal says where there is no result."""
    from cli.looking_back import result_of

    result = await result_of(client, found) if found.status == "completed" else None
    return result.state.value if result else str(found.status)


def _line(row: dict[str, Any]) -> str:
    when = str(row["started_at"])[:16].replace("T", " ")
    by = f"by {row['requested_by']}" if row["requested_by"] else ""
    return f"{row['fleet']:<20} {row['kind']:<9} {row['target']:<8} {row['state']:<20} {when} UTC  {by}".rstrip()


@click.command("report")
@fleet_argument
@click.option("--write", "folder", type=click.Path(), metavar="DIR", help="Write report.md and report.json there.")
@output_option
def report_command(arguments: tuple[str, ...], folder: str | None) -> None:
    """The report of the newest upgrade (or rollback) of a fleet: Markdown, or JSON with `-o json`.

    \b
    Examples:
      komodo-upgrade report
      komodo-upgrade report prod -o json | jq '.result.servers[] | {name, state}'
      komodo-upgrade report prod --write /srv/records
    """
    from model.report import render_json, render_markdown

    result, watch = run(_result(resolve(arguments)))
    if folder:
        paths = write(result, Path(folder).expanduser(), watch)
        data({"files": [str(path) for path in paths]}, "\n".join(str(path) for path in paths))
        return
    click.echo(render_json(result, watch) if wants_json() else render_markdown(result, watch), nl=wants_json())


async def _result(target: Target) -> tuple[FleetResult, WatchReport | None]:
    from cli.looking_back import result_of
    from cli.session import open_session
    from cli.upgrade import Upgrade
    from cli.watching import watch_of

    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    found = await upgrade.describe()
    if found.is_running:
        raise NoSuchUpgrade(
            f"the upgrade of {target.name} is still running: there is no report yet",
            cure=f"komodo-upgrade status {target.argument}".strip(),
        )
    result = await result_of(session.client, found) or await upgrade.result()
    return result, await watch_of(session.client, target.name, result.change)


def write(result: FleetResult, folder: Path, watch: WatchReport | None = None) -> list[Path]:
    """report.md and report.json; returns both paths. Raises UpgradeError."""
    from model.report import render_json, render_markdown

    texts = {folder / "report.md": render_markdown(result, watch), folder / "report.json": render_json(result, watch)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UpgradeError(f"{folder}: {error.strerror}", cure="name a folder that you may write") from None
    return list(texts)
