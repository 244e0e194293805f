"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cli.output import JSON_KEY

F = TypeVar("F", bound=Callable[..., Any])


def _json(ctx: click.Context, _: click.Parameter, value: str) -> str:
    ctx.meta[JSON_KEY] = value == "json"
    return value


def output_option(command: F) -> F:
    """`-o text|json`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=_json,
        help="Format of the result on standard output.",
    )
    return option(command)


def plan_output_option(command: F) -> F:
    """`-o text|json|FILE.json`: the last one writes the plan for `start --plan`."""
    option = click.option(
        "-o",
        "--output",
        type=PlanOutput(),
        default="text",
        show_default=True,
        is_eager=True,
        callback=_json,
        metavar="text|json|FILE.json",
        help="Format of the result on standard output; or a file that `start --plan` takes.",
    )
    return option(command)


class PlanOutput(click.ParamType[str]):
    """A format, or a file."""

    name = "output"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value as it is."""
        if value not in ("text", "json") and not str(value).endswith(".json"):
            self.fail(f"{value!r} is neither text nor json, nor a file whose name ends with .json", param, ctx)
        return str(value)


def _offer(what: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the shell offers: a function of `cli/completion.py`, imported only after Tab."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from cli import completion

        found: list[CompletionItem] = getattr(completion, what)(ctx, param, incomplete)
        return found

    return offer


def gate_option(command: F) -> F:
    """`--gate ID`."""
    text = "Answer only this gate; required without a terminal."
    return click.option("--gate", default="", metavar="ID", help=text, shell_complete=_offer("gates"))(command)


def server_option(command: F) -> F:
    """`--server NAME`, once or more often."""
    text = "Only this server; can be repeated."
    option = click.option(
        "--server", "named", multiple=True, metavar="NAME", help=text, shell_complete=_offer("servers")
    )
    return option(command)


def file_argument(command: F) -> F:
    """`[FLEET_FILE]`."""
    argument = click.argument(
        "fleet_file", required=False, type=click.Path(), metavar="[FLEET_FILE]", shell_complete=_offer("fleet_files")
    )
    return argument(command)


def fleet_argument(command: F) -> F:
    """`[FLEET]`: a file or the name of a fleet."""
    argument = click.argument("arguments", nargs=-1, metavar="[FLEET]", shell_complete=_offer("fleets"))
    return argument(command)


def servers_argument(command: F) -> F:
    """`[FLEET] [SERVER]...`."""
    argument = click.argument(
        "arguments", nargs=-1, metavar="[FLEET] [SERVER]...", shell_complete=_offer("fleets_and_servers")
    )
    return argument(command)


def reason_option(command: F) -> F:
    """`--reason TEXT`: kept in the report."""
    return click.option("--reason", default="", metavar="TEXT", help="Kept in the report together with your name.")(
        command
    )


def confirm_option(command: F) -> F:
    """`--confirm NAME`: the typed confirmation without a terminal."""
    text = "The fleet's name, if there is no terminal to type it on."
    return click.option("--confirm", default="", metavar="NAME", help=text)(command)


def limit_option(command: F) -> F:
    """`--limit PATTERN`, once or more often."""
    text = "Only servers whose names fit, such as web-1 or 'web-*'; may be repeated. A later run upgrades the others."
    return click.option(
        "--limit", "patterns", multiple=True, metavar="PATTERN", help=text, shell_complete=_offer("servers")
    )(command)


def timeout_option(command: F) -> F:
    """`--timeout 10m`."""
    text = "End after this long with exit code 124, such as 90s or 10m."
    option = click.option("--timeout", type=Span(), default=None, metavar="DURATION", help=text)
    return option(command)


class Span(click.ParamType[timedelta]):
    """A duration as in the fleet file."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """ "90s", "10m", "1h30m"."""
        if isinstance(value, timedelta):
            return value
        from pydantic_core import PydanticCustomError

        from model.fleet.values import duration

        try:
            return duration(value)
        except PydanticCustomError:
            self.fail(f'"{value}" is no duration: write 90s, 10m or 1h30m', param, ctx)


class StartTime(click.ParamType[datetime]):
    """A time in the future, in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """ "22:30", "2026-12-05 22:30", "22:30 Europe/Berlin"."""
        if isinstance(value, datetime):
            return value
        from model.fleet.windows import parse_start

        try:
            return parse_start(str(value), datetime.now(UTC))
        except ValueError as error:
            text = f'"{value}": {error}; write 22:30, "2026-12-05 22:30" or "22:30 Europe/Berlin"'
            self.fail(text, param, ctx)
