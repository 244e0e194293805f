"""Where words go: data on stdout, talk on stderr; colour only where a terminal and NO_COLOR allow it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import click

from model.errors import FleetFileError, UpgradeError
from model.plain import plain, to_json

T = TypeVar("T")
JSON_KEY = "komodo-upgrade.json"


def wants_json() -> bool:
    """`-o json` was given."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(JSON_KEY))


def say(text: str = "") -> None:
    """Talk: for the person, never for a script."""
    click.echo(text, err=True)


def data(value: Any, text: str) -> None:
    """The command's result: `value` with `-o json`, else `text`."""
    click.echo(to_json(value) if wants_json() else text)


def on_terminal() -> bool:
    """A person can be asked: standard input and the talk's stream are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def is_live() -> bool:
    """A table may be redrawn in place."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not wants_json()


def no_colour() -> bool:
    """As https://no-color.org says, and for terminals that cannot."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def strong(text: str) -> str:
    """A heading or a name."""
    return click.style(text, bold=True)


def good(text: str) -> str:
    """Done as wished."""
    return click.style(text, fg="green")


def careful(text: str) -> str:
    """Somebody should read this."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """Failed or refused."""
    return click.style(text, fg="red", bold=True)


def faint(text: str) -> str:
    """Only for those who look closely."""
    return click.style(text, dim=True)


def show_error(error: UpgradeError) -> None:
    """The message for the person; with `-o json` also an object on stdout."""
    click.echo(f"{bad('error:')} {error}", err=True)
    if not wants_json():
        return
    facts: dict[str, Any] = {
        "type": type(error).__name__,
        "what": error.what,
        "host": error.host,
        "left": error.left,
        "cure": error.cure,
        "exit_code": error.exit_code,
    }
    if isinstance(error, FleetFileError):
        facts["problems"] = plain(error.problems)
    click.echo(to_json({"error": facts}))


@contextlib.contextmanager
def prompting() -> Iterator[None]:
    """Ctrl-C ends a prompt at once; inside `run` it would only cancel a task that the prompt keeps from running."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the asynchronous part of a command."""
    return asyncio.run(work)
