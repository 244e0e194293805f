"""demo: the whole upgrade of a simulated fleet, with nothing installed but this package."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import output_option
from cli.output import data, good, on_terminal, run, say, strong, wants_json

if TYPE_CHECKING:
    from cli.session import Session
    from model.decisions import Gate, Verdict
    from model.fleet import FleetSpec
    from model.progress import FleetResult
    from service.state import StateDir

SANDBOX_PATIENCE = 60.0
KEPT = ("report.md", "report.json")
MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the flags say."""

    servers: int
    keep: bool
    yes: bool
    faults: tuple[str, ...]
    rollback: bool


@click.command("demo")
@click.option("--servers", default=5, show_default=True, type=click.IntRange(1, MOST), help="Size of the fleet.")
@click.option("--yes", "-y", is_flag=True, help="Approve the gates by itself, as without a terminal.")
@click.option("--keep", is_flag=True, help="Keep the fleet's folders and the Temporal database for a look.")
@click.option(
    "--fail",
    "faults",
    multiple=True,
    metavar="SERVER|FAULT[@HOST]",
    help="This server's new agent crashes at first; or a fault by name: `--fail list`.",
)
@click.option("--rollback", is_flag=True, help="Put the whole fleet back afterwards, from the folders on the hosts.")
@output_option
def demo_command(servers: int, *, yes: bool, keep: bool, faults: tuple[str, ...], rollback: bool) -> None:
    """Upgrade a simulated fleet end to end: one Core and some servers behind real SSH, all on 127.0.0.1.

    An embedded Temporal server of its own, real workflows, real shells, stand-ins for docker, systemd and mongodump.
    Nothing outside the demo's folder is touched. On a terminal it asks at the gates; with --yes, or without a terminal,
    it approves by itself and says so. Takes less than a minute.

    \b
    Examples:
      komodo-upgrade demo
      komodo-upgrade demo --yes --servers 12
      komodo-upgrade demo --fail web-3           # it fails, is put back, asked about and tried again
      komodo-upgrade demo --rollback             # there and back again
      komodo-upgrade demo --fail list
    """
    if "list" in faults:
        _list_faults()
        return
    servers, named = _failures(servers, faults)
    by_itself = yes or not on_terminal() or wants_json()
    wishes = Wishes(servers=servers, keep=keep, yes=by_itself, faults=named, rollback=rollback)
    try:
        code = run(_demo(wishes))
    except (KeyboardInterrupt, click.Abort):
        say("\nthe demo ends here; its fleet and its Temporal server are gone with it")
        code = 130
    raise click.exceptions.Exit(code)


