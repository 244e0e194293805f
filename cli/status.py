"""status and watch: where an upgrade stands."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.options import fleet_argument, output_option, timeout_option
from cli.output import data, run, say
from cli.target import Target, resolve
from model.plain import moment

if TYPE_CHECKING:
    from cli.upgrade import Upgrade


@click.command("status")
@fleet_argument
@click.option("--wait", is_flag=True, help="Stay until the upgrade ends or waits for a person.")
@click.option("--watched", is_flag=True, help="As --wait, and then until the watch over the upgrade ends (next day).")
@timeout_option
@output_option
def status_command(arguments: tuple[str, ...], *, wait: bool, watched: bool, timeout: timedelta | None) -> None:
    """Where an upgrade stands, and whom it waits for. FLEET is a fleet file or the name of a fleet.

    The exit code is the truth: 0 running or done, 3 not all servers, 4 refused, 6 waits for an approval, 7 rolled
    back, 8 upgraded, but the watch over it has found something since.

    \b
    Examples:
      komodo-upgrade status
      komodo-upgrade status prod -o json | jq -r .gate.id
      komodo-upgrade status prod --wait --timeout 30m
      komodo-upgrade status prod --watched          # until the next day's backup was looked for
    """
    raise click.exceptions.Exit(
        run(_status(resolve(arguments), wait=wait or watched, watched=watched, timeout=timeout))
    )


@click.command("watch")
@fleet_argument
@timeout_option
@output_option
def watch_command(arguments: tuple[str, ...], timeout: timedelta | None) -> None:
    """Follow an upgrade until it ends: a live table on a terminal, a line for each change elsewhere.

    Gates are shown, not asked; Ctrl-C leaves the watching (130), never the upgrade.

    \b
    Examples:
      komodo-upgrade watch
      komodo-upgrade watch prod 2>&1 | tee upgrade.log
    """
    raise click.exceptions.Exit(run(_watch(resolve(arguments), timeout)))


async def _connect(target: Target) -> Upgrade:
    from cli.session import open_session
    from cli.upgrade import Upgrade

    session = await open_session(only_existing=True)
    return Upgrade(session.client, target.name)


async def _status(target: Target, *, wait: bool, watched: bool, timeout: timedelta | None) -> int:
    from cli import aftermath, table
    from cli.follow import LEFT_AT_GATE, OUT_OF_TIME, Follower, Manner

    upgrade = await _connect(target)
    found = await upgrade.describe()
    if found.is_running and wait:
        code = await Follower(upgrade, target, Manner(timeout=timeout, summary=not watched)).follow()
        if not watched or code in (LEFT_AT_GATE, OUT_OF_TIME):
            return code
        found = await upgrade.describe()
    if not found.is_running and found.status != "completed":
        return await aftermath.show(upgrade, found, target)
    if not found.is_running:
        return await _after_the_end(upgrade, target, timeout if watched else timedelta())
    progress = await upgrade.progress(steps=True)
    data(progress, "\n".join(table.lines(progress)))
    return LEFT_AT_GATE if progress.gate else 0


async def _after_the_end(upgrade: Upgrade, target: Target, patience: timedelta | None) -> int:
    """The result, and what the watch over it has found. `patience`: how long its end is waited for; None: for ever."""
    from cli import table
    from cli.follow import OUT_OF_TIME
    from cli.watching import exit_code, until_over, watch_of
    from model.plain import plain
    from model.watch import WatchState
    from model.watch_report import lines

    result = await upgrade.result()
    watch = await watch_of(upgrade.client, target.name, result.change)
    late = False
    if watch and watch.state is WatchState.WATCHING and patience != timedelta():
        say(f"the watch over it ends at {moment(watch.until)}; Ctrl-C leaves the waiting, never the watch")
        late = not await until_over(upgrade.client, target.name, result.change, patience)
        watch = await watch_of(upgrade.client, target.name, result.change) or watch
    shown = [*table.result_lines(result, target), *(lines(watch) if watch else ())]
    data({**plain(result), "watch": plain(watch)} if watch else result, "\n".join(shown))
    return OUT_OF_TIME if late else exit_code(result, watch)


async def _watch(target: Target, timeout: timedelta | None) -> int:
    from cli.follow import Follower, Manner

    upgrade = await _connect(target)
    await upgrade.describe()
    return await Follower(upgrade, target, Manner(leave_at_gate=False, timeout=timeout)).follow()
