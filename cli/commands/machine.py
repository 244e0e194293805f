"""up and down: the embedded Temporal server and its worker on this machine."""

from __future__ import annotations

import click

from cli.options import output_option
from cli.output import data, run, say
from cli.target import load_file


@click.command("up")
@click.argument("fleet_file", required=False, type=click.Path(), metavar="[FLEET_FILE]")
@click.option("--install", is_flag=True, help="As a systemd user unit, which starts again after a reboot.")
@click.option("--force", is_flag=True, help="Also serve an upgrade that another release started.")
@output_option
def up_command(fleet_file: str | None, *, install: bool, force: bool) -> None:
    """Start the embedded Temporal server and its worker, if they do not run. Other commands do this when necessary.

    With FLEET_FILE, the worker gets those of this shell's variables that the file names. The server listens on
    127.0.0.1 only; its files are in ~/.local/state/komodo-upgrade (or $KOMODO_UPGRADE_STATE).

    \b
    Examples:
      komodo-upgrade up
      komodo-upgrade up fleet.toml
      komodo-upgrade up --install
    """
    run(_up(fleet_file, install=install, force=force))


@click.command("down")
@click.option("--force", is_flag=True, help="Also while an upgrade runs; it continues after the next `up`.")
@output_option
def down_command(*, force: bool) -> None:
    """Stop the worker and the embedded Temporal server. Refuses while an upgrade runs.

    The watch after a finished upgrade does not prevent this: it pauses, and continues after the next `up`.

    \b
    Examples:
      komodo-upgrade down
      komodo-upgrade down --force
    """
    from service.embedded import lifecycle
    from service.embedded.state import StateDir

    state = StateDir()
    stopped = run(lifecycle.stop(state, force=force, say=say))
    data({"stopped": stopped}, "stopped" if stopped else "not running")


async def _up(fleet_file: str | None, *, install: bool, force: bool) -> None:
    from service.embedded import lifecycle, systemd
    from service.embedded.state import StateDir

    state = StateDir().make()
    if install:
        await lifecycle.stop(state)
        for note in systemd.install(state):
            say(note)
    now = await lifecycle.ensure(state, say, lifecycle.Options(anyway=force))
    if fleet_file:
        now = await lifecycle.serve_fleet(state, now, load_file(fleet_file), say)
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
    text = f"Temporal at {now.address} (namespace default), worker pid {now.worker_pid}; files in {state.root}"
    data(facts, text)
    say("stop both with `komodo-upgrade down`")
