"""up and down: the embedded Temporal server and its worker on this machine."""

from __future__ import annotations

import click

from cli.options import output_option
from cli.output import data, run, say
from cli.target import load_file


@click.command("up")
@click.argument("fleet_file", required=False, type=click.Path(), metavar="[FLEET_FILE]")
@click.option("--install", is_flag=True, help="As a systemd user unit: it comes back after a reboot.")
@click.option("--force", is_flag=True, help="Serve an upgrade that another release began.")
@output_option
def up_command(fleet_file: str | None, *, install: bool, force: bool) -> None:
    """Start the embedded Temporal server and its worker, or say that they run. Other commands do this by themselves.

    With FLEET_FILE the worker gets this shell's variables that the file names. The server listens on 127.0.0.1 only;
    everything lies in ~/.local/state/komodo-upgrade (or $KOMODO_UPGRADE_STATE).

    \b
    Examples:
      komodo-upgrade up
      komodo-upgrade up fleet.toml
      komodo-upgrade up --install
    """
    run(_up(fleet_file, install=install, force=force))


@click.command("down")
@click.option("--force", is_flag=True, help="Also while an upgrade runs; it goes on after the next `up`.")
@output_option
def down_command(*, force: bool) -> None:
    """Drain the worker, close the database, and end. Refuses while an upgrade runs.

    A watch over an upgrade that is over does not stand in the way: it rests, and goes on after the next `up`.

    \b
    Examples:
      komodo-upgrade down
      komodo-upgrade down --force
    """
    from service import embedded
    from service.state import StateDir

    state = StateDir()
    stopped = run(embedded.stop(state, force=force, say=say))
    data({"stopped": stopped}, "stopped" if stopped else "nothing ran")


async def _up(fleet_file: str | None, *, install: bool, force: bool) -> None:
    from service import embedded, systemd
    from service.state import StateDir

    state = StateDir().make()
    if install:
        await embedded.stop(state)
        for note in systemd.install(state):
            say(note)
    now = await embedded.ensure(state, say, embedded.Options(anyway=force))
    if fleet_file:
        await embedded.share_environment(now, load_file(fleet_file), say)
        now = await embedded.wait_for_worker(state)
    facts = {
        "address": now.address,
        "namespace": "default",
        "state_dir": str(state.root),
        "release": now.release,
        "supervisor_pid": now.pid,
        "server_pid": now.server_pid,
        "worker_pid": now.worker_pid,
        "restarts": now.restarts,
    }
    text = f"Temporal at {now.address} (namespace default), worker pid {now.worker_pid}; kept in {state.root}"
    data(facts, text)
    say("stop both with `komodo-upgrade down`")
