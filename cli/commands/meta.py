"""schema, completion, version: about the tool itself. Nothing here imports Temporal or SSH."""

from __future__ import annotations

import platform

import click

from cli.app import cli
from cli.options import output_option
from cli.output import data


@click.command("schema")
@output_option
def schema_command() -> None:
    """Print the JSON Schema of fleet.toml.

    \b
    Example:
      komodo-upgrade schema > fleet.schema.json
      # first line of fleet.toml, for editors with Taplo or Even Better TOML:
      #:schema ./fleet.schema.json
    """
    from model.fleet.file import schema_text

    click.echo(schema_text())


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_option
def completion_command(shell: str) -> None:
    """Print a completion script: commands, options, fleets, servers, and the open gate after --gate.

    \b
    Examples:
      komodo-upgrade completion bash > ~/.local/share/bash-completion/completions/komodo-upgrade
      komodo-upgrade completion zsh > ~/.zfunc/_komodo-upgrade
      komodo-upgrade completion fish > ~/.config/fish/completions/komodo-upgrade.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - the choice above has no other
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "komodo-upgrade", "_KOMODO_UPGRADE_COMPLETE").source())


@click.command("version")
@output_option
def version_command() -> None:
    """Print the release, the fingerprint of the code, and the Python version.

    \b
    Example:
      komodo-upgrade version -o json
    """
    from service.version import code, describe, release

    facts = {"release": release(), "code": code(), "python": platform.python_version()}
    data(facts, describe("komodo-upgrade"))
