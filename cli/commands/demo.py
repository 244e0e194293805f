"""demo: the whole upgrade of a simulated fleet; needs nothing but this package."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import output_option
from cli.output import data, end_on_signals, good, on_terminal, run, say, strong, wants_json

if TYPE_CHECKING:
    from cli.session import Session
    from model.fleet.spec import FleetSpec
    from model.gates import Gate, Verdict
    from model.status import FleetResult
    from service.embedded.state import StateDir

SANDBOX_SECONDS = 60.0
KEPT = ("report.md", "report.json")
MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command."""

    servers: int
    keep: bool
    yes: bool
    faults: tuple[str, ...]
    rollback: bool
    dashboard: bool


@click.command("demo")
@click.option("--servers", default=5, show_default=True, type=click.IntRange(1, MOST), help="Size of the fleet.")
@click.option("--yes", "-y", is_flag=True, help="Approve the gates automatically, as without a terminal.")
@click.option("--keep", is_flag=True, help="Keep the fleet's folders and the Temporal database.")
@click.option(
    "--fail",
    "faults",
    multiple=True,
    metavar="SERVER|FAULT[@HOST]",
    help="The new agent of this server crashes at first; or a fault by name, see `--fail list`.",
)
@click.option("--rollback", is_flag=True, help="Roll the whole fleet back afterwards, from the folders on the hosts.")
@click.option("--dashboard", is_flag=True, help="Open the dashboard on it, and answer the gates there.")
@output_option
def demo_command(
    servers: int, *, yes: bool, keep: bool, faults: tuple[str, ...], rollback: bool, dashboard: bool
) -> None:
    """Upgrade a simulated fleet end to end: one Core and some servers behind real SSH, all on 127.0.0.1.

    Runs its own embedded Temporal server, real workflows and real shells, with simulated docker, systemd and mongodump.
    Nothing outside the demo's folder is changed. On a terminal, it asks at the gates; with --yes, or without a
    terminal, it approves them automatically. Takes less than a minute.

    \b
    Examples:
      komodo-upgrade demo
      komodo-upgrade demo --dashboard            # in a browser; the command waits there for your answers
      komodo-upgrade demo --yes --servers 12
      komodo-upgrade demo --fail web-3           # web-3 fails, rolls back, and is retried
      komodo-upgrade demo --rollback             # the upgrade, then its rollback
      komodo-upgrade demo --fail list
    """
    if "list" in faults:
        _list_faults()
        return
    servers, named = _failures(servers, faults)
    automatic = yes or (not dashboard and (not on_terminal() or wants_json()))
    options = Options(servers=servers, keep=keep, yes=automatic, faults=named, rollback=rollback, dashboard=dashboard)
    end_on_signals()
    try:
        code = run(_demo(options))
    except (KeyboardInterrupt, click.Abort):
        with contextlib.suppress(OSError):  # the terminal may be closed
            say("\nthe demo has ended; its fleet and its Temporal server are removed")
        code = 130
    raise click.exceptions.Exit(code)


