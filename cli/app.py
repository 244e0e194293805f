"""The command `komodo-upgrade`: a table of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from cli.output import no_colour, say, show_error
from model.errors import UpgradeError
from service.process_exit import leave

EXIT_CODES = """\b
Exit codes:
    0  done, or already current
    1  unexpected
    2  usage, or an error in the fleet file
    3  finished with servers left on v1, unverified or failed
    4  preflight refused
    5  the plan has changes; discover: the fleet file would change
    6  waiting for an approval; status: a person is needed
    7  rolled back
    8  status: upgraded, but the checks after it have found a problem
    9  status: work is in progress; start --at --detach: it is scheduled
   10  Temporal, or its worker, cannot be reached
   11  an upgrade of this fleet is already running
  124  --timeout is over
  130  Ctrl-C: ends the command, not the upgrade
"""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Prepare": {
        "init": ("cli.commands.prepare:init_command", "Write a commented fleet.toml."),
        "discover": (
            "cli.commands.prepare:discover_command",
            "Write fleet.toml from what Core knows, or extend it; changes no host.",
        ),
        "check": (
            "cli.commands.prepare:check_command",
            "Survey every host and show what has to be solved first; changes nothing.",
        ),
        "plan": ("cli.commands.prepare:plan_command", "Show what would be done: diffs, commands, order, rollback."),
        "notify": ("cli.commands.prepare:notify_command", "Try whether notices to people arrive."),
        "edit": ("cli.commands.edit:edit_command", "Show or make only the file edits, without any host."),
    },
    "Upgrade": {
        "start": ("cli.commands.start:start_command", "Start or continue the upgrade of a fleet."),
        "status": (
            "cli.commands.status:status_command",
            "Show the state of an upgrade, and the gate that it waits at.",
        ),
        "watch": ("cli.commands.status:watch_command", "Follow an upgrade until it ends."),
        "approve": ("cli.commands.decide:approve_command", "Open the gate that an upgrade waits at."),
        "reject": ("cli.commands.decide:reject_command", "Refuse at the gate that an upgrade waits at."),
        "retry": ("cli.commands.decide:retry_command", "Try a failed server again."),
        "skip": ("cli.commands.decide:skip_command", "Continue without a failed server."),
        "dashboard": ("cli.commands.dashboard:dashboard_command", "Show upgrades in a browser and answer gates there."),
        "pause": ("cli.commands.decide:pause_command", "Start no further step until `resume`."),
        "resume": ("cli.commands.decide:resume_command", "Continue after `pause`."),
        "stop": ("cli.commands.decide:stop_command", "End after the steps in progress; completed steps stay."),
        "rollback": (
            "cli.commands.rollback:rollback_command",
            "Return servers, or the whole fleet, to the old version.",
        ),
    },
    "History": {
        "list": ("cli.commands.history:list_command", "List upgrades, running and closed."),
        "report": ("cli.commands.history:report_command", "Show what was done, the proof, and how to undo it."),
        "clean": ("cli.commands.clean:clean_command", "Remove the run folders of finished upgrades from the hosts."),
    },
    "This machine": {
        "up": ("cli.commands.machine:up_command", "Start the embedded Temporal server and its worker."),
        "down": ("cli.commands.machine:down_command", "Stop them."),
        "demo": ("cli.commands.demo:demo_command", "Upgrade a simulated fleet, end to end; needs no host and no root."),
        "codec": (
            "cli.commands.codec:codec_command",
            "Rotate the keys that encrypt what Temporal keeps.",
        ),
        "schema": ("cli.commands.meta:schema_command", "Print the JSON Schema of fleet.toml."),
        "completion": ("cli.commands.meta:completion_command", "Print the completion for bash, zsh or fish."),
        "version": ("cli.commands.meta:version_command", "Show the release and the fingerprint of the code."),
    },
}


class LazyGroup(click.Group):
    """Imports the module of a command when it is used, and shows errors of this project as messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the table."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command, imported."""
        for section in SECTIONS.values():
            if cmd_name in section:
                module, _, attribute = section[cmd_name][0].partition(":")
                command = getattr(importlib.import_module(module), attribute)
                return command if isinstance(command, click.Command) else None
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The table: `--help` imports no command."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An UpgradeError becomes a message and its exit code."""
        try:
            return super().invoke(ctx)
        except UpgradeError as error:
            show_error(error)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            say("\ninterrupted; a running upgrade continues (komodo-upgrade status)")
            ctx.exit(130)
        except BrokenPipeError:
            # The pipe's reader has ended: no traceback, also not when the interpreter exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from service.version import describe

        click.echo(describe("komodo-upgrade"))
        ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the release and exit; `version` has more.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Upgrade a whole Komodo installation from v1 to v2, and roll it back.

    \b
    First steps:
      komodo-upgrade demo                 # a simulated fleet; needs no host
      komodo-upgrade init fleet.toml      # describe yours; or `discover`, from Core
      komodo-upgrade check fleet.toml     # changes nothing
      komodo-upgrade start fleet.toml     # asks before it changes anything

    Temporal is configured by its own settings (TEMPORAL_ADDRESS, temporal.toml, ...). Without them, a server and a
    worker are started on this machine and reused.
    """
    if no_colour():
        ctx.color = False


def main() -> None:
    """The command `komodo-upgrade`."""
    try:
        cli.main(prog_name="komodo-upgrade")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
