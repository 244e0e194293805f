"""What outlives an upgrade whose workflow was terminated or cancelled: shown, waited for, said what to do about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from temporalio.client import Client

from cli import table
from cli.looking_back import result_of
from cli.output import data, say
from cli.target import Target
from cli.upgrade import Upgrade
from model.errors import UpgradeAlreadyRunning
from model.fleet import slug
from model.progress import FleetResult, FleetState, ServerState
from service.upgrades import Run, servers_at_work

WAIT = timedelta(minutes=10)
_SPAN = 1.0


async def wait_for_servers(client: Client, fleet: str) -> None:
    """Until no server of a terminated upgrade is at work any more. Raises UpgradeAlreadyRunning after ten minutes.

    Such a server undoes its switch by itself (the upgrade's children are asked to cancel); whoever begins anew before
    its end would meet it in the middle.
    """
    told: tuple[str, ...] = ()
    end = time.monotonic() + WAIT.total_seconds()
    while names := tuple(sorted([server async for server in servers_at_work(client, fleet)])):
        if names != told:
            say(f"{', '.join(names)}: of a terminated upgrade, still putting itself back; waiting for it …")
            told = names
        if time.monotonic() > end:
            raise UpgradeAlreadyRunning(
                f"{', '.join(names)}: the server's own workflow of an upgrade that was terminated does not end",
                left="nothing was started",
                cure=f"is its host down? Look at komodo-upgrade/{fleet}/… in Temporal; terminate it to give it up",
            )
        await asyncio.sleep(_SPAN)


def told(result: FleetResult | None, run: Run) -> FleetResult | None:
    """What a run that Temporal ended still tells, with an end that is true."""
    if result is None or run.status == "completed":
        return result
    if run.status == "canceled" and result.state is not FleetState.INCOMPLETE:
        return replace(result, detail=f"cancelled through Temporal; {result.detail}")
    how = {"terminated": "terminated", "canceled": "cancelled"}.get(run.status, run.status.replace("_", " "))
    text = f"{how} through Temporal: no step of it began after that"
    return replace(result, state=FleetState.INCOMPLETE, detail=text, ended_at=run.ended_at or result.ended_at)


def lines(result: FleetResult | None, run: Run, target: Target, at_work: tuple[str, ...]) -> Iterator[str]:
    """What became of it, and what to type next."""
    argument = target.argument or target.name
    if result is None:
        yield f"the upgrade of {target.name} was {run.status} through Temporal, and no worker can tell where it stood"
    else:
        yield from list(table.result_lines(result, target))[:-1]
        middle = [s.name for s in result.servers if s.state is ServerState.UPGRADING]
        for name in middle:
            now = "is putting itself back right now" if slug(name) in at_work else "has ended by itself"
            yield f"{name} was in the middle; it {now}"
    yield f"what is in place on the hosts: komodo-upgrade rollback {argument} --plan"
    yield f"go on from there: komodo-upgrade start {target.argument}".rstrip()
    yield f"put all of it back: komodo-upgrade rollback {argument}"


async def show(upgrade: Upgrade, run: Run, target: Target) -> int:
    """What a run that Temporal ended has left, and what to type next. The exit code."""
    at_work = tuple([name async for name in servers_at_work(upgrade.client, upgrade.fleet)])
    result = told(await result_of(upgrade.client, run), run)
    data({"status": run.status, "result": result, "at_work": at_work}, "\n".join(lines(result, run, target, at_work)))
    return result.state.exit_code if result else FleetState.INCOMPLETE.exit_code
