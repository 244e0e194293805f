"""status and watch: the state of an upgrade."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cli.options import fleet_argument, output_option, timeout_option
from cli.output import data, run, say
from cli.target import Target, resolve
from model.serialization import moment

if TYPE_CHECKING:
    from service.client import Upgrade


@click.command("status")
@fleet_argument
@click.option("--wait", is_flag=True, help="Wait until the upgrade ends or waits at a gate.")
@click.option("--watched", is_flag=True, help="Like --wait, then wait for the end of the checks after it (next day).")
@timeout_option
@output_option
def status_command(arguments: tuple[str, ...], *, wait: bool, watched: bool, timeout: timedelta | None) -> None:
    """Show the state of an upgrade, and the gate that it waits at. FLEET is a fleet file or the name of a fleet.

    Below it is what Temporal knows: steps that are tried again and why, paused steps, a workflow whose code fails, and
    tasks that no worker takes, each with what to type next.

    Exit code 0: done; 3: not all servers are upgraded; 4: refused; 6: a person is needed (a gate is open, it is paused,
    or Temporal waits for somebody); 7: rolled back; 8: upgraded, but the checks after it have found a problem; 9: work
    is in progress.

    \b
    Examples:
      komodo-upgrade status
      komodo-upgrade status prod -o json | jq -r .gate.id
      komodo-upgrade status prod --wait --timeout 30m
      komodo-upgrade status prod --watched          # until the next day's backup was checked
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

    Gates are shown, but not asked about. Ctrl-C ends the command (130), not the upgrade.

    \b
    Examples:
      komodo-upgrade watch
      komodo-upgrade watch prod 2>&1 | tee upgrade.log
    """
    raise click.exceptions.Exit(run(_watch(resolve(arguments), timeout)))


async def _connect(target: Target) -> Upgrade:
    from cli.session import open_session
    from service.client import Upgrade

    session = await open_session(only_existing=True)
    return Upgrade(session.client, target.name)


async def _status(target: Target, *, wait: bool, watched: bool, timeout: timedelta | None) -> int:
    from cli.follow import TIMED_OUT, WAITING_AT_GATE, Follower, Mode, show_ended

    upgrade = await _connect(target)
    found = await upgrade.describe()
    if found.is_running and wait:
        code = await Follower(upgrade, target, Mode(timeout=timeout, summary=not watched)).follow()
        if not watched or code in (WAITING_AT_GATE, TIMED_OUT):
            return code
        found = await upgrade.describe()
    if not found.is_running and found.status != "completed":
        return await show_ended(upgrade, found, target)
    if not found.is_running:
        return await _after_the_end(upgrade, target, timeout if watched else timedelta())
    return await _running(upgrade, found.release)


async def _running(upgrade: Upgrade, release: str) -> int:
    """What the workflow answers, and what Temporal knows besides; the latter also if no worker answers."""
    from cli import table
    from cli.follow import IN_PROGRESS, WAITING_AT_GATE
    from model.errors import UpgradeError
    from model.serialization import plain
    from service.operation.pending import lines, pending

    known = asyncio.create_task(pending(upgrade.client, upgrade.handle.id))
    try:
        progress = await upgrade.progress(steps=True)
    except UpgradeError:
        for line in lines(await known, release):
            say(line)
        raise
    found = await known
    shown = [*table.lines(progress), *lines(found, release)]
    data({**plain(progress), "pending": plain(found)}, "\n".join(shown))
    return WAITING_AT_GATE if progress.gate or progress.paused or found.needs_person else IN_PROGRESS


async def _after_the_end(upgrade: Upgrade, target: Target, patience: timedelta | None) -> int:
    """The result and the watch's findings. `patience`: how long to wait for the watch's end; None: without limit."""
    from cli import table
    from cli.follow import TIMED_OUT
    from model.serialization import plain
    from model.text.watch import lines
    from model.watch import WatchState
    from service.history import exit_code, wait_for_watch, watch_of

    result = await upgrade.result()
    watch = await watch_of(upgrade.client, target.name, result.change)
    late = False
    if watch and watch.state is WatchState.WATCHING and patience != timedelta():
        say(f"the watch ends at {moment(watch.until)}; Ctrl-C ends this command, not the watch")
        late = not await wait_for_watch(upgrade.client, target.name, result.change, patience)
        watch = await watch_of(upgrade.client, target.name, result.change) or watch
    shown = [*table.result_lines(result, target), *(lines(watch) if watch else ())]
    data({**plain(result), "watch": plain(watch)} if watch else result, "\n".join(shown))
    return TIMED_OUT if late else exit_code(result, watch)


async def _watch(target: Target, timeout: timedelta | None) -> int:
    from cli.follow import Follower, Mode

    upgrade = await _connect(target)
    await upgrade.describe()
    return await Follower(upgrade, target, Mode(end_at_gate=False, timeout=timeout)).follow()
