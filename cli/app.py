"""The command `komodo-upgrade`: a table of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from cli.output import no_colour, say, show_error
from model.errors import UpgradeError
from service.leaving import leave

EXIT_CODES = """\b
Exit codes:
    0  done, or already current
    1  unexpected
    2  usage, or an error in the fleet file
    3  finished with servers left on v1, unproven or failed
    4  preflight refused
    5  the plan has changes
    6  waiting for an approval
    7  rolled back
   10  Temporal, or its worker, cannot be reached
   11  an upgrade of this fleet is already running
  124  --timeout is over
  130  Ctrl-C: leaves the watching, never the upgrade
"""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Prepare": {
        "init": ("cli.prepare:init_command", "Write a commented fleet.toml."),
        "check": ("cli.prepare:check_command", "Look at every host and say what stands in the way; changes nothing."),
        "plan": ("cli.prepare:plan_command", "Show what would be done: diffs, commands, order, the way back."),
        "edit": ("cli.edit:edit_command", "Only the file edits, without any host."),
    },
    "Upgrade": {
        "start": ("cli.start:start_command", "Begin (or go on with) the upgrade of a fleet."),
        "status": ("cli.status:status_command", "Where an upgrade stands, and whom it waits for."),
        "watch": ("cli.status:watch_command", "Follow an upgrade until it ends."),
        "approve": ("cli.decide:approve_command", "Open the gate that an upgrade waits at."),
        "reject": ("cli.decide:reject_command", "Say no at a gate."),
        "retry": ("cli.decide:retry_command", "Try a failed server again."),
        "skip": ("cli.decide:skip_command", "Go on without a failed server."),
        "pause": ("cli.control:pause_command", "Begin nothing new until `resume`."),
        "resume": ("cli.control:resume_command", "Go on after `pause`."),
        "stop": ("cli.control:stop_command", "End after the steps in progress; what is done stays."),
        "rollback": ("cli.rollback:rollback_command", "Put servers, or the whole fleet, back to the old version."),
    },
    "Look back": {
        "list": ("cli.history:list_command", "Upgrades running and closed."),
        "report": ("cli.history:report_command", "What was done, what proves it, and how it is undone."),
        "clean": ("cli.clean:clean_command", "Remove what finished upgrades left on the hosts, after a look."),
    },
    "This machine": {
        "up": ("cli.machine:up_command", "Start the embedded Temporal server and its worker."),
        "down": ("cli.machine:down_command", "Stop them."),
        "demo": ("cli.demo:demo_command", "Upgrade a simulated fleet, end to end; needs no host and no root."),
        "schema": ("cli.meta:schema_command", "JSON Schema of fleet.toml."),
        "completion": ("cli.meta:completion_command", "Completion for bash, zsh or fish."),
        "version": ("cli.meta:version_command", "Which code this is."),
    },
}


class LazyGroup(click.Group):
    """Knows its commands by name; imports a module when its command is used. Shows our errors as words."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of the table."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import it."""
        for section in SECTIONS.values():
            if cmd_name in section:
                module, _, attribute = section[cmd_name][0].partition(":")
                command = getattr(importlib.import_module(module), attribute)
                return command if isinstance(command, click.Command) else None
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """From the table: `--help` imports no command."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of ours become a message and their exit code."""
        try:
            return super().invoke(ctx)
        except UpgradeError as error:
            show_error(error)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            say("\nleft; an upgrade that runs goes on (komodo-upgrade status)")
            ctx.exit(130)
        except BrokenPipeError:
            # The reader of a pipe left: no traceback, and none at interpreter exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)


@click.group(
    cls=LazyGroup,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Takes a whole Komodo installation from v1 to v2, and back.

    \b
    First steps:
      komodo-upgrade demo                 # a simulated fleet, nothing needed
      komodo-upgrade init fleet.toml      # describe yours
      komodo-upgrade check fleet.toml     # changes nothing
      komodo-upgrade start fleet.toml     # asks before it changes anything

    Temporal is found by its own settings (TEMPORAL_ADDRESS, temporal.toml, ...); with none set, a server and a
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
