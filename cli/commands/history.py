"""list and report: runs and their results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import fleet_argument, output_option
from cli.output import data, run, say, wants_json
from cli.target import Target, resolve
from model.errors import NoSuchUpgrade, UpgradeError

if TYPE_CHECKING:
    from model.status import FleetResult
    from model.watch import WatchReport

NEWEST = 50


@click.command("list")
@click.option("--limit", default=NEWEST, show_default=True, help="At most this many, newest first.")
@output_option
def list_command(limit: int) -> None:
    """List upgrades and rollbacks, running and closed, newest first.

    \b
    Examples:
      komodo-upgrade list
      komodo-upgrade list -o json | jq -r '.[] | select(.status == "running") | .fleet'
      komodo-upgrade list -o json | jq -r '.[] | select(.indexed.gate != "") | [.fleet, .indexed.gate] | @tsv'
    """
    rows = run(_rows(limit))
    data(rows, "\n".join(_line(row) for row in rows))
    if not rows:
        say("no upgrade is known; `komodo-upgrade start` starts one")


async def _rows(limit: int) -> list[dict[str, Any]]:
    from cli.session import open_session
    from model.serialization import plain
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
    """The final state of a closed run, the phase or gate of a running one; Temporal's status if neither is known."""
    from service.history import result_of

    if found.is_running and found.indexed.gate:
        return f"waiting at {found.indexed.gate}"
    if found.is_running and found.indexed.phase:
        return str(found.indexed.phase)

    result = await result_of(client, found) if found.status == "completed" else None
    return result.state.value if result else str(found.status)


def _line(row: dict[str, Any]) -> str:
    when = str(row["started_at"])[:16].replace("T", " ")
    by = f"by {row['requested_by']}" if row["requested_by"] else ""
    failed = ", ".join(row["indexed"]["failed"]) if row["status"] == "running" else ""
    about = f"{by}  see: {failed}" if failed else by
    return f"{row['fleet']:<20} {row['kind']:<9} {row['target']:<8} {row['state']:<20} {when} UTC  {about}".rstrip()


@click.command("report")
@fleet_argument
@click.option("--write", "folder", type=click.Path(), metavar="DIR", help="Write report.md and report.json there.")
@click.option("--html", "page", type=click.Path(), metavar="FILE", help="Write one HTML file that needs nothing else.")
@output_option
def report_command(arguments: tuple[str, ...], folder: str | None, page: str | None) -> None:
    """Show the report of the newest upgrade or rollback of a fleet: Markdown, or JSON with `-o json`.

    The HTML report has the same content and draws the timeline. It holds no script and loads nothing from elsewhere.

    \b
    Examples:
      komodo-upgrade report
      komodo-upgrade report prod -o json | jq '.result.servers[] | {name, state}'
      komodo-upgrade report prod --write /srv/records
      komodo-upgrade report prod --html prod.html
    """
    from model.text.report import render_json, render_markdown

    result, watch = run(_result(resolve(arguments)))
    paths = write(result, Path(folder).expanduser(), watch) if folder else []
    if page:
        paths.append(write_html(result, Path(page).expanduser(), watch))
    if paths:
        data({"files": [str(path) for path in paths]}, "\n".join(str(path) for path in paths))
        return
    click.echo(render_json(result, watch) if wants_json() else render_markdown(result, watch), nl=wants_json())


async def _result(target: Target) -> tuple[FleetResult, WatchReport | None]:
    from cli.session import open_session
    from service.client import Upgrade
    from service.history import detailed, result_of, watch_of

    session = await open_session(only_existing=True)
    upgrade = Upgrade(session.client, target.name)
    found = await upgrade.describe()
    if found.is_running:
        raise NoSuchUpgrade(
            f"the upgrade of {target.name} is still running: there is no report yet",
            hint=f"komodo-upgrade status {target.argument}".strip(),
        )
    result = await result_of(session.client, found) or await upgrade.result()
    result = await detailed(session.client, found, result)
    return result, await watch_of(session.client, target.name, result.change)


def write(result: FleetResult, folder: Path, watch: WatchReport | None = None) -> list[Path]:
    """Write report.md and report.json; returns both paths. Raises UpgradeError."""
    from model.text.report import render_json, render_markdown

    texts = {folder / "report.md": render_markdown(result, watch), folder / "report.json": render_json(result, watch)}
    return [_write(path, text) for path, text in texts.items()]


def write_html(result: FleetResult, path: Path, watch: WatchReport | None = None) -> Path:
    """Write the report as one HTML file. Raises UpgradeError."""
    from web.report import render_html

    return _write(path, render_html(result, watch))


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UpgradeError(f"{path}: {error.strerror}", hint="name a folder that you may write") from None
    return path