def _failures(servers: int, wanted: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """A server's name becomes a fault of its new agent, and the fleet large enough to have it."""
    from sandbox import faults
    from sandbox.fleet import server_name

    named = []
    for text in wanted:
        if text.partition("@")[0] in faults.KNOWN:
            named.append(text)
            continue
        position = next((n for n in range(MOST) if server_name(n) == text), None)
        if position is None:
            raise click.UsageError(f"{text} is neither a fault (`--fail list`) nor a server such as {server_name(0)}")
        servers = max(servers, position + 1)
        named.append(f"crash-loop@{text}:put-back")
    return servers, tuple(named)


def _list_faults() -> None:
    from sandbox import faults

    for line in (faults.__doc__ or "").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name in faults.KNOWN and cells:
            click.echo(f"{name:<22} {cells[0]:<14} {cells[-1]}")


async def _demo(wishes: Wishes) -> int:
    from cli.checking import stamp
    from cli.history import write
    from service.state import StateDir

    began = time.monotonic()
    folder = StateDir().root / "demo" / stamp()
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    try:
        result = await _play(folder, wishes)
        if result is None:
            return 6
        paths = await asyncio.to_thread(write, result, folder)
    finally:
        if not wishes.keep:
            await asyncio.to_thread(_clean, folder)
    took = time.monotonic() - began
    say()
    say(f"{good('done')} in {took:.0f} s; report: {strong(str(paths[0]))}")
    if wishes.keep:
        say(f"kept: {folder} (the hosts' folders, Temporal's database, the logs)")
    if wants_json():
        data({"result": result, "report": str(paths[0]), "seconds": round(took, 1)}, "")
    return result.state.exit_code


async def _play(folder: Path, wishes: Wishes) -> FleetResult | None:
    from cli.follow import Follower, Manner
    from cli.start import begin
    from cli.target import Target
    from cli.upgrade import Upgrade
    from model.fleet_file import load
    from service.state import StateDir

    say(f"a simulated fleet of one Core and {wishes.servers} servers, and a Temporal server of its own …")
    state = StateDir(folder / "service").make()
    async with _service(state) as connecting, _fleet(folder / "fleet", wishes) as fleet_file:
        fleet = await asyncio.to_thread(load, fleet_file)
        session = await connecting
        await session.share_secrets(fleet)
        upgrade = Upgrade(session.client, fleet.name)
        await begin(session, fleet)
        if wishes.yes:
            say("gates are approved by the demo itself")
        manner = Manner(
            ask=not wishes.yes,
            decide=_Approver().decide if wishes.yes else None,
            every=0.25,
            summary=False,
            footer="a simulated fleet; Ctrl-C ends the demo",
        )
        follower = Follower(upgrade, Target(fleet.name, fleet), manner)
        await follower.follow()
        if wishes.rollback and follower.result is not None and follower.result.core_begun:
            _print(follower.result)
            await _begin_rollback(session, fleet)
            follower = Follower(upgrade, Target(fleet.name, fleet), manner)
            await follower.follow()
        if follower.result is None:
            say("left at a gate: the demo ends here, its fleet is gone with it")
            return None
        _print(follower.result)
        return follower.result


def _print(result: FleetResult) -> None:
    from cli import table
    from cli.target import Target

    if not wants_json():
        for line in list(table.result_lines(result, Target(result.fleet)))[:-1]:
            click.echo(line)


async def _begin_rollback(session: Session, fleet: FleetSpec) -> None:
    """As `komodo-upgrade rollback` does it: by what lies on the hosts."""
    from cli import rollback_plan
    from cli.looking_back import folders
    from cli.rollback import begin
    from model.way_back import request_from_folders
    from service.connection import actor

    say()
    say("and back: looking at the folders on the hosts …")
    request = request_from_folders(fleet, await folders(session.client, fleet), requested_by=actor())
    for line in rollback_plan.lines(request):
        say(line)
    await begin(session.client, request)


class _Approver:
    """Says yes, and says so. A failed server gets one more try, then the fleet goes on without it."""

    def __init__(self) -> None:
        self._tried: list[str] = []

    async def decide(self, gate: Gate) -> Verdict | None:
        from cli.gates import say_facts
        from model.decisions import Verdict

        verdict = Verdict.APPROVE
        if verdict not in gate.verdicts:
            again = Verdict.RETRY in gate.verdicts and gate.subject not in self._tried
            verdict = Verdict.RETRY if again else Verdict.SKIP if Verdict.SKIP in gate.verdicts else gate.verdicts[-1]
            self._tried.append(gate.subject)
        say(f"gate {gate.id}: {gate.question}")
        say_facts(gate)
        say(f"  → {verdict.value}, by the demo itself")
        return verdict


@contextlib.asynccontextmanager
async def _service(state: StateDir) -> AsyncIterator[asyncio.Task[Session]]:
    """The demo's own Temporal server and worker, gone afterwards. They start while the fleet does."""
    from cli.session import open_session
    from service import embedded

    connecting = asyncio.create_task(open_session(state=state))
    try:
        yield connecting
    finally:
        with contextlib.suppress(Exception):  # an error of the start was raised where the session was wanted
            await connecting
        await embedded.stop(state, force=True)


@contextlib.asynccontextmanager
async def _fleet(folder: Path, wishes: Wishes) -> AsyncIterator[Path]:
    """The sandbox in a process of its own: a person who thinks at a prompt must not freeze its hosts."""
    from model.errors import UpgradeError

    command = [sys.executable, "-P", "-m", "sandbox", str(folder), "--servers", str(wishes.servers)]
    for fault in wishes.faults:
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
                line = await asyncio.wait_for(process.stdout.readline(), SANDBOX_PATIENCE)
        path = Path(line.decode().strip())
        if not line.strip() or path.suffix != ".toml":
            tail = await asyncio.to_thread(_tail, log)
            raise UpgradeError(f"the simulated fleet did not come up:\n{tail}", cure=f"read {log}")
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