def _failures(servers: int, wanted: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Turn a server's name into a fault of its new agent, and make the fleet large enough for it."""
    from sandbox import faults
    from sandbox.seed_files import server_name

    named = []
    for text in wanted:
        if text.partition("@")[0] in faults.KNOWN:
            named.append(text)
            continue
        position = next((n for n in range(MOST) if server_name(n) == text), None)
        if position is None:
            raise click.UsageError(f"{text} is neither a fault (`--fail list`) nor a server such as {server_name(0)}")
        servers = max(servers, position + 1)
        named.append(f"crash-loop@{text}:rolled-back")
    return servers, tuple(named)


def _list_faults() -> None:
    from sandbox import faults

    for line in (faults.__doc__ or "").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name in faults.KNOWN and cells:
            click.echo(f"{name:<22} {cells[0]:<14} {cells[-1]}")


async def _demo(options: Options) -> int:
    from cli.commands.history import write
    from service.embedded.state import StateDir
    from service.requests import new_change

    began = time.monotonic()
    folder = StateDir().root / "demo" / new_change()
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    try:
        result = await _play(folder, options)
        if result is None:
            return 6
        paths = await asyncio.to_thread(write, result, folder)
    finally:
        if not options.keep:
            await asyncio.to_thread(_clean, folder)
    took = time.monotonic() - began
    say()
    say(f"{good('done')} in {took:.0f} s; report: {strong(str(paths[0]))}")
    if options.keep:
        say(f"kept: {folder} (the hosts' folders, Temporal's database, the logs)")
    if wants_json():
        data({"result": result, "report": str(paths[0]), "seconds": round(took, 1)}, "")
    return result.state.exit_code


async def _play(folder: Path, options: Options) -> FleetResult | None:
    from cli.commands.start import begin
    from cli.follow import Follower, Mode
    from cli.target import Target
    from model.fleet.file import load
    from service.client import Upgrade
    from service.embedded.state import StateDir

    say(f"a simulated fleet of one Core and {options.servers} servers, and a Temporal server of its own …")
    state = StateDir(folder / "service").make()
    async with (
        _service(state) as connecting,
        _fleet(folder / "fleet", options) as fleet_file,
        contextlib.AsyncExitStack() as pages,
    ):
        fleet = await asyncio.to_thread(load, fleet_file)
        session = await connecting
        await session.share_secrets(fleet)
        if options.dashboard:
            await pages.enter_async_context(_dashboard(session))
        upgrade = Upgrade(session.client, fleet.name)
        await begin(session, fleet)
        if options.yes:
            say("the demo approves the gates automatically")
        mode = Mode(
            ask=not (options.yes or options.dashboard),
            decide=_Approver().decide if options.yes else _in_the_browser if options.dashboard else None,
            every=0.25,
            summary=False,
            footer="a simulated fleet; Ctrl-C ends the demo",
        )
        follower = Follower(upgrade, Target(fleet.name, fleet), mode)
        await follower.follow()
        if options.rollback and follower.result is not None and follower.result.core_begun:
            _print(follower.result)
            await _begin_rollback(session, fleet)
            follower = Follower(upgrade, Target(fleet.name, fleet), mode)
            await follower.follow()
        if follower.result is None:
            say("the gate was left open: the demo has ended, its fleet is removed")
            return None
        _print(follower.result)
        if options.dashboard:
            say("the report is in the dashboard; Ctrl-C ends the demo and removes its fleet")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return follower.result


async def _in_the_browser(gate: Gate) -> None:
    say(f"gate {gate.id}: {gate.question} Answer it in the dashboard")


@contextlib.asynccontextmanager
async def _dashboard(session: Session) -> AsyncIterator[None]:
    from cli.commands.dashboard import another_link_on_enter, show_link
    from service.connection import actor
    from web.access.rules import Options as Access
    from web.access.rules import rules
    from web.server import serve

    async with serve(session.client, rules(Access(listen="127.0.0.1:0")), actor()) as running:
        show_link(running)
        with another_link_on_enter(running):
            yield


def _print(result: FleetResult) -> None:
    from cli import table
    from cli.target import Target
    from model.text.outside import terminal

    if not wants_json():
        for line in list(table.result_lines(result, Target(result.fleet)))[:-1]:
            click.echo(terminal(line))


async def _begin_rollback(session: Session, fleet: FleetSpec) -> None:
    """Like `komodo-upgrade rollback`: from the run folders on the hosts."""
    from cli.commands.rollback import begin
    from cli.plans import rollback_lines
    from model.rollback import request_from_folders
    from service.connection import actor
    from service.requests import folders

    say()
    say("rollback: reading the run folders on the hosts …")
    request = request_from_folders(fleet, await folders(session.client, fleet), requested_by=actor())
    for line in rollback_lines(request):
        say(line)
    await begin(session.client, request)


class _Approver:
    """Approves every gate. A failed server is retried once, then skipped."""

    def __init__(self) -> None:
        self._retried: list[str] = []

    async def decide(self, gate: Gate) -> Verdict | None:
        from cli.gates import say_facts
        from model.gates import Verdict

        verdict = Verdict.APPROVE
        if verdict not in gate.verdicts:
            again = Verdict.RETRY in gate.verdicts and gate.subject not in self._retried
            verdict = Verdict.RETRY if again else Verdict.SKIP if Verdict.SKIP in gate.verdicts else gate.verdicts[-1]
            self._retried.append(gate.subject)
        say(f"gate {gate.id}: {gate.question}")
        say_facts(gate)
        say(f"  → {verdict.value}, by the demo")
        return verdict


@contextlib.asynccontextmanager
async def _service(state: StateDir) -> AsyncIterator[asyncio.Task[Session]]:
    """The demo's own Temporal server and worker. They start in parallel with the fleet, and end with this process.

    Normally they are stopped here. However this process ends, its end of the pipe is closed, and the service ends too.
    """
    from cli.session import open_session
    from service.embedded import lifecycle

    lifeline, held = os.pipe()
    connecting = asyncio.create_task(open_session(state=state, options=lifecycle.Options(lifeline=lifeline)))
    try:
        yield connecting
    finally:
        with contextlib.suppress(Exception):  # an error of the start was raised where the session was awaited
            await connecting
        await lifecycle.stop(state, force=True)
        os.close(lifeline)
        os.close(held)


@contextlib.asynccontextmanager
async def _fleet(folder: Path, options: Options) -> AsyncIterator[Path]:
    """The sandbox in a process of its own: a prompt blocks this process, and must not block the hosts."""
    from model.errors import UpgradeError

    command = [sys.executable, "-P", "-m", "sandbox", str(folder), "--servers", str(options.servers)]
    for fault in options.faults:
        command += ["--fault", fault]
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output
        )
    try:
        line = b""
        if process.stdout is not None:
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), SANDBOX_SECONDS)
        path = Path(line.decode().strip())
        if not line.strip() or path.suffix != ".toml":
            tail = await asyncio.to_thread(_tail, log)
            raise UpgradeError(f"the simulated fleet did not start:\n{tail}", hint=f"read {log}")
        yield path
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _clean(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name in KEPT:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
